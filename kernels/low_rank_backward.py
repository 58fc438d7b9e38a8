"""The backward of the low-rank cell: all steps of a tile of rows of one task in one launch, then the gradients of x0 and the context.

Letters and layouts as in low_rank; d = dL/dh' of a step. The backward of a step, with a and g computed again from the saved z and y::

    da = d * g * x0        dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
    dz = W^T da            dy = V^T dq                          dh = d + P^T dz + Q^T dy

Like the forward, a step goes once over the units: dh of the later step, which needs that step's whole dz and dy, is computed for a block of
units and is the block's d. The gradients of P, Q, W and V are library products of what is written here below.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import common
from .common import Tiles, divide_up, dot, inside, rounded, sigmoid, store
from .cross_rnn import Sizes
from .cross_rnn_backward import (
    GRAD_CONTEXT,
    GRAD_PROJECTIONS,
    GRAD_WEIGHTS,
    GRAD_X0,
    gate_gradient,
    input_products,
    of_banks,
    weights_and_biases,
    wide_product,
    zeros_of,
)
from .low_rank import TILES as INPUT_TILES
from .low_rank import (
    biases,
    low_rank_cross_rnn,
    of_step,
    parameters_of,
    projection_tiles,
    rank_tiles,
    shared_bytes,
    states_again,
    through_memory,
    tile_rows,
    with_bias,
    zero_tiles,
)

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
        "float32": {32: [(32, 16, 16, 8, 2), (16, 16, 16, 8, 2)], 256: [(16, 16, 16, 8, 1)]},
        "float64": {16: [(16, 16, 16, 8, 1)], 256: [(16, 16, 64, 8, 1)]},
    },
    lambda tile, kind, gates, rank: shared_bytes(tile, kind, gates, rank, held=2) + 4 * tile.rows * tile.columns,
)
"""Of the walk through the steps. The rows of a tile decide how bias gradients are added up."""


@triton.jit
def add_gradient(total, z_gradient, tiles, PRECISION: tl.constexpr):
    """``total`` plus P^T dz + Q^T dy for the columns of ``tiles``."""
    for i in tl.static_range(len(tiles)):
        total = dot(z_gradient[i], tiles[i], total, PRECISION)
    return total


@triton.jit
def add_slices(acc, left, tiles, gate: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr):
    """The accumulators, those of one gate vector plus ``left`` times its tiles."""
    SLICES: tl.constexpr = len(tiles) // G
    found = ()
    for i in tl.static_range(len(tiles)):
        if i // SLICES == gate:
            found += (dot(left, tiles[i], acc[i], PRECISION),)
        else:
            found += (acc[i],)
    return found


@TILES.tuned("D", "C", "G", "RANK")
@triton.jit(do_not_specialize=["steps"])
def low_rank_backward(
    grad, x0, activations, carry, gradients, z_gradients, bias_sums, parameters, B, W, steps,
    STATES: tl.constexpr, RANK: tl.constexpr, D: tl.constexpr, C: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Every step from the last to the first.

    Writes dz and dy to ``z_gradients`` [T, L, B, G, r]; da and dq to ``gradients`` [T, L, B, G, D], and their sums over the tile's rows to
    ``bias_sums`` [T, L, row tiles, D, G], if these are given; and dx0 without the first step's P^T dz + Q^T dy to the first half of
    ``carry`` [2, T, B, D], whose second half is d between two steps. STATES: ``grad`` has a gradient of every state, not of the last alone.

    For the last step the product with the dz and dy of a later one is computed in vain, and not used: a second copy of the loop would take
    registers.
    """
    task = tl.program_id(1).to(tl.int64)
    ACC: tl.constexpr = carry.dtype.element_ty
    K: tl.constexpr = C + D
    COUNT: tl.constexpr = G * ((RANK + BLOCK_K - 1) // BLOCK_K)
    first = tl.program_id(0).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first, B, BLOCK_B)
    size, saved_step = tl.cast(B, tl.int64) * D, tl.cast(B, tl.int64) * (G * RANK)
    x0 += first * D
    terms = carry + task * size + first * D
    d = terms + tl.num_programs(1) * size
    activations += task * steps * saved_step + first * (G * RANK)
    z_gradients += task * steps * saved_step + first * (G * RANK)
    if gradients is not None:
        gradients += task * steps * (G * size) + first * (G * D)
        bias_sums += (task * steps * tl.num_programs(0) + tl.program_id(0)) * (G * D)
    last = steps - 1
    if STATES:
        grad += task * (steps + 1) * size + first * D
        final = grad + steps * size
    else:
        grad += task * size + first * D
        final = grad
    acc = zero_tiles(COUNT, BLOCK_B, BLOCK_K, ACC)
    for i in range(steps):
        step = last - i
        later = tl.minimum(step + 1, last)
        z_gradient = through_memory(z_gradients + later * saved_step, acc, b, row, rows, G, RANK, BLOCK_K)
        _, _, p = of_step(parameters, task * W + later % W, D, C, G, RANK)
        w, c, _ = of_step(parameters, task * W + step % W, D, C, G, RANK)
        z = rank_tiles(activations + step * saved_step, row, None, G, RANK, BLOCK_K)
        acc = zero_tiles(COUNT, BLOCK_B, BLOCK_K, ACC)
        for start in range(0, D, BLOCK_D):
            n = start + tl.arange(0, BLOCK_D)
            units = (n < D)[None, :]
            stored = inside(b, rows, n, D)
            read = row[:, None] * D + n[None, :]
            at = b[:, None] * D + n[None, :]
            product = tl.zeros((BLOCK_B, BLOCK_D), dtype=ACC)
            product = add_gradient(product, z_gradient, projection_tiles(p + C, n, D, K, G, RANK, BLOCK_K), PRECISION)
            dh = tl.load(final + read, mask=units & (i < 2), other=0.0).to(ACC)
            dh += tl.load(d + read, mask=units & (i >= 2), other=0.0)
            if STATES:
                dh += tl.load(grad + (step + 1) * size + read, mask=units & (i > 0), other=0.0).to(ACC)
            dh += tl.where(i > 0, product, 0.0)
            store(d + at, dh, inside(b, tl.where((step > 0) & (i > 0), rows, 0), n, D))  # the others are not read
            x = tl.load(x0 + read, mask=units, other=0.0).to(ACC)
            tiles = rank_tiles(w, n, D, G, RANK, BLOCK_K)
            both = biases(c, start, n, D, G, ACC)
            a = with_bias(z, tiles, both[0], 0, G, PRECISION)
            dg = dh
            if G == 2:
                g = sigmoid(with_bias(z, tiles, both[1], 1, G, PRECISION))
                dg = dh * g
                dq = tl.where(stored, gate_gradient(dg, x, a, g), 0.0)
            da = tl.where(stored, tl.fma(dg, x, 0.0), 0.0)
            before = tl.load(terms + read, mask=units & (i > 0), other=0.0)
            store(terms + at, tl.fma(dg, a, tl.where(step == 0, dh, 0.0) + before), stored)
            for gate in tl.static_range(G):
                gradient = da
                if gate == 1:
                    gradient = dq
                if gradients is not None:
                    place = gradients + step * (G * size) + gate * D
                    sums = bias_sums + step * (tl.num_programs(0) * tl.cast(G * D, tl.int64)) + gate
                    store(place + b[:, None] * (G * D) + n[None, :], gradient, stored)
                    store(sums + n * G, tl.sum(gradient, axis=0), n < D)
                acc = add_slices(acc, rounded(gradient, x0.dtype.element_ty), tiles, gate, G, PRECISION)
    through_memory(z_gradients, acc, b, row, rows, G, RANK, BLOCK_K)


