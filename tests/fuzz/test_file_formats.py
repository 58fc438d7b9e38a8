"""Files that were damaged or made up: reading one ends in a value or in an error of the package, and takes memory like its size.

``python -m tests.fuzz.test_file_formats CASE`` reads one again.
"""

import contextlib
import copy
import hashlib
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from bench.machine import memory_growth
from dcrnn_fast import DcrnnFastError
from dcrnn_fast.data import BlockLoader, Encoder, PackedMeta, open_packed, prepare
from dcrnn_fast.data.encoder.run_folder import read_encoding
from dcrnn_fast.data.schema.table import load_schema
from dcrnn_fast.support.strict_json import json_digest
from dcrnn_fast.training import Report, load_config, load_model, train
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.evaluate.calibration_file import read_calibration
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.folder.tensors import canonical_json
from dcrnn_fast.training.folder.weights import export_weights, read_weights
from dcrnn_fast.training.loop.job import Job
from dcrnn_fast.training.loop.trainer import Trainer
from tests.training.tiny import tiny_config, tiny_values, write_table

from . import campaign

MEMORY = 300 << 20
"""Bytes by which the process may grow in one call; every file here has less than 100 KB."""
WRONG_VALUES = (
    *(None, True, 0, 1, -1, 2**31, 2**63, 10**19, 0.5, -0.0, 1e300),
    *("", "x", "ä" * 50, "\x00", "../x", "2001-13-45", [], [[]], {}, {"": {}}, [0] * 100),
)
"""Values of other types or sizes than a key expects."""


class Originals:
    """A schema with its table, its packed data, a run on it, and a run configuration. Copies are damaged, these stay whole."""

    def __init__(self, folder: Path) -> None:
        self.schema = write_table(folder / "table", rows=300)
        self.config = tiny_config(self.schema, optimiser__epochs=1)
        self.dataset = prepare_data(self.config)
        train(self.config, folder / "run")
        self.run = RunFolder(folder / "run")
        self.packed = shutil.copytree(self.dataset.path, folder / "packed")
        self.settings = folder / "run.yaml"
        self.settings.write_text(yaml.safe_dump(load_config(None, tiny_values(self.schema)).to_dict()))
        self.work = folder / "work"

    def copy(self, path: Path) -> Path:
        """A copy of a file or folder, alone in the folder `work`."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        to = self.work / path.name
        return Path(shutil.copytree(path, to) if path.is_dir() else shutil.copy(path, to))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    return Originals(tmp_path_factory.mktemp("originals"))


def damage(file: Path, rng: random.Random, other: Path) -> None:
    """Flip bits of a file, cut it short, put a piece of itself or of another one into it, or put the other one in its place."""
    changed = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(max(1, len(changed)))
        way = rng.choice(["flip", "flip early", "set", "cut", "splice", "repeat", "remove", "swap"])
        if way in ("flip", "set") and changed:
            changed[place] = changed[place] ^ 1 << rng.randrange(8) if way == "flip" else rng.randrange(256)
        elif way == "flip early" and changed:
            changed[place % 128 % len(changed)] ^= 1 << rng.randrange(8)
        elif way == "cut":
            del changed[place:]
        elif way == "remove":
            del changed[place : place + rng.randint(1, 40)]
        elif way == "swap":
            changed = bytearray(other.read_bytes())
        else:
            source = other.read_bytes() if way == "splice" else bytes(changed)
            start = rng.randrange(max(1, len(source)))
            changed[place:place] = source[start : start + rng.randint(1, 200)] * rng.choice([1, 1, 3, 50])
    file.write_bytes(changed)


def changed(value: Any, rng: random.Random) -> Any:
    """A value of dicts, lists and scalars in which one to three places hold something else, are gone, doubled, nested or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        container, key = None, None
        node = value
        while isinstance(node, (dict, list)) and node and (container is None or rng.randrange(4)):
            container, key = node, rng.choice(sorted(node, key=str) if isinstance(node, dict) else range(len(node)))
            node = node[key]
        if container is None:
            break
        way = rng.choice(["replace", "replace", "replace", "remove", "nest", "deep", "text", "grow"])
        if way == "replace":
            container[key] = copy.deepcopy(rng.choice(WRONG_VALUES))
        elif way == "remove":
            del container[key]
        elif way == "nest":
            container[key] = [node, {"x": node}]
        elif way == "deep":
            for _ in range(rng.choice([3, 60, 150])):
                node = [node]
            container[key] = node
        elif way == "text":
            container[key] = str(node)
        elif isinstance(container, dict):
            container["".join(rng.choices("aZ0ä .\x00", k=rng.randrange(4)))] = copy.deepcopy(rng.choice(WRONG_VALUES))
        else:
            container.extend(copy.deepcopy(container[:50]))
    return value


