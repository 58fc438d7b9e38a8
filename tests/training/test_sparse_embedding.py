"""Runs with ``model.embedding: sparse``."""

import json

import pytest
import torch

from dcrnn_fast import RowWiseAdagrad
from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training import evaluate, load_model, train
from dcrnn_fast.training.model_file import build_model, describe
from dcrnn_fast.training.optimisation import SPARSE_DECAY, SPARSE_LR, build_optimiser, clip_gradients
from dcrnn_fast.training.snapshot import capture, restore
from dcrnn_fast.training.tensors import all_finite
from tests.training.tiny import tiny_config

CPU = torch.device("cpu")
SPARSE = {"model__embedding": "sparse"}


@pytest.fixture(scope="module")
def sparse_run(schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse") / "run"
    train(tiny_config(schema, **SPARSE), folder)
    return folder


def built(schema, dataset, **options):
    config = tiny_config(schema, **options)
    model = build_model(describe(config, dataset), device=CPU, backend="reference")
    return model, build_optimiser(config, {"model": model}, CPU)


def group_of_table(model, optimiser):
    (own,) = [group for group in optimiser.param_groups if any(parameter is model.embedding.weight for parameter in group["params"])]
    return own


def test_its_probabilities_are_better_than_the_constant(sparse_run):
    valid = json.loads((sparse_run / "metrics.json").read_text())["valid"]
    for task in ("click", "buy"):
        assert valid[task]["log_loss"] < valid[task]["constant_log_loss"], task


def test_its_weights_load_and_are_evaluated_like_those_of_any_run(sparse_run):
    model, about = load_model(sparse_run / "model.safetensors")
    assert (model.embedding.sparse, about["model"]["embedding"]) == (True, "sparse")
    stored = json.loads((sparse_run / "metrics.json").read_text())
    assert evaluate(sparse_run)["metrics"] == stored["test"]


def test_the_table_alone_has_row_wise_adagrad_with_its_own_rate_and_no_decay(schema, dataset):
    model, optimiser = built(schema, dataset, **SPARSE)
    adamw, rows = optimiser.parts
    assert isinstance(rows, RowWiseAdagrad)
    assert [parameter is model.embedding.weight for group in rows.param_groups for parameter in group["params"]] == [True]
    assert len(adamw.param_groups[0]["params"] + adamw.param_groups[1]["params"]) == len([*model.parameters()]) - 1
    own = group_of_table(model, optimiser)
    assert own["lr_scale"] * 0.02 == pytest.approx(SPARSE_LR)  # 0.02 is the tiny run's optimiser.lr
    assert own["weight_decay"] == SPARSE_DECAY


def test_its_learning_rate_and_decay_can_be_set(schema, dataset):
    options = {"optimiser__embedding_lr": 0.1, "optimiser__embedding_weight_decay": 0.7}
    own = group_of_table(*built(schema, dataset, **SPARSE, **options))
    assert (own["lr_scale"], own["weight_decay"]) == (pytest.approx(5.0), 0.7)


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


def test_a_checkpoint_of_another_optimiser_is_refused(schema, dataset, tmp_path):
    model, optimiser = built(schema, dataset)
    ids, dense, labels, _ = (part[:8] for part in next(iter(batches(dataset))))
    model.loss(model(ids, dense), labels, strict_funnel=False).backward()
    optimiser.step()
    tensors = capture({"model": model}, optimiser, CPU)
    other, sparse = built(schema, dataset, **SPARSE)
    with pytest.raises(CheckpointError, match=r"model\.embedding\.weight has not RowWiseAdagrad's state; start a new run"):
        restore(tensors, {"model": other}, sparse, CPU, tmp_path)


def batches(dataset):
    from dcrnn_fast.data import BlockLoader

    return BlockLoader(dataset.split("train"), 8, shuffle=False, seed=0).batches()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_value_that_is_not_finite_is_found_in_any_block(bad):
    values = torch.zeros(2**22 + 5)
    assert all_finite(values)
    values[-1] = bad
    assert not all_finite(values)
