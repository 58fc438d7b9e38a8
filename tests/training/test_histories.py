"""Runs on a log whose histories are computed: a click repeats an item that the user clicked before."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dcrnn_fast.data import Encoder
from dcrnn_fast.training import evaluate, load_model, train
from dcrnn_fast.training.data import prepare_data
from tests.training.loop.test_resume import Notes
from tests.training.tiny import tiny_config

HISTORY = {"name": "last_clicked", "of": "item", "by": "user", "time": "time", "last": 4, "where": "click"}
FILES = {"train": "train.parquet", "valid": "valid.parquet", "test": "test.parquet"}


def write_log(folder, *, start=0, seed=0, **changes):
    """Three files, one after the other in time. ``start`` is the time of the first row."""
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(seed)
    user, item = draw.integers(0, 12, 700), draw.integers(0, 8, 700)
    table = {
        "user": [f"u{number}" for number in user],
        "item": [f"i{number}" for number in item],
        "time": pa.array(start + np.arange(700), pa.timestamp("s")),
        "click": (draw.random(700) < np.where(item % 3 == user % 3, 0.9, 0.1)).astype(np.int8),
    }
    for (_, name), rows in zip(FILES.items(), (slice(0, 500), slice(500, 600), slice(600, 700)), strict=True):
        pq.write_table(pa.table(table)[rows], folder / name)
    schema = {
        "name": "log",
        "files": FILES,
        "categorical": ["item"],
        "histories": [HISTORY],
        "tasks": [{"name": "click", "column": "click"}],
    }
    path = folder / "log.yaml"
    path.write_text(yaml.safe_dump(schema | changes))
    return path


def config(schema, **changes):
    return tiny_config(schema, **{"optimiser__epochs": 1} | changes)


@pytest.fixture(scope="module")
def log(_cache, tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    """A finished run. Do not write into it."""
    folder, notes = tmp_path_factory.mktemp("runs") / "log", Notes()
    train(config(log), folder, report=notes)
    assert not [line for line in notes.lines if "last_clicked" in line]
    return folder


def test_a_run_reads_a_history_as_one_pooled_field(run):
    model, about = load_model(run / "model.safetensors", backend="reference")
    assert about["pooled"] == {"last_clicked": {"columns": [f"last_clicked[{place}]" for place in range(4)], "pooling": "mean"}}
    assert model.embedding.num_embeddings == dict(about["fields"])["item"]
    assert Encoder.load(run).columns == ("item", "last_clicked")


def test_a_run_is_tested_on_another_log_whose_histories_are_its_own(run, log, tmp_path):
    assert evaluate(run, data=str(log))["metrics"] == json.loads((run / "metrics.json").read_text())["test"]
    other = write_log(tmp_path / "other", seed=1, files={"all": "test.parquet", "test_fraction": 0.9})
    assert evaluate(run, data=str(other))["metrics"]["click"]["rows"] == 90


def test_the_next_day_goes_on_with_its_own_histories_or_with_those_of_the_day_before(run, log, tmp_path):
    tomorrow = write_log(tmp_path / "log", start=1000, seed=2)
    anew = prepare_data(config(tomorrow))
    past = [str(log.parent / name) for name in FILES.values()]
    tomorrow = write_log(tmp_path / "log", start=1000, seed=2, files=FILES | {"past": past})
    behind = prepare_data(config(tomorrow))
    first = (np.asarray(data.split("train").ids)[:20, 1:] for data in (anew, behind))
    assert [(ids > 0).mean() > 0.8 for ids in first] == [False, True]
    assert train(config(tomorrow), tmp_path / "run", init=run)["data"]["rows"]["train"] == 500
