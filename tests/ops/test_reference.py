"""The reference operators: the formulas of the design, written out element by element, and their derivatives."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from dcrnn_fast.reference import cross_rnn, param_gather

from ..operators.problems import DOUBLE, cross_arguments, differentiable


def gather_by_definition(shared, private, index):
    def row(t, i):
        return shared[i] if i < len(shared) else private[t, i - len(shared)]

    return torch.stack([torch.stack([row(t, i) for i in rows]) for t, rows in enumerate(index.tolist())])


def projected(u, rows):
    """The values that a projection's rows give of u, for each gate vector."""
    return [[math.fsum(w * v for w, v in zip(row[gate], u, strict=True)) for row in rows] for gate in range(len(rows[0]))]


def cross_rnn_by_definition(
    x0, shared_weight, shared_bias, private_weight, private_bias, index, *, steps, cell, context=None,
    shared_projection=None, private_projection=None, projection_index=None,
):  # fmt: skip
    """Every state [T, L + 1, B, D] by scalar arithmetic."""
    weight = gather_by_definition(shared_weight, private_weight, index).tolist()
    bias = gather_by_definition(shared_bias, private_bias, index).tolist()
    (tasks, rows), (batch, dim) = index.shape, x0.shape
    projection, rank = None, 0
    if projection_index is not None:
        projection = gather_by_definition(shared_projection, private_projection, projection_index).tolist()
        rank = projection_index.shape[1] * dim // rows
    states = torch.zeros(tasks, steps + 1, batch, dim, dtype=DOUBLE)
    for t in range(tasks):
        for i in range(batch):
            h = x0[i].tolist()
            states[t, 0, i] = x0[i]
            for step in range(steps):
                u = ([] if context is None else context[step, i].tolist()) + h
                read = [u, u]
                if projection is not None:
                    first = 0 if rows == dim else step * rank
                    read = projected(u, projection[t][first : first + rank])
                after = []
                for d in range(dim):
                    r = d if rows == dim else step * dim + d
                    a = math.fsum(w * v for w, v in zip(weight[t][r][0], read[0], strict=True)) + bias[t][r][0]
                    g = 1.0
                    if cell == "gated":
                        q = math.fsum(w * v for w, v in zip(weight[t][r][1], read[1], strict=True)) + bias[t][r][1]
                        g = 1 / (1 + math.exp(-q))
                    after.append(h[d] + g * float(x0[i, d]) * a)
                h = after
                states[t, step + 1, i] = torch.tensor(h, dtype=DOUBLE)
    return states


GRID = [
    pytest.param(cell, tied, context_dim, share_ratio, id=f"{cell}-{'tied' if tied else 'untied'}-context{context_dim}-share{share_ratio}")
    for cell in ("gated", "cross")
    for tied in (True, False)
    for context_dim in (0, 3)
    for share_ratio in (0, 0.5, 1)
]


