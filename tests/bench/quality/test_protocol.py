"""One protocol for all models: they learn, the best weights are kept, and no choice sees the test rows."""

import dataclasses
from contextlib import suppress

import numpy as np
import pytest
import torch

from bench.quality import tune
from bench.quality.data_sets import without_test
from bench.quality.models import LIBRARY, MODELS, ONE_SIZE, SHIPPED, SPACES, TRAINED, Subject, defaults
from bench.quality.networks import SIZES
from bench.quality.protocol import constant_scores, fit, mean_log_loss, metrics
from bench.quality.trees import KINDS
from bench.quality.tune import Plan
from dcrnn_fast.errors import ConfigError
from tests.bench.quality.toy import PROTOCOL, needs_package, setting_of, toy

NETWORKS = [name for name, model in MODELS.items() if model.build]
SUBJECT = Subject("toy", "dcrnn", "medium")


@pytest.fixture
def dataset():
    return toy()


def trained(name, dataset, **changes):
    return fit(name, dataset, setting_of(name, **changes), seed=1, size="small", protocol=PROTOCOL)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_all_its_parameters(name, dataset):
    needs_package(name)
    model = MODELS[name].build(dataset.meta, setting_of(name), SIZES["small"])
    split = dataset.split("train")
    ids, dense, labels = (torch.from_numpy(array) for array in (split.ids.astype(np.int64), split.dense, split.labels))
    logits = model(ids, dense)
    assert logits.shape == labels.shape
    model.loss(logits, labels, task_weight=None).backward()
    without = [key for key, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not without, f"no gradient reaches {without}"


@pytest.mark.parametrize("name", [*NETWORKS, *(name for name in KINDS if name != "logistic")])
def test_every_model_beats_the_constant_where_labels_can_be_learnt(name, dataset):
    """But for logistic regression: clicks of the toy depend on a product alone."""
    needs_package(name)
    logits = trained(name, dataset, epochs=15).logits(dataset.split("test"))
    for task, found in metrics(dataset, "test", logits).items():
        assert found["log_loss"] < 0.9 * constant_scores(dataset)[task]["log_loss"], task


@pytest.mark.parametrize("name", LIBRARY)
def test_a_model_of_the_library_can_do_without_batch_normalisation(name, dataset):
    needs_package(name)
    model = MODELS[name].build(dataset.meta, setting_of(name, batch_norm=False), SIZES["small"])
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in model.modules())


def test_the_constants_log_loss_is_that_of_the_train_rows_rate(dataset):
    expected = metrics(dataset, "test", np.zeros_like(dataset.split("test").labels))
    for task, found in constant_scores(dataset).items():
        assert found["log_loss"] == pytest.approx(expected[task]["constant_log_loss"], rel=1e-6)


def test_trial_0_of_the_trainer_is_the_trainer_as_it_is_shipped(dataset):
    logits = []
    for name in (SHIPPED, TRAINED):
        fitted = fit(name, without_test(dataset), defaults(MODELS[name].space), seed=1, size=ONE_SIZE, protocol=PROTOCOL)
        logits.append(fitted.logits(dataset.split("valid")))
    assert np.array_equal(*logits)


def test_the_trainer_takes_the_keys_of_a_trial(dataset):
    settings = [defaults(MODELS[TRAINED].space) | {"width": width, "optimiser.epochs": 1} for width in (64, 32)]
    fitted = [fit(TRAINED, without_test(dataset), setting, seed=1, size=ONE_SIZE, protocol=PROTOCOL) for setting in settings]
    assert fitted[1].parameters < fitted[0].parameters
    assert fitted[1].history[-1][0] < len(dataset.split("train")) / 32 + 1, "more than one epoch"


@pytest.mark.parametrize("name", ["dcrnn", SHIPPED])
def test_the_weights_kept_are_those_of_the_lowest_validation_loss(name, dataset):
    """So high a learning rate overfits within these epochs: the last weights are not the best."""
    fitted = trained(name, dataset, lr=0.05, epochs=30, dropout=0.0) if name == "dcrnn" else fit(
        name, without_test(dataset), {}, seed=1, size=ONE_SIZE, protocol=PROTOCOL
    )  # fmt: skip
    losses, valid = [loss for _, loss in fitted.history], dataset.split("valid")
    kept = mean_log_loss(torch.from_numpy(fitted.logits(valid)), torch.from_numpy(valid.labels))
    assert min(losses) < losses[-1] or name == SHIPPED, "the run does not overfit, so it tests nothing"
    assert kept == pytest.approx(min(losses), rel=1e-5)


def test_all_networks_are_tuned_over_the_same_common_options():
    for name in NETWORKS:
        assert SPACES["common"].items() <= MODELS[name].space.items(), name


def plan_in(folder, **options):
    return Plan(folder, ("toy",), ("dcrnn",), protocol=PROTOCOL, seeds=1, **{"trials": 3} | options)


SUBJECTS = [SUBJECT, *(Subject("toy", name, ONE_SIZE) for name in KINDS)]


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.model)
def test_no_choice_depends_on_the_labels_of_the_test_rows(subject, dataset, tmp_path):
    pytest.importorskip("optuna")
    needs_package(subject.model)
    split = dataset.split("test")
    other = dataclasses.replace(split, labels=np.random.default_rng(0).permutation(split.labels))
    rows = []
    for name, data in (("own", dataset), ("permuted", dataclasses.replace(dataset, splits={**dataset.splits, "test": other}))):
        (tmp_path / name).mkdir()
        plan = plan_in(tmp_path / name)
        rows.append(tune.final_runs(plan, subject, data, tune.tune(plan, subject, data))[0])
    same = [{key: row[key] for key in ("setting", "valid", "steps")} for row in rows]
    assert same[0] == same[1]
    assert rows[0]["test"] != rows[1]["test"]


def test_a_killed_search_goes_on_as_it_would_have(dataset, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    settings, real, calls = [], tune.fit, []

    def killed(name, data, setting, **options):
        calls.append(1)
        if len(calls) in (1, 4):
            raise KeyboardInterrupt
        return real(name, data, setting, **options)

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tune, "fit", killed if name == "killed" else real)
        for _ in range(3):
            with suppress(KeyboardInterrupt):
                settings.append(tune.tune(plan_in(tmp_path / name, trials=4), SUBJECT, dataset))
    assert len(settings) == 4
    assert all(setting == settings[0] for setting in settings)


def test_a_diverged_trial_is_never_chosen():
    assert tune.best([tune.WORST, 0.5, 0.4, tune.WORST], 4) == [2, 1]
    with pytest.raises(ConfigError, match="no trial has a log_loss"):
        tune.best([tune.WORST], 1)


def test_the_best_trials_train_again_and_their_mean_chooses(dataset, tmp_path, monkeypatch):
    """Trial 1 is the best by its own seed, trial 0 by the mean."""
    pytest.importorskip("optuna")
    losses = iter([0.5, 0.4, 0.9, 0.8, 0.7, 0.5, 0.5])  # of three trials, then of trial 1 and of trial 0 with the other seeds
    monkeypatch.setattr(tune, "fit", lambda *_, **__: None)
    monkeypatch.setattr(tune, "score", lambda *_: {"log_loss": next(losses)})
    assert tune.tune(plan_in(tmp_path), SUBJECT, dataset) == defaults(MODELS["dcrnn"].space)
    assert next(losses, None) is None
