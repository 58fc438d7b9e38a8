"""Weight files that are damaged, were changed, or are asked for what they have not."""

import errno
import json
import math
import os
from pathlib import Path

import torch

from bench.machine import memory_growth
from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import CheckpointError, ConfigError, RunFolderError
from dcrnn_fast.training import evaluate, load_model
from dcrnn_fast.training.folder.run_files import write_json
from dcrnn_fast.training.folder.tensors import load_tensors, pack_tensors, read_safetensors
from dcrnn_fast.training.folder.weights import export_weights, read_weights
from tests.damage import edit_json, flip_a_bit
from tests.refusals import refused, row, rows
from tests.training.runs import SEVERAL, SHARED


def with_description(change):
    def damage(path):
        tensors, metadata = read_safetensors(path)
        sealed = json.loads(metadata["dcrnn_fast"])
        change(sealed["about"])
        path.write_bytes(pack_tensors(tensors, {"dcrnn_fast": json.dumps(sealed)}))

    return damage


def drop_the_description(path):
    path.write_bytes(pack_tensors(read_safetensors(path)[0]))


def a_weight_file(damage, copied):
    damage(copied / "model.safetensors")
    load_model(copied / "model.safetensors")


def of_a_whole_file(change, copied):
    """``change`` edits tensors and description, and the digest is theirs."""
    path = copied / "model.safetensors"
    tensors, about, _ = read_weights(path)
    change(tensors, about)
    export_weights(path, tensors, about)
    grown = memory_growth()
    try:
        load_model(path)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017 (the row asks for the error)
        raise
    finally:
        assert grown() < 200 << 20, "a small file takes no memory, whatever it describes"


def cast(dtype):
    def change(tensors, about):
        tensors["towers.head.private_bias"] = tensors["towers.head.private_bias"].to(dtype)

    return change


def of_another_shape():
    module = torch.nn.Linear(3, 2)
    before = module.weight.detach().clone()
    try:
        load_tensors(module, {"weight": torch.zeros(2, 4), "scale": torch.zeros(1)}, "model.safetensors")
    finally:
        assert torch.equal(module.weight, before)


def json_with_nan(tmp_path):
    try:
        write_json(tmp_path / "metrics.json", {"auc": math.nan})
    finally:
        assert not [*tmp_path.iterdir()]


def an_encoder(name, damage, copied):
    damage(copied / name)
    Encoder.load(copied)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def an_unreadable_file(method, read, copied, monkeypatch):
    """The tests may run as root, who reads everything."""

    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, method, refuse)
    read(copied)


def with_head(metadata):
    """The damage that leaves nothing but a head with this metadata."""
    head = json.dumps({"__metadata__": metadata}).encode()
    return lambda path: path.write_bytes(len(head).to_bytes(8, "little") + head)


WRONG_FIELDS = {"about": {"tasks": ["click"], "fields": [["shape", "4"]], "dense": [], "encoding": ""}}


def a_damaged_weight_file(damage, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage(pack_tensors({"weight": torch.randn(5, 7), "step": torch.tensor(3.0)})))
    read_safetensors(path)


def an_impossible_description(feature, key, value, run_of, tmp_path):
    """The weight file of the feature's run, with another description than its own."""
    tensors, about, _ = read_weights(run_of(feature).folder / "model.safetensors")
    export_weights(tmp_path / "model.safetensors", tensors, about | {key: value})
    load_model(tmp_path / "model.safetensors")


