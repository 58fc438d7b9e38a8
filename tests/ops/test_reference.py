"""The reference operators: the formulas of the design, written out element by element, and twice differentiable."""

import math
from itertools import product

import pytest
import torch
from torch.autograd import gradgradcheck

from dcrnn_fast.reference import cross_rnn, param_gather

from ..operators.problems import DOUBLE, cross_arguments, differentiable


def rows_of(arguments, name, task, step):
    """A step's rows of a task: those that all tasks share, then the task's own."""
    shared, private = arguments[f"shared_{name}"], arguments[f"private_{name}"][task]
    at = 0 if len(shared) == 1 else step
    return [*shared[at].tolist(), *private[at].tolist()]


def dot(left, right):
    return math.fsum(w * v for w, v in zip(left, right, strict=True))


def states_by_definition(arguments):
    """Every state [T, L + 1, B, D] by scalar arithmetic."""
    x0, steps, context = (arguments[name] for name in ("x0", "steps", "context"))
    tasks, (batch, dim) = len(arguments["private_bias"]), x0.shape
    states = torch.zeros(tasks, steps + 1, batch, dim, dtype=DOUBLE)
    for task, row in product(range(tasks), range(batch)):
        h = start = x0[row].tolist()
        states[task, 0, row] = x0[row]
        for step in range(steps):
            u = ([] if context is None else context[step, row].tolist()) + h
            weight, bias = rows_of(arguments, "weight", task, step), rows_of(arguments, "bias", task, step)
            z = y = u
            if "shared_projection" in arguments:
                projection = rows_of(arguments, "projection", task, step)
                z, y = ([dot(of_gates[gate], u) for of_gates in projection] for gate in (0, -1))
            before = h
            h = []
            for d in range(dim):
                a = dot(weight[d][0], z) + bias[d][0]
                g = 1 / (1 + math.exp(-(dot(weight[d][1], y) + bias[d][1]))) if arguments["cell"] == "gated" else 1.0
                h.append(before[d] + g * start[d] * a)
            states[task, step + 1, row] = torch.tensor(h, dtype=DOUBLE)
    return states


GRID = [
    {"cell": cell, "tied": tied, "context_dim": context_dim, "share_ratio": share_ratio}
    for cell, tied, context_dim, share_ratio in product(("gated", "cross"), (True, False), (0, 2), (0, 0.5, 1))
]
RANKS = [(None, 1.0), (4, 0.0), (4, 0.5), (4, 1.0)]
"""The rank, and the part of the projection that tasks share."""


@pytest.mark.parametrize(("rank", "projection_share_ratio"), RANKS, ids=str)
@pytest.mark.parametrize("options", GRID, ids=str)
def test_the_recurrence_is_the_formula_of_the_design_at_every_step(options, rank, projection_share_ratio):
    arguments = cross_arguments(**options, rank=rank, projection_share_ratio=projection_share_ratio)
    states = cross_rnn(**arguments, return_states=True)
    torch.testing.assert_close(states, states_by_definition(arguments), rtol=1e-12, atol=1e-12)
    assert torch.equal(states[:, -1], cross_rnn(**arguments))


@pytest.mark.parametrize("rank", [None, 1], ids=["full", "low rank"])
@pytest.mark.parametrize("cell", ["gated", "cross"])
def test_the_recurrence_is_twice_differentiable(cell, rank):
    """PyTorch derives all of the reference: there is no derivative of its own to check in more shapes."""
    arguments = cross_arguments(batch=2, dim=2, steps=2, cell=cell, context_dim=1, rank=rank)
    inputs = differentiable(arguments)
    run = lambda *values: cross_rnn(**{**arguments, **dict(zip(inputs, values, strict=True))})  # noqa: E731
    assert gradgradcheck(run, tuple(inputs.values()))


@pytest.mark.parametrize("trailing", [(), (3,), (2, 3)])
def test_a_gather_reads_shared_rows_below_s_and_the_tasks_own_above(trailing):
    shared, private = torch.randn(3, *trailing), torch.randn(2, 4, *trailing)
    index = torch.tensor([[0, 6, 3, 2, 2], [5, 1, 0, 3, 6]], dtype=torch.int32)
    rows = [torch.stack([shared[i] if i < 3 else private[t, i - 3] for i in of_task]) for t, of_task in enumerate(index.tolist())]
    assert torch.equal(param_gather(shared, private, index), torch.stack(rows))
    (gradient,) = torch.autograd.grad(param_gather(shared, private.requires_grad_(), index)[0].sum(), private)
    assert torch.count_nonzero(gradient[1]) == 0, "a task reaches no other task's rows"


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2), (torch.float16, 8e-3)])
def test_lower_precisions_stay_within_the_designs_bounds_of_float64(dtype, bound):
    arguments = cross_arguments(batch=127, dim=33)
    lower = {name: value.to(dtype) if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}
    exact = cross_rnn(**arguments)
    error = (cross_rnn(**lower).to(DOUBLE) - exact).norm() / exact.norm()
    assert error <= bound, f"relative error {error:.2e} in {dtype}"
