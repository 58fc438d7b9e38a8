"""One protocol for all models: they learn, the best weights are kept, and no choice sees the test rows."""

import dataclasses

import numpy as np
import pytest
import torch

from bench.quality import protocol, search
from bench.quality.data_sets import without_test
from bench.quality.models import MODELS, SHIPPED, TRAINED, fits
from bench.quality.networks import SIZES
from bench.quality.protocol import fit, mean_log_loss, metrics
from bench.quality.spaces import COMMON, defaults
from bench.quality.trees import KINDS
from bench.quality.work import ONE_SIZE, Subject, Work
from dcrnn_fast.errors import ConfigError
from tests.bench.quality.toy import PROTOCOL, setting_of, toy

NETWORKS = [name for name, model in MODELS.items() if model.build]
SUBJECT = Subject("toy", "dcrnn", "medium")


@pytest.fixture
def dataset():
    return toy()


def needs_package(name):
    if MODELS[name].needs:
        pytest.importorskip(MODELS[name].needs)


def trained(name, dataset, **changes):
    return fit(name, dataset, setting_of(name, **changes), seed=1, size="small", protocol=PROTOCOL)


def silent(line):
    pass


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_a_logit_a_row_and_task_and_trains_all_its_parameters(name, dataset):
    needs_package(name)
    assert fits(name, dataset.meta)
    model = MODELS[name].build(dataset.meta, setting_of(name), SIZES["small"])
    split = dataset.split("train")
    ids, dense, labels = (torch.from_numpy(array) for array in (split.ids.astype(np.int64), split.dense, split.labels))
    logits = model(ids, dense)
    assert logits.shape == labels.shape
    model.loss(logits, labels, task_weight=None).backward()
    without = [key for key, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not without, f"no gradient reaches {without}"


@pytest.mark.parametrize("name", [*NETWORKS, *(name for name in KINDS if name != "logistic")])
def test_every_model_beats_the_constant_where_the_labels_can_be_learnt(name, dataset):
    """But for logistic regression: clicks of the toy depend on a product alone."""
    needs_package(name)
    logits = trained(name, dataset, epochs=15).logits(dataset.split("test"))
    for task, found in metrics(dataset, "test", logits).items():
        assert found["log_loss"] < 0.9 * found["constant_log_loss"], task


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.needs == "torch_rechub"])
def test_a_model_of_the_library_trains_without_batch_normalisation(name, dataset):
    needs_package(name)
    model = MODELS[name].build(dataset.meta, setting_of(name, batch_norm=False), SIZES["small"])
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in model.modules())
    logits = trained(name, dataset, batch_norm=False).logits(dataset.split("test"))
    assert all(found["log_loss"] < found["constant_log_loss"] for found in metrics(dataset, "test", logits).values())


def test_learnt_weights_of_the_losses_train_a_model(dataset):
    fixed, weighed = (trained("dcrnn", dataset, epochs=12, weighting=name) for name in ("fixed", "uncertainty"))
    assert weighed.history != fixed.history
    logits = weighed.logits(dataset.split("test"))
    assert all(found["log_loss"] < 0.9 * found["constant_log_loss"] for found in metrics(dataset, "test", logits).values())


def test_the_constant_has_its_own_log_loss(dataset):
    logits = trained("constant", dataset).logits(dataset.split("test"))
    for found in metrics(dataset, "test", logits).values():
        assert found["log_loss"] == pytest.approx(found["constant_log_loss"], rel=1e-6)
        assert found["auc"] == 0.5


def test_the_trainer_as_it_is_shipped_gives_logits_of_its_best_weights(dataset):
    fitted = fit(SHIPPED, without_test(dataset), {}, seed=1, size=ONE_SIZE, protocol=PROTOCOL)
    valid = dataset.split("valid")
    kept = mean_log_loss(torch.from_numpy(fitted.logits(valid)), torch.from_numpy(valid.labels))
    assert kept == pytest.approx(min(loss for _, loss in fitted.history), rel=1e-5)


