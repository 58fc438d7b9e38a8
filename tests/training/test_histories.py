"""A run on a log whose histories are computed: the last items that the user clicked."""

import json

import numpy as np
import pytest

from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import DataError
from dcrnn_fast.training import evaluate, load_model, train
from dcrnn_fast.training.data import prepare_data
from tests.training.runs import HISTORIES, config_of, write_log


@pytest.fixture(scope="module")
def run(run_of):
    return run_of(HISTORIES)


def test_a_run_reads_a_history_as_one_pooled_field(run):
    assert not [line for line in run.notes if "last_clicked" in line]
    model, about = load_model(run.folder / "model.safetensors", backend="reference")
    assert about["pooled"] == {"last_clicked": {"columns": [f"last_clicked[{place}]" for place in range(4)], "pooling": "mean"}}
    assert model.features.embedding.num_embeddings == dict(about["fields"])["item"]
    assert Encoder.load(run.folder).columns == ("item", "last_clicked")


def test_a_run_is_tested_on_another_log_whose_histories_are_its_own(run, tmp_path):
    assert evaluate(run.folder, data=str(run.schema))["metrics"] == json.loads((run.folder / "metrics.json").read_text())["test"]
    other = write_log(tmp_path / "other", HISTORIES, seed=1, split={"time": "time", "test": 0.9})
    assert evaluate(run.folder, data=str(other))["metrics"]["click"]["rows"] == 630


def test_a_table_alone_is_refused_since_histories_rest_on_earlier_rows(run):
    with pytest.raises(DataError, match="reads histories, which rest on earlier rows, which the run does not keep: give a schema"):
        evaluate(run.folder, data=run.schema.with_suffix(".parquet"))


def test_the_next_day_goes_on_with_its_own_histories_or_those_before(run, tmp_path):
    day = {"start": 1717200000 + 977 * 700, "seed": 2}
    tomorrow = write_log(tmp_path / "log", HISTORIES, **day)
    anew = prepare_data(config_of(HISTORIES, tomorrow))
    files = {"all": "log.parquet", "past": str(run.schema.with_suffix(".parquet"))}
    behind = prepare_data(config_of(HISTORIES, write_log(tmp_path / "log", HISTORIES, **day, files=files)))
    first = (np.asarray(data.split("train").ids)[:20, 1:] for data in (anew, behind))
    assert [(ids > 0).mean() > 0.8 for ids in first] == [False, True]
    assert train(config_of(HISTORIES, tomorrow), tmp_path / "run", init=run.folder)["data"]["rows"]["train"] == 490
