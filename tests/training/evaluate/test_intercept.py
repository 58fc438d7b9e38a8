"""The log loss after the best intercept of each task, which another base rate of the validation rows does not change."""

import numpy as np
import pytest

from dcrnn_fast.training import train
from dcrnn_fast.training.evaluate.intercept import best_intercept, shift_warnings, with_intercepts
from tests.training.runs import Notes
from tests.training.tiny import tiny_config, with_splits


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def drawn(rows=4000, shift=0.0):
    rng = np.random.default_rng(0)
    z = rng.normal(size=rows)
    return z, (rng.random(rows) < sigmoid(z + shift)).astype(np.float32)


@pytest.mark.parametrize("shift", [-3.0, 0.0, 2.0])
def test_the_intercept_is_what_the_logits_lack(shift):
    z, labels = drawn(20_000, shift)
    intercept, error = best_intercept(z, labels.astype(np.float64), np.ones(len(z)))
    assert abs(intercept - shift) < 4 * error < 0.3


def test_rows_of_weight_0_and_unknown_labels_do_not_count():
    z, labels = drawn()
    weight, half = (np.arange(len(z)) % 2).astype(np.float64), slice(1, None, 2)
    alone = best_intercept(z[half], labels[half].astype(float), np.ones(len(z) // 2))
    assert best_intercept(z, labels.astype(float), weight) == pytest.approx(alone)
    hidden = np.where(weight == 1, labels, np.nan)[:, None]
    ours, theirs = entry_of({"click": sigmoid(z)}, hidden), entry_of({"click": sigmoid(z[half])}, labels[half][:, None])
    assert ours["click"] == pytest.approx(theirs["click"])


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_rows_of_one_class_have_a_finite_intercept(label):
    intercept, error = best_intercept(np.zeros(1000), np.full(1000, label), np.ones(1000))
    assert 5 < abs(intercept) < 20
    assert error > 1


def entry_of(predictions, labels, tasks=("click",), weight=None):
    return with_intercepts({task: {} for task in tasks}, predictions, labels, tasks, weight)


def test_a_shift_of_all_logits_does_not_change_the_loss():
    z, labels = drawn()
    losses = [entry_of({"click": sigmoid(z + shift)}, labels[:, None])["click"]["shifted_log_loss"] for shift in (-4.0, 0.0, 1.0)]
    assert losses == pytest.approx([losses[1]] * 3, rel=1e-6)
    certain = entry_of({"click": np.array([0.0, 1.0, 0.5, 0.5])}, np.array([[1.0], [0.0], [1.0], [0.0]]))
    assert np.isfinite(certain["click"]["shifted_log_loss"]), "of predictions of 0 and 1"


def test_in_a_chain_the_intercepts_are_of_the_conditionals():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(30_000, 2))
    click = rng.random(30_000) < sigmoid(z[:, 0] - 1)
    buy = click & (rng.random(30_000) < sigmoid(z[:, 1] + 0.5))
    p, given = sigmoid(z[:, 0]), sigmoid(z[:, 1])
    predictions = {"click": p, "buy": p * given, "buy_given_click": given}
    found = entry_of(predictions, np.stack([click, buy], axis=1).astype(np.float32), ("click", "buy"))
    assert found["click"]["intercept"] == pytest.approx(-1, abs=0.1)
    assert found["buy"]["intercept"] == pytest.approx(0.5, abs=0.1)
    true = sigmoid(z[:, 0] - 1) * sigmoid(z[:, 1] + 0.5)
    assert found["buy"]["shifted_log_loss"] == pytest.approx(-np.mean(np.where(buy, np.log(true), np.log1p(-true))), rel=1e-3)


def test_a_far_intercept_is_told_with_what_to_do():
    far, unsure = {"intercept": -1.2, "intercept_error": 0.05}, {"intercept": -0.9, "intercept_error": 0.5}
    counts = {"rows": 1000, "positives": 70}
    (line,) = shift_warnings({"click": far | counts, "buy": unsure | counts}, {"click": 0.2, "buy": 0.2})
    assert line.startswith("warning: click: 7.04% of the validation rows are positive, and 20.00% of the train rows; an intercept of -1.20")
    assert "dcrnn-fast calibrate" in line
    expects_another_rate_than_both_splits = far | {"rows": 1000, "positives": 200}
    assert shift_warnings({"click": expects_another_rate_than_both_splits}, {"click": 0.2}) == []


def test_labels_that_come_late_in_the_validation_rows_keep_trained_weights(tmp_path):
    """Three of four of their positive labels are not known yet, and count as negative."""
    rng = np.random.default_rng(0)

    def late(split, click, buy):
        return ("0", "0") if split == "valid" and rng.random() < 0.75 else (click, buy)

    table = with_splits(tmp_path, ("valid", "test", "train", "train", "train"), late, rows=6000)
    notes = Notes()
    found = train(tiny_config(table), tmp_path / "run", report=notes)
    assert found["train"]["best_step"] > 0
    assert found["test"]["click"]["auc"] > 0.7
    (warning,) = [line for line in notes.lines if line.startswith("warning: click: ") and "an intercept of" in line]
    assert "of the validation rows are positive" in warning
