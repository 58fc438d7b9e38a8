"""Runs on a table in which two fields share their ids and embeddings, and one is derived."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml

from dcrnn_fast.data import prepare
from dcrnn_fast.errors import CheckpointError, DataError
from dcrnn_fast.training import evaluate, load_model, train
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.evaluate.predict import predict_split
from dcrnn_fast.training.folder.tensors import read_safetensors
from dcrnn_fast.training.folder.weights import build_model, describe, export_weights
from dcrnn_fast.training.loop.oov_dropout import OOVDropout
from tests.training.loop.test_resume import StoppedError, outcome, stop_at
from tests.training.tiny import tiny_config

HOUR = {"name": "hour", "column": "time", "as": "hour"}
SHARED = {"column": "last_item", "same_ids_as": "item"}


def write_items(folder, *, seed=0, rename=None, **changes):
    """A log of items and the item before; ``rename`` gives one item another name. Returns the schema's path."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    items = [f"i{n}" if f"i{n}" != rename else "novel" for n in rng.integers(0, 12, 601)]
    lines = [f"{a},{b},{1717200000 + 977 * n},{int(rng.random() < 0.5)}" for n, (a, b) in enumerate(pairwise(items))]
    (folder / "items.csv").write_text("\n".join(["last_item,item,time,click", *lines, ""]))
    schema = {
        "name": "items",
        "files": {"all": "items.csv", "test_fraction": 0.3},
        "derived": [HOUR],
        "categorical": [SHARED, "hour", "item"],
        "tasks": [{"name": "click", "column": "click"}],
    }
    path = folder / "items.yaml"
    path.write_text(yaml.safe_dump(schema | changes))
    return path


def config(schema, **changes):
    return tiny_config(schema, optimiser__epochs=1, checkpoint_every=2, **changes)


@pytest.fixture(scope="module")
def items(_cache, tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("items"))


@pytest.fixture(scope="module")
def run(items, tmp_path_factory):
    """A finished run. Do not write into it."""
    folder = tmp_path_factory.mktemp("runs") / "items"
    train(config(items), folder)
    return folder


def test_a_run_builds_the_model_whose_fields_share_and_its_weight_file_brings_it_back(items, run):
    model, about = load_model(run / "model.safetensors", backend="reference")
    sizes = dict(about["fields"])
    assert about["shared"] == model.shared_embeddings == {"last_item": "item"}
    assert model.embedding.num_embeddings == sizes["hour"] + sizes["item"]
    assert (run / "encoder.json").is_file()
    data = prepare_data(config(items))
    predicted = predict_split(model, data.split("test"), torch.device("cpu"))["click"]
    labels = data.split("test").labels[:, 0]
    log_loss = -np.mean(np.where(labels == 1, np.log(predicted), np.log1p(-predicted)))
    assert log_loss == pytest.approx(evaluate(run)["metrics"]["click"]["log_loss"], rel=1e-5)


def test_the_same_column_without_sharing_has_rows_of_its_own(tmp_path):
    settings = config(write_items(tmp_path / "apart", categorical=["last_item", "hour", "item"]))
    about = describe(settings, prepare_data(settings))
    assert about["shared"] == {}
    model = build_model(about, device=torch.device("cpu"), backend="reference")
    assert model.embedding.num_embeddings == sum(size for _, size in about["fields"])


def test_a_stopped_run_goes_on_to_the_same_bits(items, run, tmp_path):
    with pytest.raises(StoppedError):
        train(config(items), tmp_path / "run", on_step=stop_at(3))
    train(config(items), tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(run)


def test_new_rows_are_read_with_the_runs_ids_in_both_fields(run, tmp_path):
    other = write_items(tmp_path / "other", seed=1, rename="i3")
    encoding = json.loads((run / "encoder.json").read_text())
    assert encoding["shared"] == {"last_item": "item"}
    assert encoding["derived"] == {"hour": {"column": "time", "as": "hour"}}
    ids = prepare(other, encoding=encoding).split("test").ids
    assert (ids[:, 0] == 0).any()
    assert (ids[:, 2] == 0).any()
    assert evaluate(run, data=str(other))["metrics"]["click"]["rows"] == len(ids)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"categorical": ["last_item", "hour", "item"]}, "column 'last_item' has the ids of none in its schema, and of 'item'"),
        ({"derived": [{**HOUR, "timezone": "Asia/Tokyo"}]}, "column 'hour' is derived"),
    ],
)
def test_new_rows_whose_schema_reads_a_column_in_another_way_are_refused(run, tmp_path, changes, said):
    other = write_items(tmp_path / "other", **changes)
    with pytest.raises(DataError, match=said):
        evaluate(run, data=str(other))


def test_a_run_goes_on_with_new_items_in_both_fields(items, run, tmp_path):
    tomorrow = write_items(tmp_path / "tomorrow", seed=1, rename="i3")
    metrics = train(config(tomorrow), tmp_path / "run", init=run)
    known, grown = (json.loads((folder / "encoder.json").read_text())["vocabulary"] for folder in (run, tmp_path / "run"))
    assert grown["item"] == grown["last_item"] == [*known["item"], "novel"]
    assert metrics["init"]["oov"]["last_item"]["new_ids"] == metrics["init"]["oov"]["item"]["new_ids"] == 1


def test_the_rows_of_known_items_start_from_the_earlier_runs_weights(run, tmp_path):
    """The learning rate is too small to move them."""
    tomorrow = write_items(tmp_path / "tomorrow", seed=1, rename="i3")
    train(config(tomorrow, optimiser__lr=1e-12, optimiser__weight_decay=0.0), tmp_path / "run", init=run)
    before, after = (load_model(folder / "model.safetensors")[0] for folder in (run, tmp_path / "run"))
    sizes = dict(zip(before.field_names, before.num_embeddings, strict=True))
    ids = torch.tensor([[a, b, c] for a, b, c in zip(*(np.arange(200) % sizes[name] for name in sizes), strict=True)])
    torch.testing.assert_close(after.features(ids), before.features(ids), rtol=0, atol=1e-9)


def test_a_run_does_not_go_on_with_fields_that_share_otherwise(run, tmp_path):
    apart = write_items(tmp_path / "apart", categorical=["last_item", "hour", "item"])
    with pytest.raises(DataError, match=r"was trained with shared \{'last_item': 'item'\}, but items has \{\}"):
        train(config(apart), tmp_path / "run", init=run)


def test_out_of_vocabulary_dropout_counts_an_item_in_all_fields_that_share_it(items):
    data = prepare_data(config(items))
    dropout = OOVDropout(data, alpha=10.0, device=torch.device("cpu"))
    ids = data.split("train").ids
    for item in range(1, data.meta.fields["item"]):
        counts = int((ids[:, [0, 2]] == item).sum())
        for column in (0, 2):
            assert float(dropout.probability[item + dropout.offsets[column]]) == pytest.approx(10 / (10 + counts))


@pytest.mark.parametrize("shared", [{"last_item": "hour"}, {"last_item": "shop"}, {"last_item": "item", "item": "last_item"}])
def test_a_weight_file_of_an_impossible_sharing_is_refused(run, tmp_path, shared):
    tensors, metadata = read_safetensors(run / "model.safetensors")
    about = json.loads(metadata["dcrnn_fast"])["about"] | {"shared": shared}
    export_weights(tmp_path / "model.safetensors", tensors, about)
    with pytest.raises(CheckpointError, match=r"describes no model: .*shared_embeddings"):
        load_model(tmp_path / "model.safetensors")
