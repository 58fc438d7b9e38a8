"""Raw rows in, named probabilities out: those of the model on the rows that `prepare` encodes."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from dcrnn_fast import Ranker
from dcrnn_fast.errors import CheckpointError, DataError
from dcrnn_fast.serving import ranker as module
from dcrnn_fast.serving import score_files
from dcrnn_fast.training import load_model, train
from tests.reads import recorded
from tests.tables import TableFolder
from tests.training.tiny import SCHEMA, tiny_config

ROWS = {"colour": ["c1", "c8", "unseen"], "shape": ["s0", None, "s4"], "size": [0.5, -1.25, None]}


def test_its_scores_are_the_models_on_the_rows_that_prepare_encodes(shop, tmp_path):
    folder = TableFolder(tmp_path, **SCHEMA | {"files": {"train": str(shop / "tiny.csv"), "test": str(shop / "tiny.csv")}})
    rows = folder.prepare(encoding=json.loads((shop / "run" / "encoder.json").read_text())).split("test")
    model, _ = load_model(shop / "run" / "model.safetensors")
    expected = model.predict(torch.from_numpy(np.array(rows.ids)).long(), torch.from_numpy(np.array(rows.dense)))
    ranker = Ranker.load(shop / "run")
    found = ranker.predict(pd.read_csv(shop / "tiny.csv"))
    assert list(found) == list(ranker.names) == ["click", "buy", "buy_given_click"]
    for name, values in expected.items():
        assert found[name].dtype == np.float32, name
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-5, err_msg=name)


def test_a_mapping_without_labels_with_unseen_and_missing_cells_is_scored(shop):
    scores = Ranker.load(shop / "run").predict(ROWS)
    assert all(0 < value < 1 for values in scores.values() for value in values)
    assert (scores["buy"] <= scores["click"]).all()


def test_single_cells_are_one_row(shop):
    ranker = Ranker.load(shop / "run")
    found = ranker.predict({"colour": "c1", "shape": None, "size": np.float32(0.5), "user": ["u1", "u2"]})
    expected = ranker.predict({"colour": ["c1"], "shape": [None], "size": [0.5]})
    assert {name: values.tolist() for name, values in found.items()} == {name: values.tolist() for name, values in expected.items()}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"colour": "c1", "shape": ["s0"], "size": [0.5]}, "column 'colour' is 'c1', expected a list"),
        ({"colour": "c1", "shape": "s0"}, "lacks the columns size, .*; it has (colour|shape), "),
        ({"colour": "c1", "shape": "s0", "size": "large"}, "row 1: column 'size' .* holds 'large'"),
    ],
)
def test_a_row_of_single_cells_that_cannot_be_read_is_refused(shop, row, said):
    with pytest.raises(DataError, match=said):
        Ranker.load(shop / "run").predict(row)


def test_rows_are_scored_alike_whatever_the_batch(shop, monkeypatch):
    ranker, table = Ranker.load(shop / "run"), pd.read_csv(shop / "tiny.csv")
    whole = ranker.predict(table)
    monkeypatch.setattr(module, "BATCH", 7)
    for name, values in ranker.predict(table).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("is_checked", [True, False])
def test_on_a_gpu_rows_are_checked_before_they_go_there(shop, monkeypatch, is_checked):
    ranker, found = Ranker.load(shop / "run", backend="reference"), []
    rows = ranker.encoder.encode(ROWS)
    predict = ranker._prepared.predict

    def recording(*arguments):
        with recorded(found):
            return predict(*arguments)

    monkeypatch.setattr(ranker._prepared, "predict", recording)
    monkeypatch.setattr(ranker, "_checks", is_checked)
    ranker.predict_encoded(*rows)
    found.clear()
    ranker.predict_encoded(*rows)
    assert bool(found) is not is_checked


def test_no_rows_have_no_scores(shop):
    scores = Ranker.load(shop / "run").predict({"colour": [], "shape": [], "size": []})
    assert {name: values.shape for name, values in scores.items()} == {"click": (0,), "buy": (0,), "buy_given_click": (0,)}


def test_two_files_of_a_run_folder_suffice(shop, tmp_path):
    for name in ("model.safetensors", "encoder.json"):
        shutil.copy(shop / "run" / name, tmp_path / name)
    np.testing.assert_array_equal(Ranker.load(tmp_path).predict(ROWS)["buy"], Ranker.load(shop / "run").predict(ROWS)["buy"])


def test_a_folder_of_no_run_and_one_with_a_changed_encoder_are_refused(shop, tmp_path):
    with pytest.raises(DataError, match="no run folder"):
        Ranker.load(tmp_path)
    shutil.copy(shop / "run" / "model.safetensors", tmp_path)
    text = (shop / "run" / "encoder.json").read_text()
    (tmp_path / "encoder.json").write_text(text.replace("c1", "c9", 1))
    with pytest.raises(CheckpointError, match="was changed"):
        Ranker.load(tmp_path)


def test_fields_of_several_values_and_derived_columns_are_scored_from_files_as_from_memory(tmp_path):
    table = pd.DataFrame(
        {
            "tags": ["a|b", "b", "", "c|a"] * 60,
            "city": ["x", "y", "x", None] * 60,
            "time": [1_700_000_000 + 3600 * row for row in range(240)],
            "click": [0, 1, 1, 0] * 60,
        }
    )
    table.to_csv(tmp_path / "log.csv", index=False)
    folder = TableFolder(
        tmp_path,
        name="log",
        files={"all": "log.csv", "test_fraction": 0.2},
        derived=[{"name": "hour", "column": "time", "as": "hour"}],
        min_count=1,
        categorical=["city", {"column": "tags", "max_values": 2, "separator": "|"}],
        numeric=[{"column": "hour", "buckets": 4}],
    )
    train(tiny_config(folder.save(), optimiser__epochs=1), tmp_path / "run")
    ranker = Ranker.load(tmp_path / "run")
    score_files(ranker, [tmp_path / "log.csv"], tmp_path / "scores.parquet", keys=["tags"])
    found = pd.read_parquet(tmp_path / "scores.parquet")
    np.testing.assert_allclose(found["click"], ranker.predict(table)["click"], rtol=1e-6)
