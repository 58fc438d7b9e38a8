"""A new run starts with a function of each number, as strong and as smooth as the train rows show."""

import numpy as np
import pytest
import torch

import dcrnn_fast
from dcrnn_fast.data import PackedDataset, PackedSplit
from dcrnn_fast.data.packed.meta import PackedMeta
from dcrnn_fast.training import load_model, train
from dcrnn_fast.training.loop import numbers
from dcrnn_fast.training.loop.first_order import start_of
from dcrnn_fast.training.loop.learned import start_heads
from dcrnn_fast.training.loop.numbers import Number, numbers_of
from dcrnn_fast.training.loop.start import dense_edges
from dcrnn_fast.training.loop.state import EarlyStopping
from tests.training.tiny import tiny_config, write_table


def drawn(dense, logits):
    """Packed train rows of these numbers [R, N] and of an item that tells nothing, with one label drawn from its logit."""
    rng = np.random.default_rng(5)
    labels = (rng.random(len(dense)) < 1 / (1 + np.exp(-logits))).astype(np.float32)[:, None]
    ids, names = rng.integers(1, 20, (len(dense), 1)).astype(np.int32), tuple(f"x{at}" for at in range(dense.shape[1]))
    meta = PackedMeta("drawn", ("click",), False, "chain", {"item": 20}, names, None, False, {"train": len(dense)}, {}, {}, {}, 1)
    return PackedDataset("drawn", meta, {"train": PackedSplit("train", ids, dense, labels, None, None)})


def started(dense, logits, bins=32):
    """A model at its start, and what that is."""
    dataset = drawn(dense, logits)
    model = dcrnn_fast.DCRNN(dataset.meta.fields, num_dense=dense.shape[1], tasks=("click",), dense_bins=bins).eval()
    model.features.dense_embedding.set_edges(dense_edges(dense, bins))
    found = start_of(dataset, chain=True, weighted=False, numbers=numbers_of(model, len(dense)))
    start_heads(model, found)
    torch.nn.init.zeros_(model.towers.head.private_weight)
    return model, found, torch.from_numpy(dataset.split("train").ids).long()


def functions(number, found):
    """Of values from -1.5 to 1.5 the function of a column."""
    values = np.linspace(-1.5, 1.5, 31, dtype=np.float32)
    return number.function(values, found.numbers[number.column, : number.size, 0].astype(np.float64))


@pytest.fixture
def dense():
    return np.random.default_rng(3).normal(size=(20_000, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", [lambda x: 0.8 * x, np.abs, lambda x: np.sin(2 * x)], ids=["a line", "two slopes", "a wave"])
def test_the_function_of_a_number_is_near_the_true_one(dense, shape):
    model, found, _ = started(dense, shape(dense[:, 1]) - 1.0)
    own, true = functions(numbers_of(model, 1)[1], found), shape(np.linspace(-1.5, 1.5, 31))
    assert np.abs((own - own.mean()) - (true - true.mean())).max() < 0.2


def test_numbers_that_tell_nothing_have_hardly_a_function(dense):
    _, found, _ = started(dense, 0.8 * dense[:, 1] - 1.0)
    assert np.abs(found.numbers[[0, 2]].cumsum(axis=1)).max() < 0.1 < found.numbers[1].sum()


def test_400_rows_show_a_line():
    rng, away = np.random.default_rng(0), []
    for _ in range(20):
        dense = rng.normal(size=(400, 1)).astype(np.float32)
        model, found, _ = started(dense, dense[:, 0] - 2.0)
        own = functions(numbers_of(model, 1)[0], found)
        away.append(np.abs(own - own.mean() - np.linspace(-1.5, 1.5, 31)).mean())
    assert np.mean(away) < 0.35, "a function that is nowhere has 0.77"


def test_with_heads_of_zeros_a_model_is_the_sum_of_the_functions(dense):
    model, found, ids = started(dense, 0.8 * dense[:, 1] + dense[:, 2] ** 2 - 1.0)
    expected = found.intercepts[0] + found.effects[ids[:50, 0], 0]
    for number in numbers_of(model, len(dense)):
        expected = expected + number.function(dense[:50, number.column], found.numbers[number.column, : number.size, 0].astype(np.float64))
    torch.testing.assert_close(model(ids[:50], torch.from_numpy(dense[:50]))[:, 0], torch.from_numpy(expected).float())


def test_derivatives_are_those_of_the_log_likelihood(dense):
    values, labels = dense[:500, 0], (dense[:500, 1] > 0.5).astype(np.float64)
    number = Number(0, np.array([-1.0, 0.0, 0.5]), 1 / np.array([1.0, 0.5, 1.5]))
    p = np.full(500, labels.mean())
    blocks = [(rows, (labels - p)[rows], (p * (1 - p))[rows]) for rows in (slice(0, 200), slice(200, 500))]
    first, second, directions, means = number.derivatives(values, blocks)
    part = torch.from_numpy(np.stack([number.function(values, one) for one in np.eye(3)], axis=1) - means)
    z = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def likelihood(z):
        logits = part @ (torch.from_numpy(directions) @ z) + float(np.log(labels.mean() / (1 - labels.mean())))
        return -torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels), reduction="sum")

    np.testing.assert_allclose(torch.autograd.grad(likelihood(z), z)[0], first, atol=1e-9)
    np.testing.assert_allclose(torch.autograd.functional.hessian(likelihood, z), -np.diag(second), atol=1e-9)


def test_more_numbers_than_the_start_can_fit_are_left_to_training(dense, monkeypatch):
    monkeypatch.setattr(numbers, "MOST_CELLS", 3 * len(dense) - 1)
    _, found, _ = started(dense, dense[:, 1])
    assert found.numbers.size == 0


def test_a_run_has_the_functions_that_it_starts_with(tmp_path):
    train(tiny_config(write_table(tmp_path), model__first_order=True), tmp_path / "run")
    model, _ = load_model(tmp_path / "run")
    assert model.features.first_order.dense_weight.any()


def test_an_evaluation_that_chance_may_explain_waits_as_a_worse_one_does():
    stopping = EarlyStopping(larger_is_better=False, patience=1)
    assert stopping.update(1.0, 0)
    assert not stopping.update(0.9, 10, counts=False)
    assert (stopping.best_step, stopping.waited) == (0, 1)
    assert stopping.update(0.95, 20)
