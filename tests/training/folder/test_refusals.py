"""Weight files that are damaged, were changed, or are asked for what they have not."""

import json

import torch

from dcrnn_fast.errors import CheckpointError, ConfigError
from dcrnn_fast.training import load_model
from dcrnn_fast.training.folder.tensors import pack_tensors, read_safetensors
from dcrnn_fast.training.folder.weights import export_weights, read_weights
from tests.damage import flip_a_bit
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
        lambda damage, copied: (damage(copied / "model.safetensors"), load_model(copied / "model.safetensors")),
        CheckpointError, within=r"model\.safetensors {}", cases=[
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
]  # fmt: skip

test_it_is_refused = refused(TABLE)