TABLE = [
    row("a backend or device that is none 1",
        lambda finished: load_model(finished / "model.safetensors", backend="abacus"), ConfigError, "backend='abacus'"),
    row("a backend or device that is none 2",
        lambda finished: load_model(finished / "model.safetensors", device="abacus"),
        ConfigError, "device is 'abacus', expected auto, cpu, cuda"),
    *rows("a weight file that was changed or has no description",
        a_weight_file, CheckpointError, within=r"model\.safetensors {}", cases=[
        (flip_a_bit, "was changed after it was written"),
        (with_description(lambda about: about["fields"].sort()), "was changed after it was written"),
        (with_description(lambda about: about["model"].update(dropout=float("nan"))), "has no dcrnn_fast description"),
        (drop_the_description, "has no dcrnn_fast description"),
    ]),
    *rows("a weight file of fields that no model has",
        an_impossible_description, CheckpointError, within="describes no model: .*{}", cases=[
        (SEVERAL, "pooled", {"tags": {"columns": ["tags[0]", "item"], "pooling": "sum"}}, "pooled"),
        (SEVERAL, "pooled", {"tags": {"columns": ["tags[0]"], "pooling": "max"}}, "pooled"),
        (SEVERAL, "pooled", {"tags": {"columns": [], "pooling": "sum"}}, "pooled"),
        (SEVERAL, "pooled", {"item": {"columns": ["tags[0]"], "pooling": "sum"}}, "pooled"),
        (SEVERAL, "pooled", ["tags"], "pooled"),
        (SHARED, "shared", {"last_item": "hour"}, "shared_embeddings"),
        (SHARED, "shared", {"last_item": "shop"}, "shared_embeddings"),
        (SHARED, "shared", {"last_item": "item", "item": "last_item"}, "shared_embeddings"),
    ]),
    *rows("a damaged weight file",
        a_damaged_weight_file, CheckpointError, said=r"model\.safetensors is damaged or no safetensors file", values=[
        lambda data: data[:-9], lambda data: b"no tensors", lambda data: b"",
    ]),
    row("a missing weight file",
        lambda tmp_path: read_safetensors(tmp_path / "model.safetensors"), CheckpointError, r"model\.safetensors does not exist"),
    *rows("a sealed weight file that is no model", of_a_whole_file, CheckpointError, cases=[
        *((cast(dtype), rf"head\.private_bias has dtype {dtype} in the file and torch\.float32 in the model")
          for dtype in (torch.int8, torch.bool, torch.complex64, torch.float64)),
        (lambda tensors, about: about.clear(), "describes no model: model is missing"),
        (lambda tensors, about: about["model"].pop("rank"), "describes no model: .*model lacks rank"),
        (lambda tensors, about: about.update(tasks="click"), "describes no model: tasks is 'click': Input should be a valid list"),
        (lambda tensors, about: about["fields"].append(["shape", 3]), "a field is named twice"),
        (lambda tensors, about: about["model"].update(steps=10**15), "describes no model: model.steps is 1000000000000000: "),
        (lambda tensors, about: about["model"].update(tower_dims=[1] * 65), "model.tower_dims .* at most 64"),
        (lambda tensors, about: about.update(tasks=["a", "a"]), "describes no model: .*distinct names"),
        (lambda tensors, about: about.update(tasks=[*"abcdefghi"], model=about["model"] | {"tower_dims": [65536] * 64}),
         "expected at most 262,144 and 16,777,216"),
        (lambda tensors, about: about["model"].update(tower_dims=[30_000, 30_000]),
         r"belongs to another model: towers\.layers\.1\.shared_weight is missing in the file"),
    ]),
    row("tensors of another shape", of_another_shape, CheckpointError,
        r"^model\.safetensors belongs to another model: .*bias is missing in the file.*scale is unknown to the model"
        r".*weight has shape \[2, 4\] in the file and \[2, 3\] in the model"),
    *rows("what this user may not read", an_unreadable_file, None, within="{}", cases=[
        ("open", lambda run: load_model(run / "model.safetensors"), CheckpointError,
         r"model\.safetensors cannot be read: Permission denied; let this user read it"),
        ("is_file", evaluate, RunFolderError, "cannot read .*run: Permission denied"),
    ]),
    row("JSON with NaN", json_with_nan, ValueError, "not JSON compliant"),
    *rows("an encoder whose files do not belong together", an_encoder, CheckpointError, cases=[
        ("encoder.json", edit_json(lambda encoder: encoder["scaling"]["size"].update(mean=0.5)), "its digest does not match"),
        ("encoder.json", edit_json(lambda encoder: encoder.update(more=1)), "expected the vocabulary and scaling of another"),
        ("encoder.json", lambda path: path.write_text("{"), r"encoder\.json cannot be read"),
        ("model.safetensors", lambda path: path.unlink(), r"model\.safetensors does not exist; go on with --resume"),
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:100]), "its head is longer than the file"),
        ("model.safetensors", lambda path: path.write_bytes(b""), "has no dcrnn_fast description"),
        ("model.safetensors", a_pipe, r"model\.safetensors cannot be read"),
        ("model.safetensors", with_head({"other": "1"}), "has no dcrnn_fast description"),
        ("model.safetensors", with_head({"dcrnn_fast": json.dumps(WRONG_FIELDS)}), "its description is "),
    ]),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
