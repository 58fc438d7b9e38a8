"""Launches of cross_rnn's backward, from the last step to the first one.

The weights are gathered once, [T, R, G, K]: a product's loop then reads them without the index. If activations were kept, the backward
stores d, da and dq of every step, and computes the gradients of x0 and the weights from them at the end. Otherwise it computes the
activations of a step again just before it reads them, stores da and dq of two steps, and adds up x0's gradient step by step.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from . import launch_options, tile_choice
from .cross_rnn_backward import cross_rnn_backward_start, cross_rnn_backward_step
from .cross_rnn_backward_inputs import cross_rnn_backward_context, cross_rnn_backward_x0
from .cross_rnn_forward_launch import forward, launch_step
from .cross_rnn_problem import Problem
from .launch_options import divide_up, on_device_of
from .param_gather_launch import readers_of, sum_parts
from .weight_gradient import StepGradients, WeightGradient

START_UNITS = 32
"""Units of a tile of the first launch, which has no product."""


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
        self.tile = tile_choice.config("backward", problem.sizes)
        self.row_tiles = divide_up(p.B, self.tile.block_b)
        self.gradients = StepGradients(p, problem.x0, slots=min(2, p.L) if self.recompute else p.L)
        self.d_slots = p.L - 1 if x0 and not self.recompute else min(1, p.L - 1)
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
        launch_options.launch(
            cross_rnn_backward_start, (self.row_tiles * divide_up(p.D, START_UNITS), p.T),
            grad=self.grad, B=p.B, D=p.D, **self._grad(), **self._gate(p.L - 1), G=p.G, ALIGN=constants["ALIGN"],
            BLOCK_B=self.tile.block_b, BLOCK_D=START_UNITS, num_warps=8, enable_fp_fusion=False,
        )  # fmt: skip

    def _step(self, step: int) -> None:
        p, problem = self.problem.layout, self.problem
        launch_options.launch(
            cross_rnn_backward_step, (p.tiles(self.tile.block_b, p.D, self.tile.block_d), p.T),
            grad=self.grad, d=self.d, B=p.B, D=p.D, C=p.C, **self._grad(), state_at=step * p.size,
            d_read=step % self.d_slots * p.size, d_write=(step - 1) % self.d_slots * p.size, d_stride=self.d_slots * p.size,
            **self._gate(step - 1), **self._weight(step),
            LAST=step == p.L - 1, STATES=problem.return_states, **problem.constants(), **self.tile.constants(),
        )  # fmt: skip

    def _x0(self) -> None:
        p, problem = self.problem.layout, self.problem
        tile = tile_choice.config("inputs", problem.sizes)
        one = p.L == 1
        launch_options.launch(
            cross_rnn_backward_x0, (p.tiles(tile.block_b, p.D, tile.block_d),),
            dx0=self.dx0, gradients=self.gradients.buffer, grad=self.grad, d=self.grad if one else self.d, activations=self.activations,
            terms=self.terms, B=p.B, D=p.D, C=p.C, T=p.T, steps=p.L, **self._weight(0), **self._grad(),
            d_stride=self.d_slots * p.size, activations_stride=self.activations_stride,
            ONE=one, STATES=problem.return_states, ADDED=self._adds, **problem.constants(), **tile.constants(),
        )  # fmt: skip

    def _context(self, first: int, count: int) -> None:
        """The context's gradient of ``count`` steps in one launch."""
        p, problem = self.problem.layout, self.problem
        tile = tile_choice.config("inputs", problem.sizes)
        launch_options.launch(
            cross_rnn_backward_context, (p.tiles(tile.block_b, p.C, tile.block_d), count),
            dcontext=self.dcontext, gradients=self.gradients.buffer, B=p.B, D=p.D, C=p.C, T=p.T, context_at=p.context_at(first),
            **self._weight(first), read_step=p.plane, weight_step=p.step_rows * p.G * (p.C + p.D),
            **problem.constants(), **tile.constants(),
        )  # fmt: skip