def test_trial_0_of_the_trainer_is_the_trainer_as_it_is_shipped(dataset):
    logits = []
    for name in (SHIPPED, TRAINED):
        fitted = fit(name, without_test(dataset), defaults(MODELS[name].space), seed=1, size=ONE_SIZE, protocol=PROTOCOL)
        logits.append(fitted.logits(dataset.split("valid")))
    assert np.array_equal(*logits)


def test_the_trainer_takes_the_keys_of_a_trial(dataset):
    setting = defaults(MODELS[TRAINED].space) | {"width": 32, "model.steps": 1, "optimiser.epochs": 1}
    (model,) = fit(TRAINED, without_test(dataset), setting, seed=1, size=ONE_SIZE, protocol=PROTOCOL).networks
    assert "1 steps" in repr(model.cross)
    assert [layer.private_weight.shape[1] for layer in model.towers.layers] == [32, 16]


def test_the_networks_of_the_funnel_never_order_its_events_wrongly(dataset):
    needs_package("esmm")
    for name in ("dcrnn", "esmm"):
        click, buy = trained(name, dataset).logits(dataset.split("test")).T
        assert (buy <= click).all(), name


def test_the_weights_kept_are_those_of_the_lowest_validation_loss(dataset):
    """So high a learning rate overfits within these epochs: the last weights are not the best."""
    fitted = trained("dcrnn", dataset, lr=0.05, epochs=30, dropout=0.0)
    losses = [loss for _, loss in fitted.history]
    valid = dataset.split("valid")
    kept = mean_log_loss(torch.from_numpy(fitted.logits(valid)), torch.from_numpy(valid.labels))
    assert min(losses) < losses[-1], "the run does not overfit, so it tests nothing"
    assert kept == pytest.approx(min(losses), rel=1e-6)


def test_a_run_ends_after_the_patience_without_a_better_evaluation(dataset):
    fitted = trained("dcrnn", dataset, lr=0.05, epochs=100, dropout=0.0)
    losses = [loss for _, loss in fitted.history]
    assert len(losses) - 1 - losses.index(min(losses)) == PROTOCOL.patience


def test_all_networks_are_tuned_over_the_same_common_options():
    for name in NETWORKS:
        assert COMMON.items() <= MODELS[name].space.items(), name


def tuned(folder, dataset, trials=3, subject=SUBJECT):
    return search.tune(Work(folder, PROTOCOL), subject, dataset, trials, silent)


def settings(folder, subject=SUBJECT):
    files = sorted(Work(folder, PROTOCOL).folder(subject).glob("trial-???.json"))
    return [Work(folder, PROTOCOL).read(subject, file.stem, "toy")["setting"] for file in files]


SUBJECTS = [SUBJECT, *(Subject("toy", name, ONE_SIZE) for name in KINDS)]


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.model)
def test_no_choice_depends_on_the_labels_of_the_test_rows(subject, dataset, tmp_path):
    pytest.importorskip("optuna")
    needs_package(subject.model)
    split = dataset.split("test")
    other = dataclasses.replace(split, labels=np.random.default_rng(0).permutation(split.labels))
    permuted = dataclasses.replace(dataset, splits=dict(dataset.splits) | {"test": other})
    found = {}
    for name, data in (("own", dataset), ("permuted", permuted)):
        work, chosen = Work(tmp_path / name, PROTOCOL), tuned(tmp_path / name, data, subject=subject)
        found[name] = chosen, search.final_runs(work, subject, data, chosen, 1, silent)[0]
    assert settings(tmp_path / "own", subject) == settings(tmp_path / "permuted", subject)
    assert found["own"][0]["setting"] == found["permuted"][0]["setting"]
    assert found["own"][1]["history"] == found["permuted"][1]["history"]
    assert found["own"][1]["test"] != found["permuted"][1]["test"]


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.model)
def test_trials_and_final_runs_never_hold_the_test_rows_while_they_train(subject, dataset, tmp_path, monkeypatch):
    needs_package(subject.model)
    seen, real = [], protocol.fit

    def watched(name, data, *arguments, **options):
        seen.append(set(data.splits))
        return real(name, data, *arguments, **options)

    monkeypatch.setattr(search, "fit", watched)
    chosen = tuned(tmp_path, dataset, trials=1, subject=subject)
    search.final_runs(Work(tmp_path, PROTOCOL), subject, dataset, chosen, 2, silent)
    assert seen == [{"train", "valid"}] * 3


