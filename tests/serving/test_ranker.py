"""Raw rows in, named probabilities out: those of the model on the rows that `prepare` encodes."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from dcrnn_fast import Ranker
from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.serving import ranker as module
from dcrnn_fast.serving import score_files
from dcrnn_fast.training import load_model, train
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


def test_a_mapping_with_unseen_and_missing_cells_a_row_or_none_is_scored(ranker):
    scores = ranker.predict(ROWS)
    assert all(0 < value < 1 for values in scores.values() for value in values)
    assert (scores["buy"] <= scores["click"]).all()
    found = ranker.predict({"colour": "c1", "shape": None, "size": np.float32(0.5), "user": ["u1", "u2"]})
    expected = ranker.predict({"colour": ["c1"], "shape": [None], "size": [0.5]})
    assert {name: values.tolist() for name, values in found.items()} == {name: values.tolist() for name, values in expected.items()}
    none = ranker.predict({"colour": [], "shape": [], "size": []})
    assert {name: values.shape for name, values in none.items()} == {"click": (0,), "buy": (0,), "buy_given_click": (0,)}


def test_rows_are_scored_alike_whatever_the_batch(shop, monkeypatch):
    ranker, table = Ranker.load(shop / "run"), pd.read_csv(shop / "tiny.csv")
    whole = ranker.predict(table)
    monkeypatch.setattr(module, "BATCH", 7)
    for name, values in ranker.predict(table).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-5, err_msg=name)


def test_two_files_of_a_run_suffice_and_a_changed_encoder_is_refused(shop, ranker, tmp_path):
    for name in ("model.safetensors", "encoder.json"):
        shutil.copy(shop / "run" / name, tmp_path / name)
    np.testing.assert_array_equal(Ranker.load(tmp_path).predict(ROWS)["buy"], ranker.predict(ROWS)["buy"])
    (tmp_path / "encoder.json").write_text((shop / "run" / "encoder.json").read_text().replace("c1", "c9", 1))
    with pytest.raises(CheckpointError, match="was changed"):
        Ranker.load(tmp_path)


def test_lists_and_derived_columns_are_scored_from_files_as_from_memory(tmp_path):
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
