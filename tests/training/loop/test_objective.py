"""Runs with `loss.cvr: ipw` and `dr`: what a step minimises, what such a run writes, and what it refuses."""

import json

import pytest
import torch

from dcrnn_fast import counterfactual_losses
from dcrnn_fast.data import BlockLoader
from dcrnn_fast.errors import ConfigError
from dcrnn_fast.nn.relations import unsampled_logits
from dcrnn_fast.training import evaluate, load_config, train
from dcrnn_fast.training.folder.weights import build_model, describe, read_weights
from dcrnn_fast.training.loop.gradient import BatchGradient, CounterfactualObjective
from dcrnn_fast.training.ranks import ONE
from tests.training.runs import UNCERTAINTY
from tests.training.tiny import newest_checkpoint, tiny_config, write_table

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


@pytest.mark.parametrize("embedding", ["sparse", "dense"])
def test_micro_batches_have_the_gradient_of_the_whole_batch(schema, dataset, batch, embedding):
    found = []
    for parts in (1, 3):
        config, _, objective = objective_of(schema, dataset, loss__cvr="dr", optimiser__micro_batches=parts, model__embedding=embedding)
        loss, by_name = gradients(config, objective, batch)
        found.append((loss, {name: value.to_dense() if value.is_sparse else value for name, value in by_name.items()}))
    torch.testing.assert_close(found[1], found[0])


@pytest.fixture(scope="module")
def run(run_of):
    """A run with doubly robust losses."""
    return run_of(UNCERTAINTY).folder


def test_the_imputation_is_in_the_checkpoints_and_not_in_the_weights(run, finished):
    tensors, about, _ = read_weights(run / "model.safetensors")
    plain, before, _ = read_weights(finished / "model.safetensors")
    assert tensors.keys() == plain.keys()
    assert about == before
    assert any(name.startswith("imputation.") for name in newest_checkpoint(run)[0])
    assert not any(name.startswith("imputation.") for name in newest_checkpoint(finished)[0])
    parameters = (json.loads((folder / "metrics.json").read_text())["model"]["parameters"] for folder in (run, finished))
    assert next(parameters) == next(parameters)
    assert evaluate(run)["metrics"]["buy_given_click"]["auc"] > 0.7


def test_another_run_goes_on_from_the_weights_of_one_with_an_imputation(run, schema, tmp_path):
    train(tiny_config(schema, loss__cvr="dr", optimiser__epochs=1), tmp_path / "next", init=run)
    assert any(name.startswith("imputation.") for name in newest_checkpoint(tmp_path / "next")[0])


@pytest.mark.parametrize("relation", ["independent", "transfer"])
def test_another_relation_is_refused_with_the_configuration(relation):
    said = f"the settings: loss.cvr is 'ipw', a loss of each event .* but model.relation is '{relation}'; it needs .*chain"
    with pytest.raises(ConfigError, match=said):
        load_config(None, {"data": "hillstrom", "loss.cvr": "ipw", "model.relation": relation})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"funnel": False}, "the relation of tiny is 'independent'"),
        ({"funnel": False, "tasks": [{"name": "click", "column": "clicked"}], "relation": "chain"}, "tiny has the task click alone"),
    ],
)
def test_data_without_conditionals_is_refused_before_the_run(tmp_path, changes, said):
    table = write_table(tmp_path / "data", **changes)
    with pytest.raises(ConfigError, match=f"loss.cvr is 'dr', .* but {said}; it needs several tasks"):
        train(tiny_config(table, loss__cvr="dr"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_estimator_is_refused():
    with pytest.raises(ConfigError, match=r"loss\.cvr is 'ips': Input should be 'entire_space', 'ipw' or 'dr'"):
        load_config(None, {"data": "hillstrom", "loss.cvr": "ips"})
