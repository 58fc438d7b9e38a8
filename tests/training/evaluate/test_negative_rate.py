"""A log that kept a part of the rows without a click: trained as it is, and predicted as if all rows were there."""

import csv

import numpy as np
import pandas as pd
import pytest
import yaml

from dcrnn_fast import Ranker
from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training import evaluate, load_config, load_model, train
from dcrnn_fast.training.evaluate.metrics import unsampled_rates
from dcrnn_fast.training.folder.weights import export_weights, read_weights
from tests.training.tiny import tiny_values

RATE = 0.1
CLICK, BUY = np.array([0.05, 0.1, 0.2, 0.3]), np.array([0.5, 0.2, 0.3, 0.1])
"""By kind of row: P(click), and P(buy | click)."""


def write_log(path, table, **files):
    table.to_csv(path.with_suffix(".csv"), index=False, quoting=csv.QUOTE_MINIMAL)
    tasks = [{"name": "click", "column": "clicked"}, {"name": "buy", "column": "bought"}]
    schema = {"name": path.stem, "files": {"all": f"{path.stem}.csv", "test_fraction": 0.3}, "funnel": True, "tasks": tasks}
    path.write_text(yaml.safe_dump(schema | {"categorical": ["kind"]}))
    return str(path)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Schemas of a log and of its sample, and a run on the sample that knows its rate."""
    folder = tmp_path_factory.mktemp("logs")
    place = np.tile(np.arange(10_000), 4) / 10_000  # 10,000 rows of each kind, at exactly these rates
    kind = np.repeat(np.arange(4), 10_000)
    click, buy = place < CLICK[kind], place < (CLICK * BUY)[kind]
    table = pd.DataFrame({"kind": [f"k{one}" for one in kind], "clicked": click * 1, "bought": buy * 1})
    whole = write_log(folder / "whole.yaml", table)
    sample = write_log(folder / "sample.yaml", table[click | (np.arange(kind.size) % 10 == 0)])
    settings = {
        "negative_rate": RATE,
        "optimiser.epochs": 6,
        "model.first_order": True,
        "optimiser.lr": 0.01,
        "model.dropout": 0,
        "early_stopping.patience": 6,
        "precision": "float32",
        "optimiser.weight_decay": 0,
        "optimiser.batch_size": 128,
    }
    train(load_config(None, tiny_values(sample) | settings | {"checkpoint_every": 1000}), folder / "run")
    return whole, sample, folder / "run"


def test_the_scores_of_a_run_on_the_sample_are_the_rates_of_the_log(logs):
    scores = Ranker.load(logs[2]).predict({"kind": ["k0", "k1", "k2", "k3"]})
    np.testing.assert_allclose(scores["click"], CLICK, rtol=0.2)  # uncorrected, 2.7 to 7 times these
    np.testing.assert_allclose(scores["buy_given_click"], BUY, rtol=0.2)
    np.testing.assert_allclose(scores["buy"], scores["click"] * scores["buy_given_click"], rtol=1e-5)


def test_metrics_are_of_the_sampled_rows_unless_asked_for_as_served(logs):
    whole, _, run = logs
    on_sample, on_log = evaluate(run)["metrics"], evaluate(run, data=whole, as_served=True)["metrics"]
    for task in ("click", "buy"):
        assert on_sample[task]["calibration"] == pytest.approx(1, abs=0.15), task
        assert on_log[task]["calibration"] == pytest.approx(1, abs=0.15), task
        assert on_log[task]["log_loss"] < on_log[task]["constant_log_loss"], task
        assert evaluate(run, data=whole)["metrics"][task]["calibration"] > 3, task


def test_the_base_rates_of_a_sample_are_corrected_to_those_of_its_log():
    # Of 1,000 rows 100 have a click and 40 of these a purchase; the sample kept 90 of the other 900.
    found = unsampled_rates({"click": 100 / 190, "buy": 40 / 190, "buy_given_click": 0.4}, ["click", "buy"], 0.1)
    assert found == pytest.approx({"click": 0.1, "buy": 0.04, "buy_given_click": 0.4})


def test_a_weight_file_with_a_wrong_rate_or_none_is_refused(copied):
    weights = copied / "model.safetensors"
    tensors, about, _ = read_weights(weights)
    assert about.pop("negative_rate") == 1.0
    export_weights(weights, tensors, about)
    with pytest.raises(CheckpointError, match="negative_rate is missing"):
        load_model(weights, backend="reference")
    for rate, said in (
        (0.0, r"negative_rate=0.0: expected a number in \(0, 1\]"),
        ("1.0", "negative_rate is '1.0'"),
        (True, "negative_rate is True"),
    ):
        export_weights(weights, tensors, about | {"negative_rate": rate})
        with pytest.raises(CheckpointError, match=said):
            load_model(weights, backend="reference")
