"""Launches of the low-rank cell: its forward, and its backward with the library's products for the gradients of the weights.

Weights, biases and projections are gathered once a call, into [T, R, G, r], [T, R, G] and [T, W * r, G, K].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dcrnn_fast.errors import BackendUnavailable

from . import launch_options, tile_choice
from .cross_rnn_problem import Problem
from .launch_options import alignment, divide_up, on_device_of
from .low_rank_backward import low_rank_backward, low_rank_inputs
from .low_rank_forward import low_rank_forward, low_rank_states
from .param_gather_launch import gather_low_rank, readers_of, sum_parts


@dataclass(frozen=True)
class LowRankProblem(Problem):
    """The arguments of low_rank_cross_rnn and of its backward."""

    projection: tuple[Tensor, Tensor, Tensor]
    """The shared and the private projections, and their index."""
    rank: int

    @classmethod
    def of(cls, arguments: Any) -> LowRankProblem:
        """The problem of an operator's arguments, which have the names of its schema."""
        cell, a = Problem.of(arguments), arguments
        p = cell.layout
        rank = int(a.projection_index.shape[1] // (p.R // p.D)) if p.D else 1  # a graph fixes it: the kernels are compiled for it
        values = 2 * rank * (p.C + p.D)
        if isinstance(values, int) and values >= 2**31:  # a traced graph may leave it open
            raise BackendUnavailable(
                f"backend='triton' counts the values of a step's projection in 32 bits: got rank {rank} and {p.C + p.D} columns, expected "
                "less than 2**30 in all. Use backend='reference'"
            )
        projection = a.shared_projection, a.private_projection, a.projection_index
        return cls(**{**vars(cell), "sizes": replace(cell.sizes, columns=rank)}, projection=projection, rank=rank)

    @property
    def tied(self) -> bool:
        """Whether all steps have the same weights."""
        return self.layout.R == self.layout.D

    @cached_property
    def gathered(self) -> dict[str, Tensor]:
        """What all launches read: the gathered weights and projections, rounded for tf32, and the biases."""
        return gather_low_rank(self.banks, self.index, self.projection, self.layout.G, self.rank, tf32=self.precision == "tf32")

    def tile_constants(self, tile: tile_choice.Config) -> dict[str, Any]:
        """What every kernel is compiled for. The compiler may not fuse multiplications and additions by itself."""
        p = self.layout
        return {
            "B": p.B, "D": p.D, "steps": p.L,
            "G": p.G, "RANK": self.rank, "TIED": self.tied, "SLICES": divide_up(self.rank, tile.block_k),
            "ALIGN": alignment((p.D, p.C), self.x0), "PRECISION": self.precision, **tile.constants(),
            "enable_fp_fusion": False,
        }  # fmt: skip


def low_rank_cross_rnn(problem: LowRankProblem, *, keep_activations: bool) -> tuple[Tensor, Tensor]:
    """The output, and z and y or [0]."""
    p, x0, every = problem.layout, problem.x0, problem.return_states
    out = x0.new_empty(p.T, p.L + 1, p.B, p.D) if every else x0.new_empty(p.T, p.B, p.D)
    activations = x0.new_empty(p.T, p.L if keep_activations else 1, p.B, p.G, problem.rank)
    if every:
        out[:, 0] = x0
    if out.numel():
        tile = tile_choice.config("low_rank_forward", problem.sizes)
        context = problem.context
        with on_device_of(x0):
            launch_options.launch(
                low_rank_forward, (divide_up(p.B, tile.block_b), p.T),
                x0=x0, context=x0 if context is None else context, out=out, activations=activations,
                **problem.gathered, C=p.C, out_stride=(p.L + 1) * p.size if every else p.size, out_step=p.size if every else 0,
                HAS_CONTEXT=p.C > 0, SAVE=keep_activations, **problem.tile_constants(tile),
            )  # fmt: skip
    return out, activations if keep_activations else x0.new_empty(0)


def low_rank_cross_rnn_backward(
    problem: LowRankProblem, grad: Tensor, activations: Tensor, *, x0: bool, banks: bool, context: bool, projections: bool
) -> tuple[Tensor, ...]:
    """The gradients of x0, the four banks, the context and the two banks of projections that are wanted; [0] for the others."""
    p, upstream = problem.layout, problem.context

    def nothing(count: int = 1) -> list[Tensor]:
        return [problem.x0.new_empty(0) for _ in range(count)]  # each its own: an operator's results may not share memory

    wanted = [(problem.x0, x0), *((bank, banks) for bank in problem.banks), (upstream, context)]
    wanted += [(bank, projections) for bank in problem.projection[:2]]
    if p.B == 0 or p.T == 0 or not any(want for _, want in wanted):
        return tuple(torch.zeros_like(tensor) if want and tensor is not None else nothing()[0] for tensor, want in wanted)
    if activations.dim() == 1:
        activations = low_rank_cross_rnn(replace(problem, return_states=False), keep_activations=True)[1]
    walk = _Walk(problem, grad.contiguous(), activations.contiguous(), x0=x0, banks=banks)
    with on_device_of(problem.x0):
        walk.run()
        dx0 = [walk.input_gradient(problem.x0, 1)] if x0 else nothing()
        dcontext = [walk.input_gradient(upstream, p.L)] if context and upstream is not None else nothing()
    of_banks = walk.bank_gradients() if banks else nothing(4)
    return *dx0, *of_banks, *dcontext, *(walk.projection_gradients() if projections else nothing(2))


class _Walk:
    """The buffers of one backward and its launches."""

    def __init__(self, problem: LowRankProblem, grad: Tensor, activations: Tensor, *, x0: bool, banks: bool) -> None:
        p, empty, like = problem.layout, problem.x0.new_empty, problem.x0
        wide = torch.promote_types(like.dtype, torch.float32)
        self.problem, self.grad, self.activations, self.want_x0, self.want_banks = problem, grad, activations, x0, banks
        self.tile = tile_choice.config("low_rank_backward", problem.sizes)
        self.row_tiles = divide_up(p.B, self.tile.block_b)
        self.d = empty(p.T, p.B, p.D) if p.L > 2 else empty(0)
        self.terms = empty(p.T, p.B, p.D, dtype=wide) if x0 else empty(0, dtype=wide)
        self.gradients = empty(p.T, p.L, p.B, p.G, p.D) if banks else empty(0)
        self.z_gradients = empty(p.L, p.T, p.B, p.G, problem.rank)
        self.sums = empty(p.T, p.L, self.row_tiles, p.D, p.G, dtype=wide) if banks else empty(0, dtype=wide)

    @property
    def _grads(self) -> dict[str, Any]:
        p, every = self.problem.layout, self.problem.return_states
        return {"grad": self.grad, "grad_stride": (p.L + 1) * p.size if every else p.size, "STATES": every}

    def run(self) -> None:
        """All steps."""
        p, problem = self.problem.layout, self.problem
        launch_options.launch(
            low_rank_backward, (self.row_tiles, p.T),
            x0=problem.x0, activations=self.activations, d=self.d, terms=self.terms, gradients=self.gradients,
            z_gradients=self.z_gradients, bias_sums=self.sums, **problem.gathered, **self._grads, C=p.C,
            X0=self.want_x0, BANKS=self.want_banks, **problem.tile_constants(self.tile),
        )  # fmt: skip

    def input_gradient(self, given: Tensor, steps: int) -> Tensor:
        """The gradient of x0, or of all steps of the context."""
        p, problem = self.problem.layout, self.problem
        tile = tile_choice.config("low_rank_forward", problem.sizes)
        result = torch.empty_like(given)
        launch_options.launch(
            low_rank_inputs, (p.tiles(tile.block_b, given.shape[-1], tile.block_d), steps),
            result=result, z_gradients=self.z_gradients, terms=self.terms, projection=problem.gathered["projection"], **self._grads,
            C=p.C, T=p.T, X0=given is problem.x0, **problem.tile_constants(tile),
        )  # fmt: skip
        return result

    def bank_gradients(self) -> list[Tensor]:
        """Of the shared weight, the shared bias, the private weight and the private bias."""
        p, problem = self.problem.layout, self.problem
        # a product for each gate vector, with the tasks and steps as its batch: da^T z and dq^T y
        products = [
            torch.bmm(self.gradients[:, :, :, g].flatten(0, 1).mT, self.activations[:, :, :, g].flatten(0, 1)).unflatten(0, (p.T, p.L))
            for g in range(p.G)
        ]
        weights = self._parts(torch.stack(products, dim=3))
        biases = self.sums.sum((1, 2)) if problem.tied else self.sums.sum(2).flatten(1, 2)
        readers = readers_of(problem.index, p.num_shared, p.num_private)
        weight, own_weight, bias, own_bias = sum_parts(weights, readers, problem.x0.dtype, bias=biases)
        return [weight, bias, own_weight, own_bias]

    def projection_gradients(self) -> list[Tensor]:
        """Of the shared and of the private projections."""
        p, problem, x0 = self.problem.layout, self.problem, self.problem.x0
        left = self.z_gradients.flatten(3).mT  # [L, T, G * r, B]
        products, first = torch.bmm(left[0], x0.expand(p.T, -1, -1)).unsqueeze(0), None
        if p.L > 1:
            later = torch.bmm(left[1:].flatten(0, 1), self._states().flatten(0, 1)).unflatten(0, (p.L - 1, p.T))
            if problem.tied and problem.context is None:
                products, first = later, self._rows(products)[:, 0]
            else:
                products = torch.cat([products, later])
        if problem.context is not None:
            of_context = torch.stack([torch.bmm(left[:, task], problem.context) for task in range(p.T)], dim=1)
            products = torch.cat([of_context, products], dim=3)
        shared, private, index = problem.projection
        readers = readers_of(index, shared.shape[0], private.shape[1])
        return [*sum_parts(self._parts(self._rows(products)), readers, x0.dtype, first=first)]

    def _rows(self, products: Tensor) -> Tensor:
        """From [L, T, G * r, K] the gradients of the projections' rows, [T, L, r, G, K]."""
        return products.unflatten(2, (self.problem.layout.G, self.problem.rank)).permute(1, 0, 3, 2, 4)

    def _parts(self, of_steps: Tensor) -> Tensor:
        """From [T, L, rows, ...] the gradients of all weights of a task: one step after another, or of tied ones parts of a sum."""
        return of_steps if self.problem.tied else of_steps.flatten(1, 2).unsqueeze(1)

    def _states(self) -> Tensor:
        """The states before every step but the first, [L - 1, T, B, D]."""
        p, problem = self.problem.layout, self.problem
        states = problem.x0.new_empty(p.L - 1, p.T, p.B, p.D)
        tile = tile_choice.config("low_rank_forward", problem.sizes)
        gathered = problem.gathered
        with on_device_of(problem.x0):
            launch_options.launch(
                low_rank_states, (p.tiles(tile.block_b, p.D, tile.block_d), p.T),
                x0=problem.x0, states=states, activations=self.activations, weight=gathered["weight"], bias=gathered["bias"],
                **problem.tile_constants(tile),
            )  # fmt: skip
        return states
