"""dW and dV of the Triton backward: library products over the rows, with the steps in the batch dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from .cross_rnn_problem import Layout, Problem


class StepGradients:
    """da|dq of the steps, [B, D, G] of each task, in one buffer.

    With a slot for each step, those of the first step, [T, B, D, G], come first, and those of the others, [T, L - 1, B, D, G], follow: the
    states before the others lie in this order too, so one product of T * (L - 1) matrices takes both as they are. With fewer slots the
    buffer is [T, slots, B, D, G].
    """

    def __init__(self, layout: Layout, x0: Tensor, slots: int) -> None:
        self.layout, self.slots = layout, slots
        self.buffer = x0.new_empty(layout.T * slots * layout.plane)

    def place(self, step: int) -> tuple[int, int]:
        """Where a step's da|dq begin, and the stride from task to task, in values."""
        p = self.layout
        if self.slots < p.L:
            return step % self.slots * p.plane, self.slots * p.plane
        return (p.T * p.plane + (step - 1) * p.plane, (p.L - 1) * p.plane) if step else (0, p.plane)

    def of_step(self, step: int) -> Tensor:
        """A step's, transposed: [T, D * G, B]."""
        p = self.layout
        if self.slots < p.L:
            return self.buffer.view(p.T, self.slots, p.B, p.G * p.D)[:, step % self.slots].mT
        return self.after_first()[:, step - 1] if step else self.buffer[: p.T * p.plane].view(p.T, p.B, p.G * p.D).mT

    def after_first(self) -> Tensor:
        """Those of all steps but the first, transposed: [T, L - 1, D * G, B]."""
        p = self.layout
        return self.buffer[p.T * p.plane :].view(p.T, p.L - 1, p.B, p.G * p.D).mT


class WeightGradient:
    """[da | dq]^T [context, h] of each step; those of tied weights are parts of a sum.

    ``states`` [T, L - 1, B, D] are those before every step but the first, which reads x0.
    """

    def __init__(self, problem: Problem, states: Tensor, gradients: StepGradients) -> None:
        self.problem, self.states, self.gradients = problem, states, gradients
        self.tied = problem.layout.R == problem.layout.D
        self.parts: list[Tensor | None] = [None] * (1 if self.tied else problem.layout.L)
        self.later: Tensor | None = None
        """For tied weights the steps that are not in ``parts`` yet, [T, steps, D * G, K]."""

    def add(self, step: int) -> None:
        """Add one step."""
        p, problem = self.problem.layout, self.problem
        left = self.gradients.of_step(step)
        h = problem.x0.expand(p.T, -1, -1) if step == 0 else self.states[:, step - 1]
        product = torch.bmm(left, h)
        if problem.context is not None:
            product = torch.cat([torch.bmm(left, problem.context[step].expand(p.T, -1, -1)), product], dim=2)
        place = 0 if self.tied else step
        total = self.parts[place]  # a product in a lower precision than float32 is rounded once, and their sum is not
        self.parts[place] = product if total is None else total.to(torch.promote_types(total.dtype, torch.float32)) + product

    def add_all(self) -> None:
        """Add all steps, the first one by itself."""
        self.add(0)
        p, problem = self.problem.layout, self.problem
        if p.L == 1:
            return
        left = self.gradients.after_first()
        if problem.return_states:  # the states are a slice of the output, so the tasks are no part of the batch
            products = torch.stack([torch.bmm(left[task], self.states[task]) for task in range(p.T)])
        else:
            products = torch.bmm(left.flatten(0, 1), self.states.flatten(0, 1)).unflatten(0, (p.T, p.L - 1))
        if problem.context is not None:
            of_context = torch.stack([torch.bmm(left[task], problem.context[1:]) for task in range(p.T)])
            products = torch.cat([of_context, products], dim=3)
        if self.tied:
            self.later = products
        else:
            self.parts[1:] = products.unbind(1)

    def rows(self) -> tuple[Tensor, Tensor | None]:
        """What is added for each row, in the index's order: [T, parts, R, G, K], and one more part [T, R, G, K] or None."""
        p = self.problem.layout
        found = [part for part in self.parts if part is not None]
        rows = (found[0] if len(found) == 1 else torch.cat(found, dim=1)).view(p.T, p.R, p.G, p.C + p.D)
        return (rows.unsqueeze(1), None) if self.later is None else (self.later.view(p.T, p.L - 1, p.R, p.G, p.C + p.D), rows)
