"""The backward of the low-rank cell: all steps of a tile of rows of one task in one launch, then the gradients of x0 and the context.

Letters and layouts as in low_rank; d = dL/dh' of a step. The backward of a step, with a and g computed again from the kept z and y::

    da = d * g * x0        dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
    dz = W^T da            dy = V^T dq                          dh = d + P^T dz + Q^T dy

Like the forward, a step goes once over the units: dh of the later step, which needs that step's whole dz and dy, is computed for a block of
units and is the block's d. The gradients of P, Q, W and V are library products of what is written here below.
"""

from dataclasses import replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import common
from .common import Tiles, aligned, divide_up, dot, inside, on_device_of, rounded, sigmoid, store
from .cross_rnn_backward import _dq
from .low_rank import TILES as INPUT_TILES
from .low_rank import (
    LowRankProblem,
    biases,
    load_tiles,
    low_rank_cross_rnn,
    of_step,
    of_task,
    projection_tiles,
    shared_bytes,
    states_again,
    through_memory,
    tile_rows,
    weight_tiles,
    with_bias,
    zero_tiles,
)
from .param_gather import readers_of, sum_parts

_HALF = {
    16: [(128, 32, 16, 8, 2), (32, 32, 16, 4, 2), (16, 32, 16, 4, 2)],
    32: [(128, 16, 32, 8, 2), (64, 32, 32, 8, 2), (64, 16, 32, 4, 2), (32, 32, 32, 4, 2), (16, 32, 32, 4, 2), (16, 16, 32, 4, 2)],
    64: [(128, 16, 64, 8, 2), (32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
    128: [(32, 32, 64, 8, 2), (16, 32, 64, 4, 2)],
    256: [(16, 32, 64, 8, 2), (16, 16, 64, 8, 2)],
}
TILES = Tiles(
    "low_rank_cross_rnn_backward",
    {
        "bfloat16": _HALF,
        "float16": _HALF,
        "tf32": {
            16: [(32, 32, 16, 4, 2), (16, 32, 16, 4, 2)],
            32: [(32, 16, 32, 4, 2), (16, 16, 32, 4, 2)],
            64: [(32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
            256: [(16, 16, 64, 8, 2)],
        },
        "float32": {32: [(32, 16, 16, 8, 1), (16, 32, 16, 8, 1)], 256: [(16, 16, 16, 8, 1)]},
        "float64": {16: [(16, 16, 16, 8, 1)], 256: [(16, 16, 64, 8, 1)]},
    },
    lambda tile, kind, gates, rank: shared_bytes(tile, kind, gates, rank, held=2),
)
"""Of the walk through the steps. The rows of a tile decide how bias gradients are added up."""


@triton.jit
def add_gradient(total, z_gradient, tiles, PRECISION: tl.constexpr):
    """``total`` plus P^T dz + Q^T dy for the columns of ``tiles``."""
    for i in tl.static_range(len(tiles)):
        total = dot(z_gradient[i], tiles[i], total, PRECISION)
    return total


@triton.jit
def _pass(
    z_gradient, z, x0, source, grad_state, d, terms, gradients, bias_sums, weight, bias, projection, step, last, b, row, rows, D, K,
    STATES: tl.constexpr, X0: tl.constexpr, BANKS: tl.constexpr,
    G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One step; returns its dz and dy. ``z_gradient`` and ``projection`` are of the step after it.

    For the last step the product with these is computed in vain, and not used: a second copy of the loop would take registers.
    """
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    acc = zero_tiles(G * SLICES, b.shape[0], BLOCK_K, ACC)
    for start in range(0, D, BLOCK_D):
        n = start + tl.arange(0, BLOCK_D)
        units = (n < D)[None, :]
        stored = inside(b, rows, n, D)
        read = row[:, None] * D + n[None, :]
        at = b[:, None] * D + n[None, :]
        kept = b[:, None] * (G * D) + n[None, :]
        product = tl.zeros((b.shape[0], BLOCK_D), dtype=ACC)
        product = add_gradient(product, z_gradient, projection_tiles(projection, n, D, K, G, RANK, SLICES, BLOCK_K), PRECISION)
        dh = tl.load(source + read, mask=units, other=0.0).to(ACC)
        if STATES:
            dh += tl.where(step < last, tl.load(grad_state + read, mask=units, other=0.0).to(ACC), 0.0)
        dh += tl.where(step < last, product, 0.0)
        store(d + at, dh, inside(b, tl.where((step > 0) & (step < last), rows, 0), n, D))  # the others are not read
        x = tl.load(x0 + read, mask=units, other=0.0).to(ACC)
        tiles = weight_tiles(weight, n, D, G, RANK, SLICES, BLOCK_K)
        both = biases(bias, start, n, D, G, ACC)
        a = with_bias(z, tiles, both[0], 0, SLICES, PRECISION)
        dg = dh
        if G == 2:
            g = sigmoid(with_bias(z, tiles, both[1], 1, SLICES, PRECISION))
            dg = dh * g
            dq = tl.where(stored, _dq(dg, x, a, g), 0.0)
        da = tl.where(stored, tl.fma(dg, x, 0.0), 0.0)
        if X0:
            before = tl.load(terms + read, mask=(n < tl.where(step < last, D, 0))[None, :], other=0.0)
            base = tl.where(step == 0, dh, 0.0) + before
            store(terms + at, tl.fma(dg, a, base), stored)
        for gate in tl.static_range(G):
            gradient = da
            if gate == 1:
                gradient = dq
            operand = rounded(gradient, x0.dtype.element_ty)
            if BANKS:
                store(gradients + kept + gate * D, gradient, stored)
                store(bias_sums + n * G + gate, tl.sum(gradient, axis=0), n < D)
            acc = _add_slices(acc, operand, tiles, gate, SLICES, PRECISION)
    return acc


@triton.jit
def _add_slices(acc, left, tiles, gate: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr):
    """The accumulators, those of one gate vector plus ``left`` times its tiles."""
    found = ()
    for i in tl.static_range(len(acc)):
        if i // SLICES == gate:
            found += (dot(left, tiles[i], acc[i], PRECISION),)
        else:
            found += (acc[i],)
    return found


@TILES.tuned(["D", "C", "G", "RANK"])
@triton.jit
def low_rank_backward(
    grad, x0, activations, d, terms, gradients, z_gradients, bias_sums, weight, bias, projection,
    B, D, C, steps, grad_stride,
    G: tl.constexpr, RANK: tl.constexpr, TIED: tl.constexpr, STATES: tl.constexpr, X0: tl.constexpr, BANKS: tl.constexpr,
    ALIGN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, SLICES: tl.constexpr,
):  # fmt: skip
    """Every step from the last to the first.

    Writes dz and dy to ``z_gradients`` [L, T, B, G, r]; with BANKS da and dq to ``gradients`` [T, L, B, G, D], and their sums over the
    tile's rows to ``bias_sums`` [T, L, row tiles, D, G]; with X0 dx0 without the first step's P^T dz + Q^T dy to ``terms`` [T, B, D].
    ``d`` [T, B, D] is d between two steps. STATES: ``grad`` has a gradient of every state, not of the last one alone.
    """
    task = tl.program_id(1).to(tl.int64)
    tasks = tl.num_programs(1)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    D, C = aligned(D, V), aligned(C, V)
    K = C + D
    first = tl.program_id(0).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first, B, BLOCK_B)
    size, kept = D * tl.cast(B, tl.int64), tl.cast(B, tl.int64) * (G * RANK)
    x0 += first * D
    grad += aligned(task * grad_stride, V) + first * D
    d += task * size + first * D
    terms += task * size + first * D
    activations += task * steps * kept + first * (G * RANK)
    z_gradients += first * (G * RANK)
    gradients += task * steps * (G * size) + first * (G * D)
    bias_sums += (task * steps * tl.num_programs(0) + tl.program_id(0)) * (G * D)
    sums_step = tl.num_programs(0) * tl.cast(G * D, tl.int64)
    weight, bias, projection = of_task(weight, bias, projection, task, D, K, steps, G, RANK, TIED)

    last = steps - 1
    final = grad
    if STATES:
        final += steps * size
    acc = zero_tiles(G * SLICES, BLOCK_B, BLOCK_K, bias_sums.dtype.element_ty)
    for i in range(steps):
        step = last - i
        later = tl.minimum(step + 1, last)
        z_gradient = through_memory(z_gradients + (later * tasks + task) * kept, acc, b, row, rows, G, RANK, SLICES, BLOCK_K)
        _, _, p = of_step(weight, bias, projection, later, D, K, G, RANK, TIED)
        w, c, _ = of_step(weight, bias, projection, step, D, K, G, RANK, TIED)
        z = load_tiles(activations + step * kept, row, G, RANK, SLICES, BLOCK_K)
        acc = _pass(
            z_gradient, z, x0, tl.where(i < 2, final, d), grad + (step + 1) * size, d, terms,
            gradients + step * (G * size), bias_sums + step * sums_step, w, c, p + C, step, last, b, row, rows, D, K,
            STATES, X0, BANKS, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K,
        )  # fmt: skip
    through_memory(z_gradients + task * kept, acc, b, row, rows, G, RANK, SLICES, BLOCK_K)


@INPUT_TILES.tuned(["D", "C", "G", "RANK", "T"])
@triton.jit
def low_rank_inputs(
    result, z_gradients, terms, grad, projection,
    B, D, C, T, steps, grad_stride,
    G: tl.constexpr, RANK: tl.constexpr, TIED: tl.constexpr, X0: tl.constexpr, STATES: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, SLICES: tl.constexpr,
):  # fmt: skip
    """The gradient of x0 [B, D] (X0), or of the context [L, B, C]; the grid's second axis is the step. Adds the tasks in their order."""
    step = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (result.dtype.element_ty.primitive_bitwidth // 8)
    ACC: tl.constexpr = tl.float64 if result.dtype.element_ty == tl.float64 else tl.float32
    D, C = aligned(D, V), aligned(C, V)
    K = C + D
    columns, first = C, 0
    if X0:
        columns, first = D, C
    column_tiles = tl.cdiv(columns, BLOCK_D)
    first_row = (tl.program_id(0) // column_tiles).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first_row, B, BLOCK_B)
    z_gradients += first_row * (G * RANK)
    terms += first_row * D
    grad += first_row * D
    result += first_row * columns
    n = tl.program_id(0) % column_tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    kept = tl.cast(B, tl.int64) * (G * RANK)
    read = row[:, None] * D + n[None, :]
    acc = tl.zeros((BLOCK_B, BLOCK_D), dtype=ACC)
    for task in range(T):
        owner = tl.cast(task, tl.int64)
        _, _, own = of_task(projection, projection, projection, owner, D, K, steps, G, RANK, TIED)
        _, _, p = of_step(own, own, own, step, D, K, G, RANK, TIED)
        z_gradient = load_tiles(z_gradients + (step * T + owner) * kept, row, G, RANK, SLICES, BLOCK_K)
        acc = add_gradient(acc, z_gradient, projection_tiles(p + first, n, columns, K, G, RANK, SLICES, BLOCK_K), PRECISION)
        if X0:
            acc += tl.load(terms + owner * D * B + read, mask=(n < D)[None, :], other=0.0)
            if STATES:
                acc += tl.load(grad + aligned(owner * grad_stride, V) + read, mask=(n < D)[None, :], other=0.0).to(ACC)
    store(result + step * B * columns + b[:, None] * columns + n[None, :], acc, inside(b, rows, n, columns))


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
        self.tile = problem.tile(TILES, rows=p.B * p.T, columns=1, rank=problem.rank)
        self.row_tiles = divide_up(p.B, self.tile["BLOCK_B"])
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
        common.launch(
            low_rank_backward, (self.row_tiles, p.T),
            x0=problem.x0, activations=self.activations, d=self.d, terms=self.terms, gradients=self.gradients,
            z_gradients=self.z_gradients, bias_sums=self.sums, **problem.gathered, **self._grads, C=p.C,
            X0=self.want_x0, BANKS=self.want_banks, **problem.tile_constants(self.tile),
        )  # fmt: skip

    def input_gradient(self, given: Tensor, steps: int) -> Tensor:
        """The gradient of x0, or of all steps of the context."""
        p, problem = self.problem.layout, self.problem
        tile = problem.tile(INPUT_TILES, rows=p.B * steps, columns=given.shape[-1], rank=problem.rank)
        result = torch.empty_like(given)
        common.launch(
            low_rank_inputs, p.grid(tile, given.shape[-1], steps),
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
            later = torch.bmm(left[1:].flatten(0, 1), states_again(problem, self.activations).flatten(0, 1)).unflatten(0, (p.L - 1, p.T))
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
