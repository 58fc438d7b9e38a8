"""Tasks of known relation: the generator keeps what it promises, the gate is read as the model computes it, and the study runs."""

import json
import math

import numpy as np
import pytest
import torch

from bench.studies import __main__ as command
from bench.studies import study, synthetic_tasks
from bench.studies import synthetic_report as report
from bench.studies.synthetic_data import BASE_RATE, SIGNAL, Draw, draw, weight_vectors
from bench.studies.synthetic_gate import first_step, gates
from dcrnn_fast import DCRNN

COSINES = (0.0, 0.25, 0.5, 0.75, 1.0)
MANY = Draw(train=40_000, valid=8, test=8)


@pytest.fixture(scope="module")
def drawn():
    """By cosine, from one seed."""
    return {cosine: draw(cosine, seed=3, rows=MANY) for cosine in COSINES}


@pytest.mark.parametrize("cosine", COSINES)
def test_the_weights_have_length_one_and_the_cosine_asked_for(cosine):
    first, second = weight_vectors(np.random.default_rng(0), 16, cosine)
    assert [first @ first, second @ second, first @ second] == pytest.approx([1, 1, cosine])


def test_both_tasks_have_the_same_base_rate_at_every_cosine(drawn):
    rates = np.array([one.dataset.split("train").labels.mean(axis=0) for one in drawn.values()])
    four_errors = 4 * math.sqrt(BASE_RATE * (1 - BASE_RATE) / MANY.train)
    assert np.abs(rates - BASE_RATE).max() < four_errors, rates


def test_labels_agree_more_often_the_closer_the_tasks_are(drawn):
    agreement = [float(np.mean(labels[:, 0] == labels[:, 1])) for labels in (one.dataset.split("train").labels for one in drawn.values())]
    assert agreement == sorted(agreement)
    independent = BASE_RATE**2 + (1 - BASE_RATE) ** 2
    assert agreement[0] == pytest.approx(independent, abs=0.01)
    assert agreement[-1] > independent + 0.15


def test_signal_columns_give_the_scores_and_noise_columns_carry_nothing(drawn):
    dataset, weights, _ = drawn[0.5]
    split = dataset.split("train")
    is_signal = np.array([name.startswith(SIGNAL) for name in dataset.meta.dense])
    assert is_signal.sum() == (~is_signal).sum() == 16
    assert not np.array_equal(is_signal, np.sort(is_signal)[::-1]), "the shared units must not be those of the signal alone"
    order = np.argsort([int(name.split()[1]) for name in np.array(dataset.meta.dense)[is_signal]])
    projected = split.dense[:, is_signal][:, order] @ weights.T
    for task in (0, 1):
        assert np.corrcoef(projected[:, task], split.labels[:, task])[0, 1] > 0.5
    noise = split.dense[:, ~is_signal].astype(np.float64)
    for read in (noise, noise**2):
        correlations = np.corrcoef(np.hstack([read, split.labels]).T)[:16, -2:]
        assert np.abs(correlations).max() < 4.5 / math.sqrt(MANY.train)


def test_a_smaller_known_share_keeps_some_of_the_same_second_labels_of_the_train_rows_alone():
    rows = Draw(1000, 50, 50)
    every, few, fewer = (draw(0.5, 1, known=known, rows=rows).dataset for known in (1.0, 0.1, 0.02))
    labels = [one.split("train").labels for one in (every, few, fewer)]
    known = [~np.isnan(values[:, 1]) for values in labels]
    assert [int(mask.sum()) for mask in known] == [1000, 100, 20]
    assert not (known[2] & ~known[1]).any()
    np.testing.assert_array_equal(labels[2][known[2]], labels[0][known[2]])
    assert not np.isnan(np.concatenate([labels[2][:, 0], fewer.split("valid").labels[:, 1], fewer.split("test").labels[:, 1]])).any()


@pytest.mark.parametrize(("sharing", "share_ratio"), [("rows", 0.0), ("rows", 0.5), ("rows", 1.0), ("trunk", 0.5), ("trunk", 1.0)])
def test_the_gate_is_the_models_own(sharing, share_ratio):
    torch.manual_seed(0)
    model = DCRNN(
        [], num_dense=6, dense_bins=2, embedding_dim=4, steps=1, rank=None, sharing=sharing, share_ratio=share_ratio, tower_dims=(4,)
    )
    with torch.no_grad():
        for parameter in model.cross.parameters():
            parameter.normal_()
        ids, dense = torch.zeros(5, 0, dtype=torch.int64), torch.randn(5, 6)
        x0 = model.features(ids, dense).x0
        a, g = first_step(model.cross, x0)
        torch.testing.assert_close(x0 + g * x0 * a, model.cross(x0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gates(model, ids, dense)["gate"][2], g[:, :, 8:12].mean(), rtol=1e-5, atol=1e-6)


def test_a_difference_is_paired_over_the_draws():
    def row(model, seed, auc):
        return {"model": model, "cosine": 0.5, "known": 1.0, "seed": seed, "auc": {"first": auc, "second": auc}}

    rows = [row("dcrnn-rows", 0, 0.8), row("dcrnn-rows", 1, 0.9), row("mmoe", 1, 0.92), row("mmoe", 0, 0.81)]
    assert report.difference(rows, "mmoe", 0.5, 1.0, None) == pytest.approx((0.015, 0.005))


def test_the_quick_command_runs_and_a_second_one_trains_nothing_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(synthetic_tasks, "MODELS", {name: synthetic_tasks.MODELS[name] for name in ("dcrnn-rows", "single-task")})
    arguments = ["synthetic_tasks", "--quick", "--output", str(tmp_path / "synthetic_tasks.json")]
    command.main(arguments)
    first = json.loads((tmp_path / "synthetic_tasks.json").read_text())
    assert {row["model"] for row in first["rows"] if "auc" in row} == {"dcrnn-rows", "single-task", "linear", "best possible"}
    tuned = [row for row in first["rows"] if row["seed"] >= synthetic_tasks.FIRST_TUNING_SEED]
    assert not any("auc" in row for row in tuned), "tuning must not see test rows"
    assert {row["tasks"] for row in first["growth"]} == {1, 2}
    assert (tmp_path / "synthetic_tasks.svg").is_file()
    assert "DCRNN, rows 0.5" in capsys.readouterr().out
    monkeypatch.setattr(study, "_run", lambda *_: pytest.fail("a run that the file holds was made again"))
    command.main(arguments)
    assert json.loads((tmp_path / "synthetic_tasks.json").read_text())["rows"] == first["rows"]
