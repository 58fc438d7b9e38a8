"""Runs with ``model.embedding: sparse``."""

import json

import pytest
import torch

from dcrnn_fast import RowWiseAdagrad
from dcrnn_fast.errors import TrainingDivergedError
from dcrnn_fast.training import load_model, train
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


def group_of_table(model, optimiser):
    table = model.features.embedding.weight
    (own,) = [group for group in optimiser.param_groups if any(parameter is table for parameter in group["params"])]
    return own


def test_its_probabilities_are_better_than_the_constant(sparse_run):
    valid = json.loads((sparse_run / "metrics.json").read_text())["valid"]
    for task in ("click", "buy"):
        assert valid[task]["log_loss"] < valid[task]["constant_log_loss"], task


def test_its_weight_file_brings_the_sparse_table_back(sparse_run):
    model, about = load_model(sparse_run / "model.safetensors")
    assert (model.features.embedding.sparse, about["model"]["embedding"]) == (True, "sparse")


def test_the_tables_alone_have_row_wise_adagrad_with_a_rate_of_their_own_and_no_decay(schema, dataset):
    model, optimiser = built(schema, dataset, **SPARSE)
    adamw, rows = optimiser.parts
    assert isinstance(rows, RowWiseAdagrad)
    trained = [id(parameter) for group in rows.param_groups for parameter in group["params"]]
    assert trained == [id(table) for table in model.features.id_tables]
    assert len(adamw.param_groups[0]["params"] + adamw.param_groups[1]["params"]) == len([*model.parameters()]) - 2
    own = group_of_table(model, optimiser)
    assert own["lr_scale"] * 0.02 == pytest.approx(SPARSE_LR)  # 0.02 is the tiny run's optimiser.lr
    assert own["weight_decay"] == SPARSE_DECAY


def test_its_learning_rate_and_decay_can_be_set(schema, dataset):
    options = {"optimiser__embedding_lr": 0.2, "optimiser__embedding_weight_decay": 0.7}
    own = group_of_table(*built(schema, dataset, **SPARSE, **options))
    assert (own["lr_scale"], own["weight_decay"]) == (pytest.approx(10.0), 0.7)


def test_the_embeddings_and_the_first_order_table_have_the_prior(schema, dataset):
    _, optimiser = built(schema, dataset, **SPARSE)
    assert [group["prior"] for group in optimiser.parts[1].param_groups] == [64.0, 64.0]


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
def test_one_value_that_is_not_finite_is_found_in_any_block(bad):
    values = torch.zeros(2**22 + 5)
    assert all_finite(values)
    values[-1] = bad
    assert not all_finite(values)


def test_a_gradient_that_is_not_finite_stops_a_run_before_its_weights_are_saved(schema, tmp_path, monkeypatch):
    real, steps = RowWiseAdagrad.step, []

    def step(self):
        steps.append(1)
        if len(steps) == 8:  # the last of the epoch: no later loss tells
            self.param_groups[0]["params"][0].grad._values()[0] = float("inf")
        real(self)

    monkeypatch.setattr(RowWiseAdagrad, "step", step)
    said = r"weights features\.embedding\.weight are no longer finite at step 8; .* step-00000006"
    with pytest.raises(TrainingDivergedError, match=said):
        train(tiny_config(schema, **SPARSE), tmp_path / "run")
