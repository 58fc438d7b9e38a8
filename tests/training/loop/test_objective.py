"""Runs with `loss.cvr: ipw` and `dr`: what a step minimises, what such a run writes, and what it refuses."""

import pytest
import torch

from dcrnn_fast import counterfactual_losses
from dcrnn_fast.data import BlockLoader
from dcrnn_fast.nn.relations import unsampled_logits
from dcrnn_fast.training import evaluate, train
from dcrnn_fast.training.folder.weights import build_model, describe, read_weights
from dcrnn_fast.training.loop.gradient import BatchGradient, CounterfactualObjective
from dcrnn_fast.training.ranks import ONE
from tests.training.runs import UNCERTAINTY
from tests.training.tiny import newest_checkpoint, tiny_config

CPU = torch.device("cpu")


def objective_of(schema, dataset, **options):
    config = tiny_config(schema, **{"model__dropout": 0.0} | options)
    torch.manual_seed(0)
    model = build_model(describe(config, dataset), device=CPU, backend="reference")
    return config, model, CounterfactualObjective(config, model)


@pytest.fixture(scope="module")
def batch(dataset):
    return next(BlockLoader(dataset.split("train"), 64, shuffle=True, seed=0).batches())


def gradients(config, objective, batch):
    loss, _ = BatchGradient(config, objective, None, precision="float32", device=CPU, ranks=ONE)(batch, 0)
    return loss, {name: value.grad for name, value in objective.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("cvr", ["ipw", "dr"])
@pytest.mark.parametrize("negative_rate", [None, 0.2])
def test_a_step_minimises_the_models_loss_and_those_of_its_conditionals(schema, dataset, batch, cvr, negative_rate):
    changes = {"loss__cvr": cvr, "negative_rate": negative_rate}
    config, model, objective = objective_of(schema, dataset, **changes, loss__sample_weight=True, loss__task_weight=[1, 3])
    rate, options = negative_rate or 1.0, {"sample_weight": batch.weight}
    z = model.conditional_logits(batch.ids, batch.dense)
    p = torch.sigmoid(model.event_logits(unsampled_logits(z, rate))[:, :1])
    about = options | {"negative_rate": rate}
    expected = model.loss(model.event_logits(z), batch.labels, task_weight=[1, 3], **options)
    if cvr == "ipw":
        expected = expected + counterfactual_losses(z[:, 1:], batch.labels, p, **about).sum()
    else:
        imputation = objective.imputation(model.cross(model.features(batch.ids, batch.dense).x0)[1:].detach())
        y = torch.sigmoid(imputation)
        expected = expected + counterfactual_losses(z[:, 1:], batch.labels, p, y, **about).sum()
        expected = expected + counterfactual_losses(imputation, batch.labels, p, **about).sum()
    weights = torch.tensor([1.0, 3.0])
    found, _ = BatchGradient(config, objective, weights, precision="float32", device=CPU, ranks=ONE)(batch, 0)
    torch.testing.assert_close(found, expected.detach())
    gradient = model.towers.head.private_weight.grad.clone()
    model.zero_grad()
    expected.backward()
    torch.testing.assert_close(gradient, model.towers.head.private_weight.grad)


def test_no_gradient_of_the_imputation_reaches_the_model(schema, dataset, batch):
    _, model, objective = objective_of(schema, dataset, loss__cvr="dr")
    objective(batch.ids, batch.dense)[:, 2:].sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
    assert all(parameter.grad.any() for parameter in list(objective.imputation.parameters())[-2:])


@pytest.mark.parametrize("cvr", ["ipw", "dr"])
def test_a_model_that_diverged_has_a_loss_that_is_not_finite(schema, dataset, batch, cvr):
    config, model, objective = objective_of(schema, dataset, loss__cvr=cvr)
    model.towers.head.private_bias.data.fill_(float("nan"))
    assert torch.isnan(gradients(config, objective, batch)[0])


@pytest.fixture(scope="module")
def run(run_of):
    """A run with doubly robust losses."""
    return run_of(UNCERTAINTY).folder


def test_the_imputation_is_in_the_checkpoints_and_not_in_the_weights(run, finished, schema, tmp_path):
    tensors, about, _ = read_weights(run / "model.safetensors")
    plain, before, _ = read_weights(finished / "model.safetensors")
    assert (tensors.keys(), about) == (plain.keys(), before)
    train(tiny_config(schema, loss__cvr="dr", optimiser__epochs=1), tmp_path / "next", init=run)
    for folder, has in ((run, True), (finished, False), (tmp_path / "next", True)):
        assert any(name.startswith("imputation.") for name in newest_checkpoint(folder)[0]) == has
    assert evaluate(run)["metrics"]["buy_given_click"]["auc"] > 0.7
