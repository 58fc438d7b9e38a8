"""Runs with ``model.embedding: sparse``."""

import json

import pytest
import torch

from dcrnn_fast import RowWiseAdagrad
from dcrnn_fast.training.folder.tensors import all_finite
from dcrnn_fast.training.folder.weights import build_model, describe
from dcrnn_fast.training.loop.optim import SPARSE_DECAY, SPARSE_LR, build_optimiser, clip_gradients
from tests.training import runs
from tests.training.tiny import tiny_config

CPU = torch.device("cpu")
SPARSE = {"model__embedding": "sparse", "model__first_order": True}


@pytest.fixture(scope="module")
def sparse_run(run_of):
    return run_of(runs.SPARSE).folder


def built(schema, dataset, **options):
    config = tiny_config(schema, **options)
    model = build_model(describe(config, dataset), device=CPU, backend="reference")
    return model, build_optimiser(config, torch.nn.ModuleDict({"model": model}), CPU)


def test_its_probabilities_are_better_than_the_constant(sparse_run):
    valid = json.loads((sparse_run / "metrics.json").read_text())["valid"]
    for task in ("click", "buy"):
        assert valid[task]["log_loss"] < valid[task]["constant_log_loss"], task


@pytest.mark.parametrize(("given", "rate", "decay"), [({}, SPARSE_LR, SPARSE_DECAY), ({"lr": 0.2, "weight_decay": 0.7}, 0.2, 0.7)])
def test_the_tables_alone_have_row_wise_adagrad_with_a_rate_of_their_own(schema, dataset, given, rate, decay):
    model, optimiser = built(schema, dataset, **SPARSE, **{f"optimiser__embedding_{name}": value for name, value in given.items()})
    adamw, rows = optimiser.parts
    assert isinstance(rows, RowWiseAdagrad)
    trained = [id(parameter) for group in rows.param_groups for parameter in group["params"]]
    assert trained == [id(table) for table in model.features.id_tables]
    assert len(adamw.param_groups[0]["params"] + adamw.param_groups[1]["params"]) == len([*model.parameters()]) - 2
    own = rows.param_groups[0]
    assert own["lr_scale"] * 0.02 == pytest.approx(rate)  # 0.02 is the tiny run's optimiser.lr
    assert own["weight_decay"] == decay
    assert [group["prior"] for group in rows.param_groups] == [64.0, 64.0]


def test_clipping_scales_sparse_and_dense_gradients_by_the_norm_of_all():
    repeated = torch.sparse_coo_tensor(torch.tensor([[1, 1, 3]]), torch.ones(3, 2), (5, 2), check_invariants=True)
    table, weight = torch.zeros(5, 2, requires_grad=True), torch.zeros(4, requires_grad=True)
    table.grad, weight.grad = repeated.clone(), torch.full((4,), 3.0)
    dense = [torch.zeros(5, 2, requires_grad=True), torch.zeros(4, requires_grad=True)]
    dense[0].grad, dense[1].grad = repeated.to_dense(), torch.full((4,), 3.0)
    torch.nn.utils.clip_grad_norm_(dense, 0.5)
    clip_gradients([table, weight], 0.5)
    torch.testing.assert_close(table.grad.to_dense(), dense[0].grad)
    assert torch.equal(weight.grad, dense[1].grad)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_value_that_is_not_finite_is_found(bad):
    assert all_finite(torch.zeros(0))
    values = torch.zeros(1000)
    assert all_finite(values)
    values[-1] = bad
    assert not all_finite(values)
