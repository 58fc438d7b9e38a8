"""The operators, with checks and a choice of backend. :mod:`dcrnn_fast.reference.operators` has their formulas."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .ops.dispatch import compute
from .sharing import GATES, Cell
from .support.checks import MAX_STEPS, check_choice, check_count, check_flag
from .support.tensors import check_tensor
from .support.tracing import in_autocast

__all__ = ["cross_rnn", "param_gather"]


def param_gather(shared: Tensor, private: Tensor, index: Tensor, *, backend: str = "auto") -> Tensor:
    """Collect each task's parameter rows from a bank that tasks share and from the task's own.

    Args:
        shared: floating [S, ...], S at most 2**24.
        private: [T, P, ...], P at most 2**24, with the same dtype, device and trailing shape.
        index: int32 [T, R] in [0, S + P): i < S is shared row i, S + p is the task's own row p. Repeats are allowed.
        backend: "auto", or a backend by name.

    Returns:
        [T, R, ...]. A row that is read several times gets the sum of the gradients, in a fixed order: the same bits on every run.

    Raises:
        TypeError, ValueError: wrong dtype, device or shape.
        IndexError: an index outside [0, S + P).
        BackendUnavailable: the named backend cannot run here, or has no forward-mode derivatives (only ``reference`` has).

    Example:
        >>> import torch
        >>> from dcrnn_fast.functional import param_gather
        >>> shared, private = torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [4.0]])  # S = 2 rows; T = 2 tasks with P = 1 row each
        >>> param_gather(shared, private, torch.tensor([[0, 2], [2, 1]], dtype=torch.int32))
        tensor([[1., 3.],
                [4., 2.]])
    """

    check_tensor("shared", shared, "floats [S, ...]")
    return compute("param_gather", (shared, private, index), (False,), backend)


def cross_rnn(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    *,
    steps: int,
    cell: Cell = "gated",
    context: Tensor | None = None,
    shared_projection: Tensor | None = None,
    private_projection: Tensor | None = None,
    return_states: bool = False,
    recompute: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Run a cross layer as a recurrence, for every task. The formula is in :func:`dcrnn_fast.reference.cross_rnn`.

    Letters: T tasks, B rows, D units, C context columns, K = C + D, r the rank; G = 2 vectors a unit for "gated", 1 for "cross"; W = 1 if
    all steps have the same weights, else W = steps. All tasks share the first S units; each has P = D - S of its own. Projections give
    the cell a low rank: tasks share the first M rows, and each has N = r - M of its own.

    Args:
        x0: floating [B, D], the start state, which every step reads again.
        shared_weight: [W, S, G, K], or [W, S, G, r] with projections.
        shared_bias: [W, S, G].
        private_weight: [T, W, P, G, K], or [T, W, P, G, r].
        private_bias: [T, W, P, G].
        steps: from 1 to 65535.
        cell: "gated" or "cross".
        context: [steps, B, C], the states of another recurrence before each step, as columns that come first; None for C = 0.
        shared_projection: [W, M, G, K]; give both projections or none.
        private_projection: [T, W, N, G, K].
        return_states: return all states instead of the last one.
        recompute: compute a and g (with projections, z and y) again in the backward pass instead of keeping them: less memory, more time.
            The reference ignores it.
        backend: "auto", or a backend by name.

    Returns:
        [T, B, D], or with ``return_states`` [T, steps + 1, B, D], starting with x0. Under ``torch.autocast`` it has autocast's dtype.

    Raises:
        TypeError, ValueError: wrong dtype, device, shape or range.
        BackendUnavailable: the named backend cannot run here, or has no forward-mode derivatives (only ``reference`` has).

    Example: one task and one step of the cell without a gate, ``x0 + x0 * (W x0 + b)`` with W the identity and b = 0.
        >>> import torch
        >>> from dcrnn_fast.functional import cross_rnn
        >>> shared = torch.eye(2).view(1, 2, 1, 2), torch.zeros(1, 2, 1)  # weight [W=1, S=2, G=1, K=2], bias [W, S, G]
        >>> private = torch.empty(1, 1, 0, 1, 2), torch.empty(1, 1, 0, 1)  # no private units
        >>> cross_rnn(torch.tensor([[1.0, 2.0]]), *shared, *private, steps=1, cell="cross")
        tensor([[[2., 6.]]])
    """
    check_choice("cell", cell, tuple(GATES))
    check_count("steps", steps, maximum=MAX_STEPS)
    check_flag("return_states", return_states)
    check_flag("recompute", recompute)
    check_tensor("x0", x0, "floats [B, D]")
    tensors: tuple[Any, ...] = x0, shared_weight, shared_bias, private_weight, private_bias, context
    options = steps, cell, return_states, recompute
    if shared_projection is None and private_projection is None:
        return compute("cross_rnn", in_autocast(*tensors), options, backend)
    projections = {"shared_projection": shared_projection, "private_projection": private_projection}
    for name, projection in projections.items():
        if projection is None:
            raise ValueError(f"{name}: got None, expected a tensor: a cell of low rank has both projections")
    return compute("low_rank_cross_rnn", in_autocast(*tensors, shared_projection, private_projection), options, backend)
