"""The launches of cross_rnn's backward, from the last step to the first one, and dW and dV by the library's products.

The weights are gathered once, [T, R, G, K]: a product's loop then reads them without the index. If activations were kept, the backward
stores d, da and dq of every step, and computes the gradients of x0 and the weights from them at the end. Otherwise it computes the
activations of a step again just before it reads them, stores da and dq of two steps, and adds up x0's gradient step by step.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from . import common
from .common import divide_up, on_device_of
from .cross_rnn import Layout, Problem, forward, launch_step
from .cross_rnn_backward import (
    INPUT_TILES,
    START_UNITS,
    TILES,
    cross_rnn_backward_context,
    cross_rnn_backward_start,
    cross_rnn_backward_step,
    cross_rnn_backward_x0,
)
from .param_gather import readers_of, sum_parts


def backward(
    problem: Problem, grad: Tensor, states: Tensor, activations: Tensor, *, x0: bool, banks: bool, context: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x0, the four banks and the context that are wanted; [0] for the others.

    ``states`` [T, L - 1, B, D] are those before every step but the first one. States and activations that were not kept come as [0].
    """
    p, nothing = problem.layout, problem.x0.new_empty
    if p.B == 0 or p.T == 0:
        zeros = [torch.zeros_like(bank) if banks else nothing(0) for bank in problem.banks]
        dcontext = torch.zeros_like(problem.context) if context and problem.context is not None else nothing(0)
        return torch.zeros_like(problem.x0) if x0 else nothing(0), zeros[0], zeros[1], zeros[2], zeros[3], dcontext
    if states.dim() == 1:
        states = forward(replace(problem, return_states=False), keep_states=True, keep_activations=False)[1]
    elif states.numel() and not (states[0].is_contiguous() and states.stride(0) in (states[0].numel(), (p.L + 1) * p.size)):
        states = states.contiguous()  # a slice of the output is read in place
    walk = _Walk(problem, grad.contiguous(), states, activations.contiguous(), x0=x0, banks=banks, context=context)
    with on_device_of(problem.x0):
        walk.run()
    if not banks:
        return walk.dx0, nothing(0), nothing(0), nothing(0), nothing(0), walk.dcontext
    bias_rows = walk.sums.sum((1, 2)) if p.R == p.D else walk.sums.sum(2).flatten(1, 2)
    readers = readers_of(problem.index, p.num_shared, p.num_private)
    rows, first = walk.weights.rows()
    weight, own_weight, bias, own_bias = sum_parts(rows, readers, problem.x0.dtype, first=first, bias=bias_rows)
    return walk.dx0, weight, bias, own_weight, own_bias, walk.dcontext