@INPUT_TILES.tuned("D", "C", "G", "RANK", "T")
@triton.jit(do_not_specialize=["T", "steps"])
def low_rank_inputs(
    result, z_gradients, carry, grad, parameters, B, T, W, steps,
    X0: tl.constexpr, STATES: tl.constexpr, RANK: tl.constexpr, D: tl.constexpr, C: tl.constexpr, G: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The gradient of x0 [B, D] (X0), or of the context [L, B, C]; the grid's second axis is the step. Adds the tasks in their order."""
    step = tl.program_id(1).to(tl.int64)
    ACC: tl.constexpr = carry.dtype.element_ty
    COLUMNS: tl.constexpr = D if X0 else C
    COLUMN_TILES: tl.constexpr = (COLUMNS + BLOCK_D - 1) // BLOCK_D
    first = (tl.program_id(0) // COLUMN_TILES).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first, B, BLOCK_B)
    z_gradients += first * (G * RANK)
    result += (step * B + first) * COLUMNS
    n = tl.program_id(0) % COLUMN_TILES * BLOCK_D + tl.arange(0, BLOCK_D)
    size, saved_step = tl.cast(B, tl.int64) * D, tl.cast(B, tl.int64) * (G * RANK)
    read = first * D + row[:, None] * D + n[None, :]
    acc = tl.zeros((BLOCK_B, BLOCK_D), dtype=ACC)
    for task in range(T):
        owner = tl.cast(task, tl.int64)
        _, _, p = of_step(parameters, owner * W + step % W, D, C, G, RANK)
        if X0:
            p += C
        z_gradient = rank_tiles(z_gradients + (owner * steps + step) * saved_step, row, None, G, RANK, BLOCK_K)
        acc = add_gradient(acc, z_gradient, projection_tiles(p, n, COLUMNS, C + D, G, RANK, BLOCK_K), PRECISION)
        if X0:
            acc += tl.load(carry + owner * size + read, mask=(n < D)[None, :], other=0.0)
            if STATES:
                acc += tl.load(grad + owner * (steps + 1) * size + read, mask=(n < D)[None, :], other=0.0).to(ACC)
    store(result + b[:, None] * COLUMNS + n[None, :], acc, inside(b, rows, n, COLUMNS))


def low_rank_cross_rnn_backward(
    grad: Tensor,
    activations: Tensor,
    grad_mask: int,
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    shared_projection: Tensor,
    private_projection: Tensor,
    steps: int,
    cell: str,
    context: Tensor | None,
    return_states: bool,
    allow_tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The operator: the gradients of x0, the four banks, the context and the projections that ``grad_mask`` asks for; [0] for the others.

    Without saved activations it runs the forward again.
    """
    rank = shared_projection.shape[1] + private_projection.shape[2]
    n = Sizes.of(x0, shared_bias, private_bias, steps, cell, context, rank)
    banks, projections = (shared_weight, shared_bias, private_weight, private_bias), (shared_projection, private_projection)
    if n.B == 0 or n.T == 0 or grad_mask == 0:
        return zeros_of(grad_mask, x0, banks, context, projections)
    if activations.dim() == 1:
        _, activations = low_rank_cross_rnn(x0, *banks, *projections, steps, cell, context, False, allow_tf32, True)
    x0, grad, activations, empty = x0.contiguous(), grad.contiguous(), activations.contiguous(), x0.new_empty
    parameters = parameters_of(n, banks, projections, allow_tf32)
    constants = n.constants(TILES, x0, allow_tf32, rows=n.B * n.T, columns=1)
    row_tiles, wide = divide_up(n.B, constants["BLOCK_B"]), torch.promote_types(x0.dtype, torch.float32)
    carry, z_gradients = empty(2, n.T, n.B, n.D, dtype=wide), empty(n.T, n.L, n.B, n.G, n.r)
    gradients = empty(n.T, n.L, n.B, n.G, n.D) if grad_mask & GRAD_WEIGHTS else None
    bias_sums = None if gradients is None else empty(n.T, n.L, row_tiles, n.D, n.G, dtype=wide)
    common.launch(
        low_rank_backward, (row_tiles, n.T),
        grad=grad, x0=x0, activations=activations, carry=carry, gradients=gradients, z_gradients=z_gradients, bias_sums=bias_sums,
        parameters=parameters, B=n.B, W=n.W, steps=n.L, STATES=return_states, **constants,
    )  # fmt: skip

    def of_input(given: Tensor, count: int) -> Tensor:
        """The gradient of x0, or of so many steps of the context."""
        result, columns = empty(given.shape), int(given.shape[-1])
        if columns:
            constants = n.constants(INPUT_TILES, x0, allow_tf32, rows=n.B * count, columns=columns)
            common.launch(
                low_rank_inputs, n.grid(constants, columns, count),
                result=result, z_gradients=z_gradients, carry=carry, grad=grad, parameters=parameters, B=n.B, T=n.T, W=n.W, steps=n.L,
                X0=given is x0, STATES=return_states, **constants,
            )  # fmt: skip
        return result

    dx0 = of_input(x0, 1) if grad_mask & GRAD_X0 else empty(0)
    dcontext = of_input(context, n.L) if grad_mask & GRAD_CONTEXT and context is not None else empty(0)
    dbanks, dprojections = [empty(0) for _ in banks], (empty(0), empty(0))
    if gradients is not None and bias_sums is not None:
        dbanks = weights_and_biases(n, weight_products(n, gradients, activations), bias_sums, x0.dtype)
    if grad_mask & GRAD_PROJECTIONS:
        states = states_again(n, x0, activations, parameters, allow_tf32)
        rows = input_products(n, z_gradients.flatten(3), x0, states, context).unflatten(2, (n.G, n.r)).transpose(2, 3)
        dprojections = of_banks(rows, int(shared_projection.shape[1]), x0.dtype)
    return dx0, *dbanks, dcontext, *dprojections  # type: ignore[return-value]  # four banks and two projections


def weight_products(n: Sizes, gradients: Tensor, activations: Tensor) -> Tensor:
    """da^T z and dq^T y, summed over the steps of the same weights: [T, W, D, G, r]."""
    merged = (1, 2) if n.W == 1 else (0, 1)  # the steps are one long sum, or further products of the batch
    found = [wide_product(gradients[:, :, :, g].flatten(*merged).mT, activations[:, :, :, g].flatten(*merged)) for g in range(n.G)]
    return torch.stack([one.view(n.T, n.W, *one.shape[1:]) for one in found], dim=3)
