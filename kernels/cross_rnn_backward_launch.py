"""Launches of cross_rnn's backward, from the last step to the first one.

If activations were kept, the backward stores da and dq of every step, and computes the weights' gradients in a few products at the end.
Otherwise it computes the activations of a step again just before it reads them, and stores da and dq of two steps.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
from torch import Tensor
from torch.library import wrap_triton

from . import tile_choice
from .cross_rnn_backward import cross_rnn_backward_start, cross_rnn_backward_step
from .cross_rnn_backward_context import cross_rnn_backward_context
from .cross_rnn_forward_launch import forward, launch_step
from .cross_rnn_problem import Problem
from .launch_options import on_device_of
from .param_gather_launch import sum_rows
from .weight_gradient import WeightGradient

START_UNITS = 64
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
    elif states.numel() and not states[0].is_contiguous():  # a slice of the output is read in place
        states = states.contiguous()
    walk = _Walk(problem, grad.contiguous(), states, activations.contiguous(), x0=x0, banks=banks, context=context)
    with on_device_of(problem.x0):
        walk.run()
    dx0 = walk.dx0.sum(0).to(problem.x0.dtype) if x0 else nothing(0)
    if not banks:
        return dx0, nothing(0), nothing(0), nothing(0), nothing(0), walk.dcontext
    bias_rows = (walk.sums.sum((1, 2)).unsqueeze(1) if p.R == p.D else walk.sums.sum(2)).transpose(2, 3).flatten(1, 2)
    weight, own_weight = sum_rows(walk.weights.rows(), problem.index, p.num_shared, p.num_private, problem.x0.dtype)
    bias, own_bias = sum_rows(bias_rows, problem.index, p.num_shared, p.num_private, problem.x0.dtype)
    return dx0, weight, bias, own_weight, own_bias, walk.dcontext


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
        self.slots = min(2, p.L) if self.recompute else p.L
        self.tile = tile_choice.config("backward", problem.sizes)
        self.row_tiles = triton.cdiv(p.B, self.tile.block_b)
        self.dx0, self.d = (empty(p.T, p.B, p.D, dtype=wide) for _ in range(2))
        self.gradients = empty(p.T, self.slots, p.B, p.G, p.D)
        self.sums = empty(p.T, p.L, self.row_tiles, p.G, p.D, dtype=wide)
        self.activations = empty(p.T, 1, p.B, p.G, p.D) if self.recompute else activations
        self.activations_stride = p.plane if self.recompute else p.L * p.plane
        self.dcontext = torch.empty_like(problem.context) if context and problem.context is not None else empty(0)
        self.weights = WeightGradient(self.gradients, states, problem.x0, problem.context, p.L, tied=p.R == p.D)

    def run(self) -> None:
        """Launch every step."""
        self._start()
        for step in reversed(range(self.problem.layout.L)):
            if step or self.want_x0:
                self._step(step)
            if self.want_context and (self.recompute or step == 0):
                self._context(step)
            if self.want_banks and self.recompute:
                self.weights.add(step, step + 1, step % self.slots)
        if self.want_banks and not self.recompute:
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

    def _of_step(self, step: int) -> dict[str, int]:
        """Where a step's activations and column sums begin, and the strides from task to task. Step -1 is read and written by no kernel."""
        p = self.problem.layout
        sums = self.row_tiles * p.G * p.D
        return {
            "activations_at": self._activations_at(step) if step >= 0 else 0, "activations_stride": self.activations_stride,
            "sums_at": max(step, 0) * sums, "sums_stride": p.L * sums, "gradients_stride": self.slots * p.plane,
        }  # fmt: skip

    def _start(self) -> None:
        p, problem = self.problem.layout, self.problem
        constants = problem.constants()
        wrap_triton(cross_rnn_backward_start)[self.row_tiles * triton.cdiv(p.D, START_UNITS), p.T](
            x0=problem.x0, grad=self.grad, activations=self.activations, dx0=self.dx0, gradients=self.gradients, bias_sums=self.sums,
            B=p.B, D=p.D, **self._grad(), **self._of_step(p.L - 1), gradients_at=(p.L - 1) % self.slots * p.plane,
            G=p.G, ALIGN=constants["ALIGN"], BLOCK_B=self.tile.block_b, BLOCK_D=START_UNITS, num_warps=8, enable_fp_fusion=False,
        )  # fmt: skip

    def _step(self, step: int) -> None:
        p, problem = self.problem.layout, self.problem
        wrap_triton(cross_rnn_backward_step)[p.tiles(self.tile.block_b, p.D, self.tile.block_d), p.T](
            x0=problem.x0, grad=self.grad, d=self.d, activations=self.activations, dx0=self.dx0, gradients=self.gradients,
            bias_sums=self.sums, **problem.weight_pointers(), **problem.counts(), first_row=step * p.step_rows,
            **self._grad(), state_at=step * p.size, **self._of_step(step - 1),
            read=step % self.slots * p.plane, write=(step - 1) % self.slots * p.plane,
            FIRST=step == 0, LAST=step == p.L - 1, STATES=problem.return_states, **problem.constants(), **self.tile.constants(),
        )  # fmt: skip

    def _context(self, step: int) -> None:
        """The context's gradient: of this step where activations are computed again, else of all steps in one launch."""
        p, problem = self.problem.layout, self.problem
        tile = tile_choice.config("context", problem.sizes)
        wrap_triton(cross_rnn_backward_context)[p.tiles(tile.block_b, p.C, tile.block_d), 1 if self.recompute else p.L](
            dcontext=self.dcontext, gradients=self.gradients, **problem.weight_pointers(), **problem.counts(), T=p.T,
            first_row=step * p.step_rows, rows_a_step=p.step_rows, context_at=p.context_at(step),
            read=step % self.slots * p.plane, gradients_stride=self.slots * p.plane, step_stride=p.plane,
            **problem.constants(), **tile.constants(),
        )  # fmt: skip
