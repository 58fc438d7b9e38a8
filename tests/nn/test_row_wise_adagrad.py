"""Row-wise Adagrad, and a training step of a model with a sparse table."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dcrnn_fast import DCRNN, RowWiseAdagrad
from dcrnn_fast.nn import row_wise_adagrad
from dcrnn_fast.nn.row_wise_adagrad import each_row_once
from tests.nn.models import SIZES, batch


def table_with_gradient(rows, values, *, size=6, dtype=torch.float64):
    """A table [size, 3] whose sparse gradient lists ``rows``."""
    table = nn.Parameter(torch.randn(size, 3, dtype=dtype))
    table.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values.to(dtype), table.shape, check_invariants=True)
    return table


def test_a_step_follows_the_formula_row_by_row():
    first, second = torch.randn(2, 4, 3, dtype=torch.float64)
    table = table_with_gradient([1, 4, 1, 0], first)
    optimiser = RowWiseAdagrad([table], lr=0.1, weight_decay=0.5, eps=0.01)
    start, expected, sums = *(table.detach().clone() for _ in range(2)), torch.zeros(6, dtype=torch.float64)
    for rows, gradient in (([1, 4, 1, 0], first), ([4, 4, 2, 1], second)):
        table.grad = torch.sparse_coo_tensor(torch.tensor([rows]), gradient, table.shape, check_invariants=True)
        optimiser.step()
        for row in set(rows):
            g = sum(part for at, part in zip(rows, gradient, strict=True) if at == row)
            sums[row] += (g**2).mean()
            expected[row] = (1 - 0.1 * 0.5) * expected[row] - 0.1 * g / (sums[row].sqrt() + 0.01)
    torch.testing.assert_close(table.detach(), expected)
    assert torch.equal(table[[3, 5]], start[[3, 5]]), "rows that no step reads keep their bits"
    torch.testing.assert_close(optimiser.state[table]["sum"], sums)


def test_a_prior_counts_as_steps_with_the_mean_gradient_of_the_batch():
    values = torch.randn(3, 3, dtype=torch.float64)
    table = table_with_gradient([1, 4, 0], values)
    before = table.detach().clone()
    RowWiseAdagrad([table], lr=0.1, prior=5.0).step()
    squares = (values**2).mean(dim=1)
    expected = before[[1, 4, 0]] - 0.1 * values / (squares + 5 * squares.mean()).sqrt()[:, None]
    torch.testing.assert_close(table.detach()[[1, 4, 0]], expected)


@pytest.mark.parametrize("rows", [[2], [1, 4, 1, 0], [3, 3, 3, 3, 3], [5, 0, 5, 1, 0, 2]], ids=str)
def test_a_step_that_does_not_wait_for_the_number_of_rows_moves_them_alike(rows, monkeypatch):
    table = table_with_gradient(rows, torch.randn(len(rows), 3))
    other = nn.Parameter(table.detach().clone())
    other.grad = table.grad.clone()
    options = {"lr": 0.1, "weight_decay": 0.5, "prior": 5.0}
    RowWiseAdagrad([table], **options).step()
    monkeypatch.setattr(row_wise_adagrad, "each_row_once", lambda gradient, wait: each_row_once(gradient, wait=False))
    RowWiseAdagrad([other], **options).step()
    torch.testing.assert_close(other.detach(), table.detach())


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_a_step_without_rows_changes_nothing(layout):
    table = table_with_gradient([], torch.zeros(0, 3))
    if layout == "dense":
        table.grad = table.grad.to_dense()
    before = table.detach().clone()
    RowWiseAdagrad([table], weight_decay=1.0, prior=5.0).step()
    assert torch.equal(table, before)


def test_a_restored_optimiser_goes_on_with_the_same_bits():
    def steps(table, optimiser, seeds):
        for seed in seeds:
            values = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))
            table.grad = torch.sparse_coo_tensor(torch.tensor([[0, 5, 0]]), values, table.shape, check_invariants=True)
            optimiser.step()

    whole = table_with_gradient([0], torch.zeros(1, 3), dtype=torch.float32)
    optimiser = RowWiseAdagrad([whole], lr=0.3)
    steps(whole, optimiser, [1])
    resumed = nn.Parameter(whole.detach().clone())
    other = RowWiseAdagrad([resumed], lr=0.1)
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    steps(whole, optimiser, [2, 3])
    steps(resumed, other, [2, 3])
    assert torch.equal(whole, resumed)


@pytest.mark.parametrize("prior", [0.0, 5.0])
def test_a_dense_gradient_moves_a_table_as_the_sparse_one_of_its_rows_does(prior):
    sparse = table_with_gradient([1, 4], torch.randn(2, 3))
    dense = nn.Parameter(sparse.detach().clone())
    optimisers = [RowWiseAdagrad([table], lr=0.3, weight_decay=0.2, prior=prior) for table in (sparse, dense)]
    for _ in range(3):
        dense.grad = sparse.grad.to_dense()
        for optimiser in optimisers:
            optimiser.step()
        torch.testing.assert_close(dense, sparse, rtol=1e-12, atol=1e-12)


def test_a_sparse_model_compiles_into_one_graph_and_exports():
    ids, _, labels = batch()
    model = DCRNN(SIZES, sparse=True).eval()
    eager = model(ids)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(ids)
    model.loss(compiled, labels).backward()
    assert model.features.embedding.weight.grad.is_sparse
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(torch.export.export(model, (ids,)).module()(ids), eager)


BY_ROWS = {"embedding", "index_select", "index_copy_", "detach", "is_same_size", "_embedding_sparse_backward"}


class PassesOver(TorchDispatchMode):
    """Collects the operators that read or write a tensor of at least ``size`` values, but for those of ``BY_ROWS``."""

    def __init__(self, size):
        super().__init__()
        self.size, self.found = size, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves((args, kwargs, out)):
            large = isinstance(value, torch.Tensor) and not value.is_sparse and value.numel() >= self.size
            if large and func._schema.name.removeprefix("aten::") not in BY_ROWS:
                self.found.add(str(func))
        return out


def test_no_operator_of_a_training_step_passes_over_the_table_or_its_state():
    model = DCRNN([100_000, 50_000], embedding_dim=4, tower_dims=(8,), sparse=True, backend="reference")
    tables = {id(table) for table in model.features.id_tables}
    of_tables = RowWiseAdagrad(model.features.id_tables, weight_decay=0.1)
    others = torch.optim.AdamW([parameter for parameter in model.parameters() if id(parameter) not in tables])
    ids, labels = torch.randint(0, 50_000, (8, 2)), torch.ones(8, 2)

    def step():
        model.loss(model(ids), labels).backward()
        of_tables.step()
        others.step()
        model.zero_grad()

    step()  # makes the state
    with PassesOver(size=150_000) as passes:
        step()
    assert passes.found == set()
