import json

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from dcrnn_fast.training.evaluate.metrics import binary_metrics, mean_over_tasks, task_metrics


def draw(rows, seed=0, levels=20):
    """Labels, probabilities with many ties, and groups of very different sizes, some with one class only."""
    rng = np.random.default_rng(seed)
    probabilities = (rng.integers(1, levels, rows) / levels).astype(np.float32)
    labels = (rng.random(rows) < probabilities).astype(np.float32)
    group = rng.geometric(0.05, rows).astype(np.int64) - 1
    return labels, probabilities, group


def looped_gauc(labels, scores, group):
    total = weight = 0.0
    for one in np.unique(group):
        rows = group == one
        if 0 < labels[rows].sum() < rows.sum():
            total += rows.sum() * roc_auc_score(labels[rows], scores[rows])
            weight += rows.sum()
    return total / weight


def test_auc_and_log_loss_are_scikit_learns_over_the_known_labels():
    labels, probabilities, _ = draw(3000)
    labels[::7] = np.nan
    known = ~np.isnan(labels)
    metrics = binary_metrics(labels, probabilities)
    assert metrics["rows"] == known.sum()
    assert metrics["positives"] == labels[known].sum()
    assert metrics["auc"] == roc_auc_score(labels[known], probabilities[known])
    assert metrics["log_loss"] == log_loss(labels[known], probabilities[known].astype(np.float64))
    certain = binary_metrics(np.array([0.0, np.nan]), np.array([0.0, 1.0]), np.array([1, 1]))
    assert json.loads(json.dumps(certain, allow_nan=False)) == certain


def test_calibration_is_mean_predicted_over_mean_observed():
    metrics = binary_metrics(np.array([1, 0, 0, np.nan]), np.array([0.5, 0.5, 0.2, 0.9]))
    assert metrics["calibration"] == pytest.approx(1.2 / 3 / (1 / 3))


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_has_no_auc_and_no_gauc_but_a_log_loss(label):
    metrics = binary_metrics(np.full(5, label), np.linspace(0.1, 0.9, 5), np.arange(5))
    assert metrics["auc"] is None
    assert metrics["gauc"] is None
    assert np.isfinite(metrics["log_loss"])


@pytest.mark.parametrize("labels", [np.array([]), np.array([np.nan, np.nan])])
def test_without_a_known_label_every_metric_is_undefined(labels):
    metrics = binary_metrics(labels, np.full(labels.size, 0.5), np.zeros(labels.size, dtype=np.int64))
    assert metrics == {"rows": 0, "positives": 0, "auc": None, "log_loss": None, "calibration": None, "gauc": None}


@pytest.mark.parametrize(("rows", "seed"), [(2, 0), (50, 1), (3000, 2), (3000, 3)])
def test_gauc_is_the_row_weighted_mean_of_the_groups_auc(rows, seed):
    labels, probabilities, group = draw(rows, seed)
    if rows == 2:
        labels, group = np.array([0.0, 1.0]), np.array([5, 5])
    assert binary_metrics(labels, probabilities, group)["gauc"] == pytest.approx(looped_gauc(labels, probabilities, group), abs=1e-12)


def test_gauc_leaves_out_rows_whose_group_is_missing():
    labels, scores = np.array([0, 1, 1, 0, np.nan]), np.array([0.1, 0.9, 0.2, 0.3, 0.4])
    assert binary_metrics(labels, scores, np.array([4, 4, -1, -1, 4]))["gauc"] == 1.0
    assert binary_metrics(labels, scores, np.full(5, -1))["gauc"] is None


def funnel():
    labels = np.array([[0, 0], [1, 0], [1, 1], [1, np.nan], [0, 0], [1, 1]], dtype=np.float32)
    click = np.array([0.2, 0.6, 0.9, 0.7, 0.1, 0.8])
    conditional = np.array([0.9, 0.3, 0.6, 0.5, 0.9, 0.2])
    return labels, {"click": click, "buy": click * conditional, "buy_given_click": conditional}


def test_a_funnel_has_ctr_ctcvr_and_cvr_which_counts_rows_with_a_click():
    labels, predictions = funnel()
    metrics = task_metrics(predictions, labels, ("click", "buy"), funnel=True)
    assert {name: entry["role"] for name, entry in metrics.items()} == {"click": "CTR", "buy": "CTCVR", "buy_given_click": "CVR"}
    assert (metrics["click"]["rows"], metrics["buy"]["rows"], metrics["buy_given_click"]["rows"]) == (6, 5, 3)
    rows = [1, 2, 5]
    assert metrics["buy_given_click"]["auc"] == roc_auc_score(labels[rows, 1], predictions["buy_given_click"][rows])
    apart = task_metrics(predictions, labels, ("click", "buy"), funnel=False)
    assert {name: "role" in entry for name, entry in apart.items()} == {"click": False, "buy": False}
    del predictions["buy_given_click"]
    assert set(task_metrics(predictions, labels, ("click", "buy"), funnel=True)) == {"click", "buy"}


def test_the_mean_over_tasks_skips_what_is_undefined_and_the_conditional():
    metrics = {"a": {"auc": 0.5}, "b": {"auc": None}, "c": {"auc": 0.9}, "c_given_b": {"auc": 0.0}}
    assert mean_over_tasks(metrics, "auc", ("a", "b", "c")) == pytest.approx(0.7)
    assert mean_over_tasks(metrics, "auc", ("b",)) is None
