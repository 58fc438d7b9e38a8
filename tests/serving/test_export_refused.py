"""A file that does not fit is refused with the remedy, and nothing in a file is unpickled or evaluated."""

import contextlib
import json
import os
import shutil
import zipfile

import pytest
import torch

from dcrnn_fast.errors import ExportError
from dcrnn_fast.serving import load_exported
from dcrnn_fast.serving.export.archive import GRAPH, SAMPLES

from .archives import Touch, pickled, rewritten, with_json

WEIGHTS = "data/weights/model_weights_config.json"


def test_a_rewritten_file_loads(file, tmp_path):
    """Otherwise the refusals below might be due to the rewriting."""
    assert load_exported(rewritten(file, tmp_path / "same.pt2", {})).names == load_exported(file).names


def setting(key, value):
    return lambda about: about.__setitem__(key, value)


def test_missing_and_damaged_files_are_refused(file, tmp_path):
    with pytest.raises(ExportError, match="does not exist"):
        load_exported(tmp_path / "absent.pt2")
    with pytest.raises(ExportError, match="ONNX Runtime loads"):
        load_exported(tmp_path / "shop.onnx")
    os.mkfifo(tmp_path / "pipe.pt2")
    (tmp_path / "device.pt2").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "pipe.pt2", tmp_path / "device.pt2"):
        with pytest.raises(ExportError, match="cannot be read: it is not a regular file"):
            load_exported(path)
    content = file.read_bytes()
    for part, changed in {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "text": b"no archive",
        "flipped": content.replace(b"gated", b"crate", 1),
    }.items():
        (tmp_path / f"{part}.pt2").write_bytes(changed)
        with pytest.raises(ExportError, match="is damaged"):
            load_exported(tmp_path / f"{part}.pt2")


def test_an_archive_that_is_compressed_or_has_an_entry_twice_is_refused(file, tmp_path):
    """It could hold entries far larger than itself, and readers differ in which entry they take."""
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "small.pt2", "w", zipfile.ZIP_DEFLATED) as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))
    shutil.copyfile(file, tmp_path / "twice.pt2")
    with zipfile.ZipFile(tmp_path / "twice.pt2", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(next(name for name in archive.namelist() if name.endswith("extra/encoder.json")), b"{}")
    for name in ("small.pt2", "twice.pt2"):
        with pytest.raises(ExportError, match="is damaged"):
            load_exported(tmp_path / name)


def first_node(change):
    return with_json(lambda program: change(program["graph_module"]["graph"]["nodes"][0]))


def pickle_the_first_weight(config):
    next(iter(config["config"].values()))["use_pickle"] = True


def first_size(text):
    """Replace the text of the first size in the graph."""

    def replace(content):
        sizes = json.dumps("Symbol('s")[1:-1]
        before, _, rest = content.decode().partition(f'"expr_str": "{sizes}')
        return f'{before}"expr_str": {json.dumps(text)}, "was": "{rest}'.encode()

    return replace


def tree(kind, context):
    def change(program):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["out_spec"] = json.dumps([1, {"type": kind, "context": context, "children_spec": []}])

    return with_json(change)


def hostile(marker):
    """Changes, each of which makes PyTorch's own reader, or the program that it gives, run code of the file's author."""
    write = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    samples = pickled(((Touch(marker),), {}))
    return {
        "pickled inputs": {SAMPLES: lambda _: samples},
        "pickled weight": {WEIGHTS: with_json(pickle_the_first_weight), "data/weights/weight_0": lambda _: samples},
        "old weights": {"data/weights/model.pt": lambda _: samples},
        "pickled object": {"data/constants/opaque_obj_0": lambda _: samples},
        "another program": {"models/other.json": lambda _: b"{}"},
        "machine code": {"data/aotinductor/model/a.so": lambda _: b""},
        "guard": {GRAPH: with_json(setting("guards_code", [write]))},
        "size": {GRAPH: first_size(write)},
        "digits": {GRAPH: first_size("1" * 400 + "!")},
        "power": {GRAPH: first_size("Pow(Integer(9), Integer(999999999))")},
        "system call": {GRAPH: first_node(setting("target", "torch.os.system"))},
        "file": {GRAPH: first_node(setting("target", "torch.ops.aten.from_file.default"))},
        "extension": {GRAPH: first_node(setting("target", "#elsewhere:call"))},
        "name": {GRAPH: lambda content: content.replace(b'"ids"', json.dumps(f"ids={write}").encode())},
        "import": {GRAPH: tree("collections.defaultdict", '{"default_factory_module": "antigravity", "default_factory_name": "x"}')},
    }


@pytest.mark.parametrize("attack", hostile("x"))
def test_nothing_in_a_file_is_unpickled_or_evaluated(file, tmp_path, attack):
    marker = tmp_path / "ran"
    changed = rewritten(file, tmp_path / "hostile.pt2", hostile(marker)[attack])
    with pytest.raises(ExportError, match="not a file of"):
        load_exported(changed)
    assert not marker.exists()
    if attack in ("pickled inputs", "size"):
        with contextlib.suppress(Exception):
            torch.export.load(changed)
        assert marker.exists(), "PyTorch's own reader does not run it: the attack shows nothing"
