"""Runs with `loss.cvr: ipw`: what a step minimises."""

import pytest
import torch

from dcrnn_fast import counterfactual_losses
from dcrnn_fast.data import BlockLoader
from dcrnn_fast.nn.relations import unsampled_logits
from dcrnn_fast.training.folder.weights import build_model, describe
from dcrnn_fast.training.loop.gradient import BatchGradient
from dcrnn_fast.training.ranks import ONE
from tests.training.tiny import tiny_config

CPU = torch.device("cpu")


def model_of(schema, dataset, **options):
    config = tiny_config(schema, **{"model__dropout": 0.0, "loss__cvr": "ipw"} | options)
    torch.manual_seed(0)
    return config, build_model(describe(config, dataset), device=CPU, backend="reference")


@pytest.fixture(scope="module")
def batch(dataset):
    return next(BlockLoader(dataset.split("train"), 64, shuffle=True, seed=0).batches())


@pytest.mark.parametrize("negative_rate", [None, 0.2])
def test_a_step_minimises_the_models_loss_and_those_of_its_conditionals(schema, dataset, batch, negative_rate):
    changes = {"negative_rate": negative_rate, "loss__sample_weight": True, "loss__task_weight": [1, 3]}
    config, model = model_of(schema, dataset, **changes)
    rate, options = negative_rate or 1.0, {"sample_weight": batch.weight}
    z = model.conditional_logits(batch.ids, batch.dense)
    p = torch.sigmoid(model.event_logits(unsampled_logits(z, rate))[:, :1])
    expected = model.loss(model.event_logits(z), batch.labels, task_weight=[1, 3], **options)
    expected = expected + counterfactual_losses(z[:, 1:], batch.labels, p, negative_rate=rate, **options).sum()
    weights = torch.tensor([1.0, 3.0])
    found, _ = BatchGradient(config, model, weights, precision="float32", device=CPU, ranks=ONE)(batch, 0)
    torch.testing.assert_close(found, expected.detach())
    gradient = model.towers.head.private_weight.grad.clone()
    model.zero_grad()
    expected.backward()
    torch.testing.assert_close(gradient, model.towers.head.private_weight.grad)


def test_a_model_that_diverged_has_a_loss_that_is_not_finite(schema, dataset, batch):
    config, model = model_of(schema, dataset)
    model.towers.head.private_bias.data.fill_(float("nan"))
    loss, _ = BatchGradient(config, model, None, precision="float32", device=CPU, ranks=ONE)(batch, 0)
    assert torch.isnan(loss)