def changed_tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    name = rng.choice(sorted(tensors))
    dtypes = [torch.int8, torch.bool, torch.complex64, torch.float64, torch.bfloat16, torch.uint16]
    change = rng.choice(["drop", "rename", "flatten", "grow", "empty", *dtypes])
    tensors = dict(tensors)
    value = tensors.pop(name)
    if change == "drop":
        return tensors
    if change == "rename":
        return tensors | {name + "x": value}
    ways = {"flatten": lambda: value.flatten(), "grow": lambda: value[None], "empty": lambda: value.flatten()[:0]}
    return tensors | {name: ways[change]() if change in ways else value.to(change)}


def read_packed(folder: Path) -> None:
    """Open packed data and read all of it, as training does."""
    data = open_packed(folder, verify=True)
    for split in data.splits.values():
        if len(split):
            list(BlockLoader(split, 512, shuffle=True).batches())


def encode_with(folder: Path) -> None:
    """Encode rows as a server of the model does."""
    Encoder.load(folder).encode({"shape": ["s1", None], "colour": ["c1", "c9"], "size": [0.5, None]})


def resume_from(originals: Originals, file: Path) -> None:
    Trainer.resumed(Job(originals.config, originals.dataset, originals.run, Report(), torch.device("cpu")), file)


def read_encoder(originals: Originals, file: Path) -> None:
    read_encoding(file, read_weights(originals.run.weights)[1])


FILES: dict[str, tuple[Callable[[Originals], Path], Callable[[Originals, Path], Any]]] = {
    "weights": (lambda o: o.run.weights, lambda o, file: load_model(file)),
    "encoder": (lambda o: o.run.encoder, read_encoder),
    "checkpoint": (lambda o: o.run.newest_checkpoint(), resume_from),
    "settings": (lambda o: o.settings, lambda o, file: load_config(file).to_yaml()),
    "schema": (lambda o: o.schema, lambda o, file: load_schema(file)),
}
"""Files, and how each is read."""
Made = Callable[[], Any]
"""A function that reads what was damaged."""


def of_bytes(name: str, originals: Originals, rng: random.Random) -> Made:
    original, read = FILES[name]
    file = originals.copy(original(originals))
    damage(file, rng, originals.run.metrics)
    return lambda: read(originals, file)


def packed_bytes(originals: Originals, rng: random.Random) -> Made:
    folder = originals.copy(originals.packed)
    file, other = (rng.choice(sorted(folder.iterdir())) for _ in range(2))
    damage(file, rng, other)
    return lambda: read_packed(folder)


def packed_meta(originals: Originals, rng: random.Random, read: Callable[[Path], Any] = read_packed) -> Made:
    file = originals.copy(originals.packed) / "meta.json"
    content = changed(json.loads(file.read_text()), rng)
    with contextlib.suppress(AttributeError, TypeError, ValueError):  # Without all keys it cannot be sealed.
        content["digest"] = PackedMeta(**content).computed_digest()
    file.write_text(json.dumps(content))
    return lambda: read(file.parent)


def weight_content(originals: Originals, rng: random.Random) -> Made:
    tensors, about, _ = read_weights(originals.run.weights)
    if rng.randrange(2):
        about = changed(about, rng)
    else:
        tensors = changed_tensors(tensors, rng)
    file = originals.copy(originals.run.weights)
    export_weights(file, tensors, about)
    return lambda: load_model(file)


def encoder_content(originals: Originals, rng: random.Random) -> Made:
    content = changed(json.loads(originals.run.encoder.read_text()), rng)
    file = originals.copy(originals.run.encoder)
    file.write_text(json.dumps(content))
    about = read_weights(originals.run.weights)[1] | {"encoding": hashlib.sha256(canonical_json(content)).hexdigest()}
    return lambda: prepare(originals.schema, cache_dir=file.parent / "cache", encoding=read_encoding(file, about))


def run_encoder(originals: Originals, rng: random.Random) -> Made:
    tensors, about, _ = read_weights(originals.run.weights)
    content = json.loads(originals.run.encoder.read_text())
    if rng.randrange(2):
        about = changed(about, rng)
    else:
        content = changed(content, rng)
        about["encoding"] = hashlib.sha256(canonical_json(content)).hexdigest()
    folder = originals.copy(originals.run.encoder).parent
    (folder / "encoder.json").write_text(json.dumps(content))
    export_weights(folder / "model.safetensors", tensors, about)
    if rng.randrange(2):
        damage(folder / rng.choice(["encoder.json", "model.safetensors"]), rng, originals.run.metrics)
    return lambda: encode_with(folder)


