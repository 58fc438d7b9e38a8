"""A run on a table in which two fields share their ids and embeddings, and one is derived."""

import json

import numpy as np
import pytest
import torch

from dcrnn_fast.data import prepare
from dcrnn_fast.errors import DataError
from dcrnn_fast.training import evaluate, load_model, train
from tests.training.runs import HOUR, SHARED, config_of, write_log


@pytest.fixture(scope="module")
def run(run_of):
    return run_of(SHARED)


def test_a_weight_file_brings_the_model_whose_fields_share_back(run):
    model, about = load_model(run.folder / "model.safetensors", backend="reference")
    sizes = dict(about["fields"])
    assert about["shared"] == model.shared_embeddings == {"last_item": "item"}
    assert model.features.embedding.num_embeddings == sizes["hour"] + sizes["item"]


def test_new_rows_are_read_with_the_runs_ids_in_both_fields(run, tmp_path):
    other = write_log(tmp_path / "other", SHARED, seed=1, rename="i3")
    encoding = json.loads((run.folder / "encoder.json").read_text())
    assert encoding["shared"] == {"last_item": "item"}
    assert encoding["derived"] == {"hour": {"column": "time", "as": "hour", "zoned": True}}
    ids = prepare(other, encoding=encoding).split("test").ids
    assert (ids[:, 0] == 0).any()
    assert (ids[:, 2] == 0).any()
    assert evaluate(run.folder, data=str(other))["metrics"]["click"]["rows"] == len(ids)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"categorical": ["last_item", "hour", "item"]}, "column 'last_item' has the ids of none in its schema, and of 'item'"),
        ({"derived": [{**HOUR, "timezone": "Asia/Tokyo"}]}, "column 'hour' is derived"),
    ],
)
def test_new_rows_whose_schema_reads_a_column_in_another_way_are_refused(run, tmp_path, changes, said):
    other = write_log(tmp_path / "other", SHARED, **changes)
    with pytest.raises(DataError, match=said):
        evaluate(run.folder, data=str(other))


def test_a_run_goes_on_with_new_items_and_known_ones_start_as_they_were(run, tmp_path):
    """The learning rate is too small to move them."""
    tomorrow = write_log(tmp_path / "tomorrow", SHARED, seed=1, rename="i3")
    small = {"optimiser__lr": 1e-12, "optimiser__embedding_lr": 1e-12, "optimiser__weight_decay": 0.0}
    metrics = train(config_of(SHARED, tomorrow, **small), tmp_path / "run", init=run.folder)
    known, grown = (json.loads((folder / "encoder.json").read_text())["vocabulary"] for folder in (run.folder, tmp_path / "run"))
    assert grown["item"] == grown["last_item"] == [*known["item"], "novel"]
    assert metrics["init"]["oov"]["last_item"]["new_ids"] == metrics["init"]["oov"]["item"]["new_ids"] == 1
    before, after = (load_model(folder / "model.safetensors")[0] for folder in (run.folder, tmp_path / "run"))
    sizes = dict(zip(before.field_names, before.num_embeddings, strict=True))
    ids = torch.tensor([[a, b, c] for a, b, c in zip(*(np.arange(200) % sizes[name] for name in sizes), strict=True)])
    torch.testing.assert_close(after.features(ids).x0, before.features(ids).x0, rtol=0, atol=1e-9)
    apart = write_log(tmp_path / "apart", SHARED, categorical=["last_item", "hour", "item"])
    with pytest.raises(DataError, match=r"was trained with shared \{'last_item': 'item'\}, but log has \{\}"):
        train(config_of(SHARED, apart), tmp_path / "other", init=run.folder)
