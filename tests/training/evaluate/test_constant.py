"""A model is compared with the constant: the base rate of the training rows, predicted for every row."""

import json

import numpy as np
import pytest
from sklearn.metrics import log_loss

from dcrnn_fast.data.inspect.base_rates import base_rates
from dcrnn_fast.training import evaluate
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.evaluate.metrics import not_better_than_constant, with_constant
from tests.training.tiny import tiny_config, write_table


def labels_by_name(split):
    """The known labels of each metric: buy has unknown ones, and buy_given_click counts the clicked rows."""
    click, buy = np.asarray(split.labels).T
    return {name: column[~np.isnan(column)] for name, column in {"click": click, "buy": buy, "buy_given_click": buy[click == 1]}.items()}


def test_metrics_have_the_log_loss_of_the_training_rows_base_rate(finished, dataset):
    metrics = json.loads((finished / "metrics.json").read_text())
    rates = {name: labels.mean() for name, labels in labels_by_name(dataset.split("train")).items()}
    for split in ("test", "valid"):
        for name, labels in labels_by_name(dataset.split(split)).items():
            expected = log_loss(labels, np.full(labels.size, rates[name], dtype=np.float64))
            assert metrics[split][name]["constant_log_loss"] == pytest.approx(expected, rel=1e-6), (split, name)


def test_on_other_data_the_constant_is_that_of_the_runs_train_rows(finished, dataset, tmp_path):
    other = write_table(
        tmp_path, seed=9, tasks=[{"name": "click", "column": "clicked", "positive": "0"}, {"name": "buy", "column": "bought"}], funnel=False
    )
    labels = labels_by_name(prepare_data(tiny_config(other)).split("test"))["click"]
    rate = labels_by_name(dataset.split("train"))["click"].mean(dtype=np.float64)
    expected = log_loss(labels, np.full(labels.size, rate))
    assert evaluate(finished, data=str(other))["metrics"]["click"]["constant_log_loss"] == pytest.approx(expected, rel=1e-6)


def test_the_constant_of_a_base_rate_of_0_or_1_and_of_an_unknown_one():
    rates = base_rates(np.array([[0.0, np.nan], [0.0, np.nan]]), ("click", "buy"), funnel=True)
    assert rates == {"click": 0.0}
    metrics = with_constant({name: {"rows": 4, "positives": 1} for name in ("click", "buy")}, rates)
    assert 1 < metrics["click"]["constant_log_loss"] < 100
    assert metrics["buy"]["constant_log_loss"] is None
    assert with_constant({"click": {"rows": 0, "positives": 0}}, rates)["click"]["constant_log_loss"] is None


@pytest.mark.parametrize(
    ("own", "constant", "warned"), [(0.51, 0.5, True), (0.5, 0.5, True), (0.49, 0.5, False), (None, 0.5, False), (0.5, None, False)]
)
def test_a_log_loss_that_is_not_below_the_constants_is_named(own, constant, warned):
    metrics = {"click": {"log_loss": 0.1, "constant_log_loss": 0.2}, "buy": {"log_loss": own, "constant_log_loss": constant}}
    assert [line.startswith("warning: buy: log loss") for line in not_better_than_constant(metrics)] == [True] * warned


def test_train_and_evaluate_warn_of_tasks_no_better_than_the_constant(schema, command, tmp_path):
    """The learning rate is so high that the model follows the last few batches."""
    path = tmp_path / "run.yaml"
    path.write_text(tiny_config(schema, optimiser__lr=1.0, optimiser__epochs=1).to_yaml())
    code, trained, err = command("train", "--config", path, "--output", tmp_path / "run")
    assert code == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    worse = [name for name, entry in metrics.items() if entry["log_loss"] >= entry["constant_log_loss"]]
    assert worse, "the run was meant to be worse than the constant"
    _, in_json, beside = command("evaluate", "--run", tmp_path / "run", "--json")
    assert json.loads(in_json)["metrics"] == metrics
    for text in (trained, command("evaluate", "--run", tmp_path / "run")[1], beside):
        assert [line.split(": ")[1] for line in text.splitlines() if line.startswith("warning: ")] == worse
