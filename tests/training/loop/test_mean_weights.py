"""A run evaluates and keeps a running mean of its weights, which a checkpoint holds."""

import pytest
import torch

from dcrnn_fast.training import train
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.folder.weights import read_weights
from dcrnn_fast.training.loop.state import select
from dcrnn_fast.training.loop.trainer import Trainer
from tests.training.tiny import newest_checkpoint, tiny_config


def of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def are_equal(some, others):
    return some.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in some.items())


@pytest.fixture
def evaluations(monkeypatch):
    """Of each evaluation of a run the step, the model's weights before, meanwhile and afterwards."""
    found, validate, evaluate = [], Trainer.evaluate, Trainer._evaluate

    def validated(self):
        found.append([self.at.step, of(self.model)])
        validate(self)
        found[-1].append(of(self.model))

    def evaluated(self):
        found[-1].append(of(self.model))
        evaluate(self)

    monkeypatch.setattr(Trainer, "evaluate", validated)
    monkeypatch.setattr(Trainer, "_evaluate", evaluated)
    return found


def test_a_run_evaluates_its_mean_weights_and_trains_on_from_its_own(schema, tmp_path, evaluations):
    every = {"early_stopping__every_steps": 4, "early_stopping__patience": 9}
    train(tiny_config(schema, early_stopping__ema_half_life=0.2, **every), tmp_path / "run")  # 0.2 x 8 steps
    assert [step for step, *_ in evaluations] == [0, 4, 8, 12, 16, 20, 24]
    assert all(are_equal(before, after) for _, before, _, after in evaluations)
    mean = evaluations[1][1]
    assert are_equal(evaluations[1][2], mean), "the first mean is the weights of the first evaluation"
    for step, newest, meanwhile, _ in evaluations[2:]:
        decay = 0.5 ** (4 / min(1.6, step / 12))
        mean = {name: decay * value + (1 - decay) * newest[name] for name, value in mean.items()}
        for name, value in mean.items():
            torch.testing.assert_close(meanwhile[name], value, msg=lambda told, name=name, step=step: f"{name}, step {step}: {told}")


def test_a_run_keeps_the_mean_that_was_the_best(schema, tmp_path, evaluations):
    result = train(tiny_config(schema), tmp_path / "run")
    meanwhile = next(weights for step, _, weights, _ in evaluations if step == result["train"]["best_step"])
    kept = read_weights(RunFolder(tmp_path / "run").weights)[0]
    assert result["train"]["best_step"] > 8, "of a mean of one there is nothing to see"
    assert all(torch.equal(kept[name], value) for name, value in meanwhile.items())


def test_without_a_half_life_a_run_keeps_its_newest_weights_and_no_mean(schema, tmp_path, evaluations):
    train(tiny_config(schema, early_stopping__ema_half_life=0), tmp_path / "run")
    assert all(are_equal(before, meanwhile) for step, before, meanwhile, _ in evaluations if step)
    assert not select(newest_checkpoint(tmp_path / "run").tensors, "mean.")