@pytest.mark.parametrize(("cell", "tied", "context_dim", "share_ratio"), GRID)
def test_cross_rnn_is_the_formula_of_the_design_at_every_step(cell, tied, context_dim, share_ratio):
    arguments = cross_arguments(cell=cell, tied=tied, context_dim=context_dim, share_ratio=share_ratio)
    torch.testing.assert_close(cross_rnn(**arguments, return_states=True), cross_rnn_by_definition(**arguments), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("projection_share_ratio", [0, 0.5, 1])
@pytest.mark.parametrize(("cell", "tied", "context_dim", "share_ratio"), GRID)
def test_a_cell_of_low_rank_is_the_formula_too(cell, tied, context_dim, share_ratio, projection_share_ratio):
    options = {"cell": cell, "tied": tied, "context_dim": context_dim, "share_ratio": share_ratio}
    arguments = cross_arguments(**options, rank=4, projection_share_ratio=projection_share_ratio)
    torch.testing.assert_close(cross_rnn(**arguments, return_states=True), cross_rnn_by_definition(**arguments), rtol=1e-12, atol=1e-12)


def test_a_cell_of_low_rank_is_the_full_cell_with_the_product_of_its_matrices():
    low = cross_arguments(rank=2, projection_share_ratio=0.5, seed=3)
    projection = param_gather(low["shared_projection"], low["private_projection"], low["projection_index"])
    weight = torch.einsum("tdgr,trgk->tdgk", param_gather(low["shared_weight"], low["private_weight"], low["index"]), projection)
    bias = param_gather(low["shared_bias"], low["private_bias"], low["index"])
    index = torch.arange(5, dtype=torch.int32).expand(2, -1)
    full = cross_rnn(low["x0"], weight.new_empty(0, 2, 5), bias.new_empty(0, 2), weight, bias, index, steps=3)
    torch.testing.assert_close(cross_rnn(**low), full, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("return_states", [False, True])
@pytest.mark.parametrize("rank", [None, 2], ids=["full", "low rank"])
@pytest.mark.parametrize(("cell", "tied", "context_dim", "share_ratio"), GRID)
def test_cross_rnn_gradients_match_finite_differences(cell, tied, context_dim, share_ratio, rank, return_states):
    options = {"cell": cell, "tied": tied, "context_dim": context_dim and 2, "share_ratio": share_ratio}
    arguments = cross_arguments(batch=2, dim=3, steps=2, **options, rank=rank, projection_share_ratio=0.5)
    inputs = differentiable(arguments)

    def run(*values):
        return cross_rnn(**{**arguments, **dict(zip(inputs, values, strict=True))}, return_states=return_states)

    assert gradcheck(run, tuple(inputs.values()))


@pytest.mark.parametrize("rank", [None, 1], ids=["full", "low rank"])
@pytest.mark.parametrize("cell", ["gated", "cross"])
def test_cross_rnn_is_twice_differentiable(cell, rank):
    arguments = cross_arguments(batch=2, dim=2, steps=2, cell=cell, context_dim=1, rank=rank)
    inputs = differentiable(arguments)

    def run(*values):
        return cross_rnn(**{**arguments, **dict(zip(inputs, values, strict=True))})

    assert gradgradcheck(run, tuple(inputs.values()))


def test_the_gradient_check_catches_a_dropped_gate_derivative():
    """Negative control: with the gate detached, finite differences disagree."""
    arguments = cross_arguments(batch=2, dim=3, tasks=1, steps=1)
    weight, bias, x0 = arguments["private_weight"][0], arguments["private_bias"][0], arguments["x0"].requires_grad_()

    def gate_without_derivative(x0):
        w, b = torch.cat([arguments["shared_weight"], weight]), torch.cat([arguments["shared_bias"], bias])
        gate = torch.sigmoid(x0 @ w[:, 1].T + b[:, 1]).detach()
        return x0 + gate * x0 * (x0 @ w[:, 0].T + b[:, 0])

    assert not gradcheck(gate_without_derivative, (x0,), raise_exception=False)


def test_states_begin_with_x0_and_end_with_the_result():
    arguments = cross_arguments()
    states, last = cross_rnn(**arguments, return_states=True), cross_rnn(**arguments)
    assert torch.equal(states[:, 0], arguments["x0"].expand(2, -1, -1))
    assert torch.equal(states[:, -1], last)


def test_contexts_chain_into_one_recurrence_over_all_columns():
    """Units that read only upstream units are the same whether computed together or upstream first."""
    whole = cross_arguments(dim=6, tasks=1, share_ratio=0)
    whole["index"] = torch.arange(6, dtype=torch.int32)[None]
    weight = whole["private_weight"]
    weight[:, :2, :, 2:] = 0
    weight[:, 2:4, :, 4:] = 0
    expected = cross_rnn(**whole)
    context, parts = None, []
    for low, high in ((0, 2), (2, 4), (4, 6)):
        states = cross_rnn(
            whole["x0"][:, low:high],
            weight.new_empty(0, 2, high),
            weight.new_empty(0, 2),
            weight[:, low:high, :, :high],
            whole["private_bias"][:, low:high],
            torch.arange(high - low, dtype=torch.int32)[None],
            steps=3,
            context=context,
            return_states=True,
        )
        parts.append(states[:, -1])
        context = states[0, :3] if context is None else torch.cat([context, states[0, :3]], dim=-1)
    torch.testing.assert_close(torch.cat(parts, dim=-1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trailing", [(), (3,), (2, 3)])
def test_param_gather_reads_the_shared_bank_below_s_and_the_tasks_own_above(trailing):
    shared, private = torch.randn(3, *trailing), torch.randn(2, 4, *trailing)
    index = torch.tensor([[0, 6, 3, 2, 2], [5, 1, 0, 3, 6]], dtype=torch.int32)
    assert torch.equal(param_gather(shared, private, index), gather_by_definition(shared, private, index))


def test_a_task_never_reaches_another_tasks_private_rows():
    shared, private = torch.randn(2, 3, dtype=DOUBLE), torch.randn(2, 2, 3, dtype=DOUBLE, requires_grad=True)
    index = torch.randint(0, 4, (2, 50), dtype=torch.int32)
    (gradient,) = torch.autograd.grad(param_gather(shared, private, index)[0].sum(), private)
    assert torch.count_nonzero(gradient[1]) == 0


def test_strided_inputs_give_what_contiguous_ones_give():
    arguments = cross_arguments(batch=6, dim=4)
    strided = {
        name: torch.stack([value, value], dim=-1)[..., 0] if isinstance(value, torch.Tensor) else value for name, value in arguments.items()
    }
    assert not strided["x0"].is_contiguous()
    torch.testing.assert_close(cross_rnn(**strided), cross_rnn(**arguments), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2), (torch.float16, 8e-3)])
def test_lower_precisions_stay_within_the_designs_bounds_of_float64(dtype, bound):
    arguments = cross_arguments(batch=127, dim=33)
    lower = {**arguments, **{name: value.detach().to(dtype) for name, value in differentiable(arguments).items()}}
    exact = cross_rnn(**arguments)
    error = (cross_rnn(**lower).to(DOUBLE) - exact).norm() / exact.norm()
    assert error <= bound, f"relative error {error:.2e} in {dtype}"
