"""Maps that calibrate each task's probabilities: how they are fitted, what they promise, and where they apply."""

import json
import shutil

import numpy as np
import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.errors import ConfigError, DataError, TrainingDivergedError
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


def test_platt_finds_the_line_of_the_true_logits():
    line = fit_platt(*overconfident(50_000), np.ones(50_000))
    assert line.slope == pytest.approx(0.5, abs=0.02)
    assert line.intercept == pytest.approx(-1, abs=0.05)


def test_isotonic_comes_near_the_true_probabilities_and_keeps_the_mean():
    z, labels = overconfident(50_000)
    calibrated = sigmoid(fit_isotonic(z, labels, np.ones(len(z)))(z))
    assert np.abs(calibrated - sigmoid(z / 2 - 1)).mean() < 0.02
    assert calibrated.mean() == pytest.approx(labels.mean(), rel=1e-3)


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
@pytest.mark.parametrize("seed", range(5))
def test_a_map_never_falls_and_never_gives_0_or_1_even_for_few_or_separable_rows(fit, seed):
    z, labels = overconfident(12, seed)
    for observed in (labels, (z > np.median(z)).astype(np.int64)):
        found = sigmoid(fit(z, observed, np.ones(12))(np.linspace(z.min(), z.max(), 999))).astype(np.float32)
        assert (np.diff(found) >= 0).all()
        assert found.min() > 0
        assert found.max() < 1


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_predictions_that_fall_as_the_rate_rises_become_the_base_rate(fit):
    z, labels = overconfident(5000)
    assert sigmoid(fit(-z, labels, np.ones(5000))(np.array([-1.0, 1.0]))) == pytest.approx(labels.mean(), abs=0.02)


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_a_constant_prediction_becomes_the_base_rate(fit):
    found = fit(np.full(1000, -2.0), np.repeat([0, 1], [900, 100]), np.ones(1000))
    assert sigmoid(found(np.array([-2.0]))) == pytest.approx(0.1, abs=1e-3)


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


def test_the_correction_of_a_sampled_log_follows_the_calibration_of_its_rows():
    p, rate = np.array([0.1, 0.5, 0.9], dtype=np.float32), 0.1
    line = Platt(method="platt", rows=1, positives=1, slope=0.5, intercept=-1.0)
    of_sample = sigmoid(0.5 * logits(p) - 1)
    corrected = sigmoid(logits(p) + np.log(rate)).astype(np.float32)
    found = Calibration(weights="", split="valid", maps={"click": line}).apply({"click": corrected}, ("click",), rate)["click"]
    np.testing.assert_allclose(found, of_sample / (of_sample + (1 - of_sample) / rate), rtol=1e-5)


def test_a_calibrated_run_is_scored_and_evaluated_as_served_by_its_maps_and_evaluate_alone_stays(copied):
    before = Ranker.load(copied).predict(CELLS)
    of_test = evaluate(copied)
    result = calibrate(copied)
    after = Ranker.load(copied).predict(CELLS)
    assert result["maps"] == {name: fit | {"method": "platt"} for name, fit in result["maps"].items()}
    assert list(result["maps"]) == ["click", "buy_given_click"]
    stored = json.loads((copied / "calibration.json").read_text())["maps"]["click"]
    np.testing.assert_allclose(logits(after["click"]), stored["slope"] * logits(before["click"]) + stored["intercept"], atol=1e-4)
    assert (after["buy"] <= after["click"]).all()
    assert evaluate(copied) == of_test
    assert {name: entry["log_loss"] for name, entry in result["before"].items()} == {
        name: entry["log_loss"] for name, entry in of_test["metrics"].items()
    }
    served = evaluate(copied, as_served=True)["metrics"]
    assert {name: entry["log_loss"] for name, entry in served.items()} == {
        name: entry["log_loss"] for name, entry in result["after"].items()
    }


def test_the_method_is_platts_unless_another_is_asked_for(copied):
    assert calibrate(copied)["maps"]["click"]["method"] == "platt"
    assert calibrate(copied, method="isotonic")["maps"]["click"]["method"] == "isotonic"
    with pytest.raises(ConfigError, match="method='sigmoid': expected one of platt, isotonic"):
        calibrate(copied, method="sigmoid")


def test_independent_tasks_are_calibrated_each(run_of, tmp_path):
    shutil.copytree(run_of(INDEPENDENT).folder, tmp_path / "run")
    assert list(calibrate(tmp_path / "run")["maps"]) == ["click", "buy"]
    assert list(Ranker.load(tmp_path / "run").predict(CELLS)) == ["click", "buy"]


def test_rows_of_one_class_cannot_calibrate(copied, monkeypatch):
    monkeypatch.setattr(calibrating, "event_labels", lambda labels, *_, **__: {"click": labels[:, 0] * 0, "buy_given_click": labels[:, 1]})
    with pytest.raises(DataError, match=r"click: the .* valid rows with a known label hold 0 positive ones; .* needs both classes"):
        calibrate(copied)
    assert not (copied / "calibration.json").exists()


def test_a_run_whose_test_rows_cannot_be_predicted_stays_as_it_is(copied, monkeypatch):
    real = calibrating.predictions_of

    def refuse(run, split, **options):
        if split == "test":
            raise TrainingDivergedError("not finite")
        return real(run, split, **options)

    monkeypatch.setattr(calibrating, "predictions_of", refuse)
    with pytest.raises(TrainingDivergedError):
        calibrate(copied)
    assert not (copied / "calibration.json").exists()


def test_the_command_prints_the_test_rows_before_and_after(copied, command):
    code, out, _ = command("calibrate", "--run", copied, "--method", "isotonic")
    assert code == 0
    assert "tiny, test rows, calibrated on valid rows" in out
    assert "click: isotonic, " in out
    assert f"Calibration: {copied / 'calibration.json'}" in out
    assert "warning" not in out
    code, out, _ = command("calibrate", "--run", copied, "--split", "test")
    assert "warning: calibrated on test rows" in out
