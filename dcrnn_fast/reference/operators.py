"""The two operators in plain PyTorch, for any device, floating dtype and order of derivative. Every kernel is tested against them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..sharing import Cell


def param_gather(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    """Collect each task's parameter rows from the bank that all tasks share and from the task's own.

    Row r of task t is ``shared[index[t, r]]`` where ``index[t, r] < S``, else ``private[t, index[t, r] - S]``.

    Args:
        shared: [S, ...].
        private: [T, P, ...], same dtype and trailing shape.
        index: int32 or int64 [T, R], values in [0, S + P), repeats allowed.

    Returns:
        [T, R, ...].

    Example:
        >>> import torch
        >>> from dcrnn_fast.reference import param_gather
        >>> shared, private = torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [4.0]])  # S = 2, T = 2, P = 1
        >>> param_gather(shared, private, torch.tensor([[0, 2], [2, 1]]))
        tensor([[1., 3.],
                [4., 2.]])
    """
    if not len(index):
        return private.new_empty(*index.shape, *shared.shape[1:])
    banks = [torch.cat([shared, own])[rows] for own, rows in zip(private, index.long(), strict=True)]
    return torch.stack(banks)


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
) -> Tensor:
    """The cross layer as the cell of a recurrence, for every task.

    From h = x0, ``steps`` times, with u = [context at this step, h]::

        a  = W u + b                  cross projection
        g  = sigmoid(V u + c)         gate; 1 for cell="cross"
        h' = h + g * x0 * a

    With a projection, the cell has low rank: r columns stand between u and the units (DCN-v2's low-rank form, Wang et al., WWW 2021)::

        z  = P u,  y = Q u            projections to r columns, one for the cross projection and one for the gate
        a  = W z + b
        g  = sigmoid(V y + c)

    From d = dL/dh', the backward of one step is, with q the argument of sigmoid::

        da = d * g * x0               dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
        du = W^T da + V^T dq          dW += da^T u                         dV += dq^T u
        dh = d + du's columns of h    dcontext = du's columns of the context

    and of low rank::

        dz = W^T da                   dy = V^T dq
        du = P^T dz + Q^T dy          dW += da^T z    dV += dq^T y    dP += dz^T u    dQ += dy^T u

    z and y are enough to compute a, g and every state again.

    Args:
        x0: [B, D], the start state, which also enters every step; the same for all tasks.
        shared_weight: [W, S, G, K] with K = C + D, or [W, S, G, r] with a projection, of the first S units, for all tasks. W is 1 (tied),
            or the number of steps (untied). Vectors 0 and 1 of a unit are its rows of W and V.
        shared_bias: [W, S, G]; values 0 and 1 of a unit are its b and c.
        private_weight: [T, W, P, G, K], or [T, W, P, G, r], of the other P = D - S units, for each task.
        private_bias: [T, W, P, G].
        steps: L >= 1.
        cell: "gated" (G = 2) or "cross" (G = 1).
        context: [steps, B, C], the state of an upstream recurrence before each step; its columns come first in a row.
        shared_projection: [W, M, G, K], of the first M columns of z and y; vectors 0 and 1 of a row are rows of P and Q. None,
            like the next one, for the full cell.
        private_projection: [T, W, N, G, K], of the other N = r - M columns.
        return_states: return every state instead of the last.

    Returns:
        [T, B, D], or with ``return_states`` [T, steps + 1, B, D], the start state first.

    Example: one task and one step without a gate, with W the identity and b = 0.
        >>> import torch
        >>> from dcrnn_fast.reference import cross_rnn
        >>> shared = torch.eye(2).view(1, 2, 1, 2), torch.zeros(1, 2, 1)  # weight [W, S, G, K], bias [W, S, G]
        >>> private = torch.empty(1, 1, 0, 1, 2), torch.empty(1, 1, 0, 1)  # no private units
        >>> cross_rnn(torch.tensor([[1.0, 2.0]]), *shared, *private, steps=1, cell="cross")
        tensor([[[2., 6.]]])
    """
    if (shared_projection is None) != (private_projection is None):
        raise ValueError("shared_projection, private_projection: got one of them, expected both, or none")
    (batch, dim), (tasks, weight_steps, _, gates) = x0.shape, private_bias.shape
    # [T, W, D, G, K] -> [W, G, T, D, K]: contiguous operands for the batched product
    weight = _of_tasks(shared_weight, private_weight).permute(1, 3, 0, 2, 4).contiguous()
    bias = _of_tasks(shared_bias, private_bias).permute(1, 3, 0, 2).unsqueeze(3)
    projection = None
    if shared_projection is not None and private_projection is not None:
        # [T, W, r, G, K] -> [W, T, G * r, K]: one product for both gate vectors
        projection = _of_tasks(shared_projection, private_projection).permute(1, 0, 3, 2, 4).contiguous().flatten(2, 3)

    h = x0.expand(tasks, batch, dim)
    states = [h]
    for step in range(steps):
        w, b = weight[step % weight_steps], bias[step % weight_steps]  # [G, T, D, K], [G, T, 1, D]
        u = h if context is None else torch.cat([context[step].expand(tasks, -1, -1), h], dim=-1)  # [T, B, K]
        if projection is None:
            inputs = [u] * gates
        else:
            inputs = list(torch.bmm(u, projection[step % weight_steps].mT).chunk(gates, dim=-1))  # z and y, [T, B, r]
        a = torch.baddbmm(b[0], inputs[0], w[0].mT)
        update = x0 * a if cell == "cross" else torch.sigmoid(torch.baddbmm(b[1], inputs[1], w[1].mT)) * x0 * a
        h = h + update
        states.append(h)
    return torch.stack(states, dim=1) if return_states else h


def _of_tasks(shared: Tensor, private: Tensor) -> Tensor:
    """Each task's rows, shared [W, S, ...] before private [T, W, P, ...]: [T, W, S + P, ...]."""
    return torch.cat([shared.expand(private.shape[0], *shared.shape), private], dim=2)
