"""dW and dV of the Triton backward: library products over the rows of several steps."""

from __future__ import annotations

import torch
from torch import Tensor


class WeightGradient:
    """The sum over the steps l of [da_l | dq_l]^T [context_l, h_l] for tied weights, and one product for each step for untied weights.

    ``gradients`` [T, slots, B, G, D] hold da|dq, ``states`` [T, L - 1, B, D] those before every step but the first, which reads x0.
    """

    def __init__(self, gradients: Tensor, states: Tensor, x0: Tensor, context: Tensor | None, steps: int, *, tied: bool) -> None:
        self.gradients, self.states, self.x0, self.context = gradients, states, x0, context
        self.steps, self.tied = steps, tied
        self.parts: list[list[Tensor | None]] = [[None, None] for _ in range(1 if tied else steps)]

    def add(self, first: int, last: int, slot: int) -> None:
        """Add the steps from ``first`` up to ``last``, whose da|dq begin in ``slot``. The first step reads x0 and is added alone."""
        tasks = self.gradients.shape[0]
        left = self.gradients[:, slot : slot + last - first].flatten(3).flatten(1, 2).mT
        h = self.x0.expand(tasks, -1, -1) if first == 0 else self.states[:, first - 1 : last - 1].flatten(1, 2)
        part = self.parts[0 if self.tied else first]
        part[1] = _add(part[1], torch.bmm(left, h))
        if self.context is not None:
            u = self.context[first:last].flatten(0, 1).expand(tasks, -1, -1)
            part[0] = _add(part[0], torch.bmm(left, u))

    def add_all(self) -> None:
        """All steps, in as few products as their weights allow."""
        self.add(0, 1, 0)
        if self.tied and self.steps > 1:
            self.add(1, self.steps, 1)
        elif not self.tied:
            for step in range(1, self.steps):
                self.add(step, step + 1, step)

    def rows(self) -> Tensor:
        """[T, R, G, K] in the index's order of rows, in float32 (or float64)."""
        gates, dim = self.gradients.shape[3:]
        found = [torch.cat([part for part in parts if part is not None], dim=2) for parts in self.parts]
        return torch.stack(found, dim=1).unflatten(2, (gates, dim)).transpose(2, 3).flatten(1, 2)


def _add(total: Tensor | None, product: Tensor) -> Tensor:
    """The sum in float32 (or float64). A product in a lower precision is rounded once; their sum is not rounded to that precision."""
    product = product.to(torch.promote_types(product.dtype, torch.float32))
    return product if total is None else total + product