def calibration_content(originals: Originals, rng: random.Random) -> Made:
    line = {"method": "platt", "rows": 9, "positives": 3, "slope": 0.5, "intercept": -1.0}
    steps = {"method": "isotonic", "rows": 9, "positives": 3, "knots": [-1.0, 1.0], "calibrated": [-2.0, 0.0]}
    content = changed({"weights": "", "split": "valid", "maps": {"click": line, "buy_given_click": steps}}, rng)
    file = originals.copy(originals.run.encoder).with_name("calibration.json")
    file.write_text(json.dumps({**content, "digest": json_digest(content)} if isinstance(content, dict) else [content]))
    if rng.randrange(2):
        damage(file, rng, originals.run.metrics)
    half = np.full(3, 0.5, dtype=np.float32)

    def score() -> None:
        calibration = read_calibration(file, {"tasks": ["click", "buy"], "relation": "chain"}, "")
        if calibration is not None:
            calibration.apply({"click": half, "buy": half, "buy_given_click": half}, ("click", "buy"), 0.1)

    return score


def settings_content(originals: Originals, rng: random.Random) -> Made:
    file = originals.copy(originals.settings)
    file.write_text(yaml.safe_dump(changed(yaml.safe_load(file.read_text()), rng)))
    return lambda: load_config(file).to_yaml()


def schema_content(originals: Originals, rng: random.Random) -> Made:
    file = originals.copy(originals.schema.parent) / "tiny.yaml"
    file.write_text(yaml.safe_dump(changed(yaml.safe_load(file.read_text()), rng)))
    return lambda: prepare(file, cache_dir=file.parent / "cache")


def table_bytes(kind: str, originals: Originals, rng: random.Random) -> Made:
    folder = originals.copy(originals.schema.parent)
    if kind == "parquet":
        pq.write_table(pa_csv.read_csv(folder / "tiny.csv"), folder / "tiny.parquet")
    schema = yaml.safe_load(originals.schema.read_text()) | {"files": {"all": f"tiny.{kind}", "test_fraction": 0.3}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(schema))
    damage(folder / f"tiny.{kind}", rng, originals.settings)
    return lambda: prepare(folder / "tiny.yaml", cache_dir=folder / "cache")


CONTENTS = (packed_bytes, packed_meta, weight_content, encoder_content, run_encoder, calibration_content, settings_content, schema_content)
FORMATS: dict[str, Callable[[Originals, random.Random], Made]] = {
    **{f"{name}_bytes": partial(of_bytes, name) for name in FILES},
    **{make.__name__: make for make in CONTENTS},
    "packed_encoder": partial(packed_meta, read=encode_with),
    **{f"{kind}_bytes": partial(table_bytes, kind) for kind in ("csv", "parquet")},
}


def finding_of(call: Made) -> str | None:
    """What is wrong with the end of a call: another exception than the documented ones, or too much memory."""
    grown = memory_growth()
    try:
        call()
    except DcrnnFastError as error:
        if len(str(error)) > 3000:
            return f"a message of {len(str(error))} characters: {str(error)[:200]}..."
    except Exception:
        return traceback.format_exc(limit=-4)
    return f"the process grew by {grown() >> 20} MiB" if grown() > MEMORY else None


def judge(originals: Originals, case: campaign.Case) -> str | None:
    return finding_of(FORMATS[case["format"]](originals, random.Random(case["seed"])))


@pytest.mark.filterwarnings("ignore")
def test_damaged_and_made_up_files_end_in_an_error_of_the_package(originals, record_property):
    def make(rng: random.Random) -> campaign.Case:
        return {"format": rng.choice(list(FORMATS)), "seed": rng.getrandbits(32)}

    record_property("fuzz", campaign.run("test_file_formats", make, partial(judge, originals), 3))


@pytest.mark.parametrize(
    ("call", "said"), [(lambda: {}["absent"], "KeyError"), (lambda: bytearray(b"1") * (2 * MEMORY), "the process grew by")]
)
def test_the_fuzzer_finds_another_exception_and_too_much_memory(call, said):
    assert said in finding_of(call)


if __name__ == "__main__":
    print(judge(Originals(Path(tempfile.mkdtemp())), json.loads(sys.argv[1])) or "a value, or an error of the package")
