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
    index: Tensor,
    *,
    steps: int,
    cell: Cell = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    shared_projection: Tensor | None = None,
    private_projection: Tensor | None = None,
    projection_index: Tensor | None = None,
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
        shared_weight: [S, G, K] with K = C + D, or [S, G, r] with a projection; vectors 0 and 1 of a unit are its rows of W and V.
        shared_bias: [S, G]; values 0 and 1 of a unit are its b and c.
        private_weight: [T, P, G, K], or [T, P, G, r].
        private_bias: [T, P, G].
        index: int32 [T, R] as in :func:`param_gather`; R = D (tied), or R = steps * D with row l * D + d for unit d at step l.
        steps: L >= 1.
        cell: "gated" (G = 2) or "cross" (G = 1).
        context: [steps, B, C], the state of an upstream recurrence before each step; its columns come first in a row.
        return_states: return every state instead of the last.
        shared_projection: [M, G, K]; vectors 0 and 1 of a row are rows of P and Q. None, like the next two, for the full cell.
        private_projection: [T, N, G, K].
        projection_index: int32 [T, r] (tied), or [T, steps * r] with row l * r + j for column j of z at step l (untied, as ``index``).

    Returns:
        [T, B, D], or with ``return_states`` [T, steps + 1, B, D], the start state first.

    Example: one task and one step without a gate, with W the identity and b = 0.
        >>> import torch
        >>> from dcrnn_fast.reference import cross_rnn
        >>> shared = torch.eye(2).unsqueeze(1), torch.zeros(2, 1)  # weight [S, G, K] = [2, 1, 2], bias [2, 1]
        >>> private = torch.empty(1, 0, 1, 2), torch.empty(1, 0, 1)  # no private rows
        >>> cross_rnn(torch.tensor([[1.0, 2.0]]), *shared, *private, torch.tensor([[0, 1]]), steps=1, cell="cross")
        tensor([[[2., 6.]]])
    """
    tasks, rows = index.shape
    batch, dim = x0.shape
    weight_steps, gates = rows // dim, shared_weight.shape[1]
    # [T, W * D, G, K] -> [W, G, T, D, K]: contiguous operands for the batched product
    weight = param_gather(shared_weight, private_weight, index).unflatten(1, (weight_steps, dim)).permute(1, 3, 0, 2, 4).contiguous()
    bias = param_gather(shared_bias, private_bias, index).unflatten(1, (weight_steps, dim)).permute(1, 3, 0, 2).unsqueeze(3)
    projection, parts = None, (shared_projection, private_projection, projection_index)
    if any([part is None for part in parts]) and any([part is not None for part in parts]):
        raise ValueError("shared_projection, private_projection, projection_index: got some of them, expected all three, or none")
    if shared_projection is not None and private_projection is not None and projection_index is not None:
        gathered = param_gather(shared_projection, private_projection, projection_index)
        # [T, W * r, G, K] -> [W, T, G * r, K]: one product for both gate vectors
        projection = gathered.unflatten(1, (weight_steps, -1)).permute(1, 0, 3, 2, 4).contiguous().flatten(2, 3)

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
