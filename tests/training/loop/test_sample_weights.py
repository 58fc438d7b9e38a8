"""A run whose rows have weights judges itself by them: a sampled log, weighted back, gives the probabilities of the whole log."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from dcrnn_fast.training import calibrate, evaluate, train
from dcrnn_fast.training.evaluate.evaluate import open_run, predictions_of
from dcrnn_fast.training.evaluate.metrics import task_metrics
from tests.training.tiny import newest_checkpoint, tiny_config

SAMPLED = 0.1
ARRAYS = ("ids", "dense", "labels", "group")


def sampled(split):
    """A split of which each tenth row without a click is kept, with a weight of ten."""
    labels = np.asarray(split.labels)
    chosen = (labels[:, 0] == 1) | (np.random.default_rng(0).random(len(labels)) < SAMPLED)
    weight = np.where(labels[chosen, 0] == 1, 1, 1 / SAMPLED).astype(np.float32)
    return replace(split, **{name: np.asarray(getattr(split, name))[chosen] for name in ARRAYS}, weight=weight)


@pytest.fixture(scope="module")
def trained(schema, dataset, tmp_path_factory):
    """The metrics and the history of a run on a sampled log."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    rows = replace(dataset, splits={name: sampled(split) for name, split in dataset.splits.items()})
    config = tiny_config(schema, loss__sample_weight=True, optimiser__epochs=12, optimiser__batch_size=32, early_stopping__patience=12)
    result = train(config, folder, dataset=rows)
    return result, newest_checkpoint(folder).state["position"]["history"]


def test_a_run_begins_with_the_constant_of_the_whole_log(trained, dataset):
    first = trained[1][0]["valid"]["click"]
    rate = np.nanmean(np.asarray(dataset.split("train").labels)[:, 0])
    predicted = first["calibration"] * first["positives"] / first["rows"]
    assert predicted == pytest.approx(rate, abs=0.03), "of the rows as they are, nearly all have a click"


def test_early_stopping_watches_the_weighted_log_loss(trained):
    result, history = trained
    weighted = [np.mean([record["valid"][task]["shifted_log_loss"] for task in ("click", "buy")]) for record in history]
    assert [record["monitor"] for record in history] == weighted
    assert result["train"]["best_step"] == history[int(np.argmin(weighted))]["step"] > 0


def test_weighted_metrics_are_those_of_scikit_learn_of_the_known_labels():
    rng = np.random.default_rng(0)
    labels, p, weight = rng.integers(0, 2, (50, 1)).astype(np.float32), rng.random(50), rng.random(50)
    labels[:5] = np.nan
    found = task_metrics({"click": p}, labels, ["click"], funnel=False, weight=weight)["click"]
    y, known = labels[5:, 0], slice(5, None)
    assert found["weighted_log_loss"] == pytest.approx(log_loss(y, p[known], sample_weight=weight[known]))
    assert found["weighted_auc"] == pytest.approx(roc_auc_score(y, p[known], sample_weight=weight[known]))
    for w, expected in (([1.0, 0.0], pytest.approx(-np.log(0.75))), ([0.0, 0.0], None)):  # no row of a class has a weight
        one = task_metrics({"click": np.array([0.25, 0.5])}, np.array([[0.0], [1.0]]), ["click"], funnel=False, weight=np.array(w))
        assert (one["click"]["weighted_auc"], one["click"]["weighted_log_loss"]) == (None, expected)


def test_evaluation_calibration_and_reports_weigh_as_the_run_does(schema, dataset, tmp_path):
    train(tiny_config(schema, loss__sample_weight=True), tmp_path / "run")
    found = evaluate(tmp_path / "run")["metrics"]["click"]
    assert found["weighted_auc"] is not None
    assert found["constant_log_loss"] is None, "the constant of the rows as they are is none of this run's"
    rows = dataset.split("valid")
    known = ~np.isnan(rows.labels[:, 0])
    rate = np.average(rows.labels[known, 0], weights=rows.weight[known])
    calibrate(tmp_path / "run", method="isotonic")
    predicted, _ = predictions_of(open_run(tmp_path / "run", split="valid"), "valid", as_served=True)
    assert np.average(predicted["click"][known], weights=rows.weight[known]) == pytest.approx(rate, rel=0.02)
