"""Maps that calibrate each task's probabilities: how they are fitted, what they promise, and where they apply."""

import json
import shutil

import numpy as np
import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.training import calibrate, evaluate
from dcrnn_fast.training.evaluate import calibrate as calibrating
from dcrnn_fast.training.evaluate.calibrate import fit_isotonic, fit_platt
from dcrnn_fast.training.evaluate.calibration_file import Calibration, Isotonic, Platt, logits, sigmoid
from tests.training.runs import INDEPENDENT

CELLS = {"colour": [f"c{n}" for n in range(9)] * 5, "shape": [f"s{n}" for n in range(5)] * 9, "size": np.linspace(-2, 2, 45)}


def overconfident(rows, seed=0):
    """Logits z and labels whose true logit is z / 2 - 1."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 3, rows)
    return z, (rng.random(rows) < sigmoid(z / 2 - 1)).astype(np.int64)


def test_platt_finds_the_true_line_and_isotonic_comes_near_the_truth():
    z, labels = overconfident(50_000)
    line = fit_platt(z, labels, np.ones(len(z)))
    assert (line.slope, line.intercept) == (pytest.approx(0.5, abs=0.02), pytest.approx(-1, abs=0.05))
    calibrated = sigmoid(fit_isotonic(z, labels, np.ones(len(z)))(z))
    assert np.abs(calibrated - sigmoid(z / 2 - 1)).mean() < 0.02
    assert calibrated.mean() == pytest.approx(labels.mean(), rel=1e-3)


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
@pytest.mark.parametrize("seed", range(5))
def test_a_map_never_falls_or_gives_0_or_1_even_for_separable_rows(fit, seed):
    z, labels = overconfident(12, seed)
    for observed in (labels, (z > np.median(z)).astype(np.int64)):
        found = sigmoid(fit(z, observed, np.ones(12))(np.linspace(z.min(), z.max(), 999))).astype(np.float32)
        assert (np.diff(found) >= 0).all()
        assert found.min() > 0
        assert found.max() < 1


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_predictions_that_are_constant_or_wrong_become_the_base_rate(fit):
    found = fit(np.full(1000, -2.0), np.repeat([0, 1], [900, 100]), np.ones(1000))
    assert sigmoid(found(np.array([-2.0]))) == pytest.approx(0.1, abs=1e-3)
    z, labels = overconfident(5000)
    assert sigmoid(fit(-z, labels, np.ones(5000))(np.array([-1.0, 1.0]))) == pytest.approx(labels.mean(), abs=0.02)


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_a_row_of_weight_two_counts_as_two_rows(fit):
    z, labels = overconfident(5000)
    twice = labels + 1
    found, expected = fit(z, labels, twice / twice.mean()), fit(np.repeat(z, twice), np.repeat(labels, twice), np.ones(twice.sum()))
    np.testing.assert_allclose(sigmoid(found(z)), sigmoid(expected(z)), atol=0.01)


def test_calibrated_events_of_a_funnel_never_exceed_the_event_before():
    rng = np.random.default_rng(0)
    see, click, buy = rng.random((3, 10_000)).astype(np.float32)
    scores = {"see": see, "click": see * click, "buy": see * click * buy, "click_given_see": click, "buy_given_click": buy}
    up = Platt(method="platt", rows=1, positives=1, slope=2.0, intercept=9.0)
    steps = Isotonic(method="isotonic", rows=1, positives=1, knots=[-1.0, 0.0], calibrated=[-3.0, 30.0])
    maps = {"see": up, "click_given_see": steps, "buy_given_click": up}
    found = Calibration(weights="", split="valid", maps=maps).apply(scores, ("see", "click", "buy"), 0.5)
    assert list(found) == list(scores)
    assert (found["buy"] <= found["click"]).all()
    assert (found["click"] <= found["see"]).all()
    np.testing.assert_allclose(found["click"], found["see"] * found["click_given_see"], rtol=1e-6)


def test_the_correction_of_a_sampled_log_follows_its_calibration():
    p, rate = np.array([0.1, 0.5, 0.9], dtype=np.float32), 0.1
    line = Platt(method="platt", rows=1, positives=1, slope=0.5, intercept=-1.0)
    of_sample = sigmoid(0.5 * logits(p) - 1)
    corrected = sigmoid(logits(p) + np.log(rate)).astype(np.float32)
    found = Calibration(weights="", split="valid", maps={"click": line}).apply({"click": corrected}, ("click",), rate)["click"]
    np.testing.assert_allclose(found, of_sample / (of_sample + (1 - of_sample) / rate), rtol=1e-5)


def test_a_calibrated_run_is_scored_and_evaluated_as_served_by_its_maps(copied):
    before, of_test = Ranker.load(copied).predict(CELLS), evaluate(copied)
    result = calibrate(copied)
    after, served = Ranker.load(copied).predict(CELLS), evaluate(copied, as_served=True)["metrics"]
    assert {name: fit["method"] for name, fit in result["maps"].items()} == {"click": "platt", "buy_given_click": "platt"}
    stored = json.loads((copied / "calibration.json").read_text())["maps"]["click"]
    np.testing.assert_allclose(logits(after["click"]), stored["slope"] * logits(before["click"]) + stored["intercept"], atol=1e-4)
    assert (after["buy"] <= after["click"]).all()
    assert evaluate(copied) == of_test, "without as_served, evaluation is of the model alone"
    for key, metrics in (("before", of_test["metrics"]), ("after", served)):
        assert {name: entry["log_loss"] for name, entry in result[key].items()} == {
            name: entry["log_loss"] for name, entry in metrics.items()
        }


def test_independent_tasks_are_calibrated_each(run_of, tmp_path):
    shutil.copytree(run_of(INDEPENDENT).folder, tmp_path / "run")
    assert list(calibrate(tmp_path / "run")["maps"]) == ["click", "buy"]
    assert list(Ranker.load(tmp_path / "run").predict(CELLS)) == ["click", "buy"]


def test_rows_of_one_class_cannot_calibrate(copied, monkeypatch):
    monkeypatch.setattr(calibrating, "event_labels", lambda labels, *_, **__: {"click": labels[:, 0] * 0, "buy_given_click": labels[:, 1]})
    with pytest.raises(DataError, match=r"click: the .* valid rows with a known label hold 0 positive ones; .* needs both classes"):
        calibrate(copied)
    with pytest.raises(ConfigError, match="method='sigmoid': expected one of platt, isotonic"):
        calibrate(copied, method="sigmoid")
    assert not (copied / "calibration.json").exists()


def test_the_command_prints_the_maps_and_warns_of_test_rows(copied, command):
    code, out, _ = command("calibrate", "--run", copied, "--method", "isotonic")
    assert (code, "click: isotonic, " in out, "warning" in out) == (0, True, False)
    assert json.loads((copied / "calibration.json").read_text())["maps"]["click"]["method"] == "isotonic"
    code, out, _ = command("calibrate", "--run", copied, "--split", "test")
    assert "warning: calibrated on test rows" in out


def test_the_commands_call_the_rows_of_a_table_given(copied, schema, command):
    options = ("--run", copied, "--data", schema.parent / "tiny.csv")
    assert "tiny, given rows, calibrated on given rows" in command("calibrate", *options)[1]
    out = command("evaluate", *options)[1]
    assert ("tiny, given rows" in out, "test rows" in out) == (True, False)