class _Walk:
    """The buffers of one backward and its launches."""

    def __init__(
        self, problem: Problem, grad: Tensor, states: Tensor, activations: Tensor, *, x0: bool, banks: bool, context: bool
    ) -> None:
        p, empty = problem.layout, problem.x0.new_empty
        wide = torch.float64 if problem.x0.dtype == torch.float64 else torch.float32
        self.problem, self.grad, self.states = problem, grad, states
        self.want_x0, self.want_banks, self.want_context = x0, banks, context and p.C > 0
        self.recompute = activations.dim() == 1
        self.tile = problem.tile(TILES, rows=p.B * p.T, columns=p.D)
        self.row_tiles = divide_up(p.B, self.tile["BLOCK_B"])
        self.gradients = StepGradients(p, problem.x0, slots=min(2, p.L) if self.recompute else p.L)
        self.d_slots = p.L - 1 if x0 and not self.recompute else min(2, p.L - 1)  # a launch that is timed reads what it did not write
        self.d = empty(p.T, self.d_slots, p.B, p.D)
        self.terms = empty(p.T, p.B, p.D, dtype=wide) if self._adds else empty(0, dtype=wide)
        self.sums = empty(p.T, p.L, self.row_tiles, p.D, p.G, dtype=wide)
        self.activations = empty(p.T, 1, p.B, p.G, p.D) if self.recompute else activations
        self.activations_stride = p.plane if self.recompute else p.L * p.plane
        self.dx0 = torch.empty_like(problem.x0) if x0 else empty(0)
        self.dcontext = torch.empty_like(problem.context) if context and problem.context is not None else empty(0)
        self.weights = WeightGradient(problem, states, self.gradients)

    @property
    def _adds(self) -> bool:
        """Whether x0's gradient is added up step by step, because no activations are kept."""
        return self.want_x0 and self.recompute

    def run(self) -> None:
        """Launch every step."""
        self._start()
        for step in reversed(range(self.problem.layout.L)):
            if step:
                self._step(step)
            elif self.want_x0:
                self._x0()
            if self.recompute:
                if self.want_context:
                    self._context(step, 1)
                if self.want_banks:
                    self.weights.add(step)
        if not self.recompute:
            if self.want_context:  # the first step's da and dq lie apart
                self._context(0, 1)
                if self.problem.layout.L > 1:
                    self._context(1, self.problem.layout.L - 1)
            if self.want_banks:
                self.weights.add_all()

    def _activations_at(self, step: int) -> int:
        """Where a step's activations begin, once they are there."""
        p = self.problem.layout
        if not self.recompute:
            return step * p.plane
        launch_step(
            self.problem, step, states=self.states, states_stride=self.states.stride(0) if step else 0, read=(step - 1) * p.size, write=0,
            out=None, activations=self.activations, activations_at=0, activations_stride=self.activations_stride,
        )  # fmt: skip
        return 0

    def _grad(self) -> dict[str, int]:
        """Where the gradient of the last state begins in ``grad``, and the stride from task to task."""
        p, every = self.problem.layout, self.problem.return_states
        return {"grad_at": p.L * p.size if every else 0, "grad_stride": (p.L + 1) * p.size if every else p.size}

    def _gate(self, step: int) -> dict[str, object]:
        """Where the gate part of a step reads its activations and writes its da|dq and column sums; strides are from task to task."""
        p = self.problem.layout
        sums = self.row_tiles * p.G * p.D
        write, write_stride = self.gradients.place(step)
        return {
            "x0": self.problem.x0, "activations": self.activations, "terms": self.terms, "gradients": self.gradients.buffer,
            "bias_sums": self.sums, "activations_at": self._activations_at(step), "activations_stride": self.activations_stride,
            "write": write, "write_stride": write_stride, "sums_at": step * sums, "sums_stride": p.L * sums, "ADD": self._adds,
        }  # fmt: skip

    def _weight(self, step: int) -> dict[str, object]:
        """Where the gathered weights of a step begin, and where its da|dq are read."""
        p = self.problem.layout
        row = p.G * (p.C + p.D)
        read, read_stride = self.gradients.place(step)
        weight = {"weight": self.problem.backward_weights, "weight_at": step * p.step_rows * row, "weight_stride": p.R * row}
        return {**weight, "read": read, "read_stride": read_stride}

    def _start(self) -> None:
        p, problem = self.problem.layout, self.problem
        constants = problem.constants()
        common.launch(
            cross_rnn_backward_start, (self.row_tiles * divide_up(p.D, START_UNITS), p.T),
            grad=self.grad, B=p.B, D=p.D, **self._grad(), **self._gate(p.L - 1), G=p.G, ALIGN=constants["ALIGN"],
            BLOCK_B=self.tile["BLOCK_B"], BLOCK_D=START_UNITS, num_warps=8, enable_fp_fusion=False,
        )  # fmt: skip

    def _step(self, step: int) -> None:
        p, problem = self.problem.layout, self.problem
        common.launch(
            cross_rnn_backward_step, p.grid(self.tile, p.D, p.T),
            grad=self.grad, d=self.d, B=p.B, D=p.D, C=p.C, **self._grad(), state_at=step * p.size,
            d_read=step % self.d_slots * p.size, d_write=(step - 1) % self.d_slots * p.size, d_stride=self.d_slots * p.size,
            **self._gate(step - 1), **self._weight(step),
            LAST=step == p.L - 1, STATES=problem.return_states, **problem.constants(), **self.tile,
        )  # fmt: skip

    def _x0(self) -> None:
        p, problem = self.problem.layout, self.problem
        tile = problem.tile(INPUT_TILES, rows=p.B, columns=p.D)
        one = p.L == 1
        common.launch(
            cross_rnn_backward_x0, p.grid(tile, p.D),
            dx0=self.dx0, gradients=self.gradients.buffer, grad=self.grad, d=self.grad if one else self.d, activations=self.activations,
            terms=self.terms, B=p.B, D=p.D, C=p.C, T=p.T, steps=p.L, **self._weight(0), **self._grad(),
            d_stride=self.d_slots * p.size, activations_stride=self.activations_stride,
            ONE=one, STATES=problem.return_states, ADDED=self._adds, **problem.constants(), **tile,
        )  # fmt: skip

    def _context(self, first: int, count: int) -> None:
        """The context's gradient of ``count`` steps in one launch."""
        p, problem = self.problem.layout, self.problem
        tile = problem.tile(INPUT_TILES, rows=p.B * count, columns=p.C)
        common.launch(
            cross_rnn_backward_context, p.grid(tile, p.C, count),
            dcontext=self.dcontext, gradients=self.gradients.buffer, B=p.B, D=p.D, C=p.C, T=p.T, context_at=p.context_at(first),
            **self._weight(first), read_step=p.plane, weight_step=p.step_rows * p.G * (p.C + p.D),
            **problem.constants(), **tile,
        )  # fmt: skip


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