def test_a_second_call_reads_the_rows_that_are_there(dataset, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    first = tuned(tmp_path, dataset), *search.final_runs(Work(tmp_path, PROTOCOL), SUBJECT, dataset, tuned(tmp_path, dataset), 1, silent)
    monkeypatch.setattr(search, "fit", lambda *_, **__: pytest.fail("a run that is there was made again"))
    chosen = tuned(tmp_path, dataset)
    assert (chosen, *search.final_runs(Work(tmp_path, PROTOCOL), SUBJECT, dataset, chosen, 1, silent)) == first


def test_a_killed_search_goes_on_as_it_would_have(dataset, tmp_path):
    pytest.importorskip("optuna")
    tuned(tmp_path, dataset)
    before = settings(tmp_path)
    Work(tmp_path, PROTOCOL).folder(SUBJECT).joinpath("trial-002.json").unlink()
    tuned(tmp_path, dataset)
    assert settings(tmp_path) == before


def test_trials_on_a_part_of_the_train_rows_choose_for_runs_on_all(dataset, tmp_path, monkeypatch):
    seen, real = [], protocol.fit

    def watched(name, data, *arguments, **options):
        seen.append((len(data.split("train")), len(data.split("valid"))))
        return real(name, data, *arguments, **options)

    monkeypatch.setattr(search, "fit", watched)
    work = Work(tmp_path, PROTOCOL)
    chosen = search.tune(work, SUBJECT, dataset, 1, silent, every=4)
    search.final_runs(work, SUBJECT, dataset, chosen, 1, silent)
    search.tune(work, SUBJECT, dataset, 1, silent)
    assert seen == [(150, 300), (600, 300), (600, 300)], "a trial on other rows was taken for one of these"


def test_rows_of_another_protocol_data_set_or_search_space_are_refused(dataset, tmp_path, monkeypatch):
    tuned(tmp_path, dataset, trials=1)
    with pytest.raises(ConfigError, match="patience was 8 and is 3"):
        Work(tmp_path, dataclasses.replace(PROTOCOL, patience=3))
    with pytest.raises(ConfigError, match="other rows of the data"):
        tuned(tmp_path, dataclasses.replace(dataset, meta=dataclasses.replace(dataset.meta, digest="other")), trials=1)
    monkeypatch.setitem(MODELS, "dcrnn", dataclasses.replace(MODELS["dcrnn"], space=dict(COMMON)))
    with pytest.raises(ConfigError, match="another search space"):
        tuned(tmp_path, dataset, trials=1)


def test_a_diverged_trial_is_never_chosen():
    rows = [{"data": "toy", "model": "mmoe", "valid": {"log_loss": value}} for value in (None, 0.5, 0.4, None)]
    assert search.best(rows, 4) == [rows[2], rows[1]]
    with pytest.raises(ConfigError, match="no trial has a log_loss"):
        search.best(rows[:1], 1)


def test_the_best_trials_train_again_and_their_mean_chooses(dataset, tmp_path, monkeypatch):
    """Trial 1 is the best by its own seed, trial 0 by the mean."""
    pytest.importorskip("optuna")
    losses = {"trial-000": 0.5, "trial-001": 0.4, "trial-002": 0.9, "trial-001-seed-1001": 0.8, "trial-001-seed-1002": 0.7}
    write = Work.write

    def written(self, subject, name, digest, row, logits=None):
        return write(self, subject, name, digest, row | {"valid": {"log_loss": losses.get(name, 0.5), "auc": 0.5}}, logits)

    monkeypatch.setattr(Work, "write", written)
    assert tuned(tmp_path, dataset)["trial"] == 0
    assert {path.stem for path in Work(tmp_path, PROTOCOL).folder(SUBJECT).glob("*-seed-*.json")} == {
        f"trial-{trial:03d}-seed-{seed}" for trial in (0, 1) for seed in search.FINALIST_SEEDS
    }
