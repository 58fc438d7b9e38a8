"""The low-rank cell: all steps of a tile of rows of one task in one launch, and the states again from saved z and y.

Letters as in cross_rnn, and r the rank. Of a step, with u = [context, h]::

    z = P u      y = Q u      a = W z + b      g = sigmoid(V y + c)      h' = h + g * x0 * a

z and y stay in registers as a tuple of G * SLICES tiles [BLOCK_B, BLOCK_K], first those of z, then those of y. Columns beyond the rank are
zero: masks of the loads see to it. ``parameters`` [T, W, ...] holds, one after the other, a task's weights [D, G, r], biases [D, G] and
projections [r, G, K] of a step.

A step goes once over the units. A block of units computes a, g and h' from z and y, and adds the product of its h' with P and Q to the next
step's z and y. So h is read once a step, and written once, in place where the output lies; a program reads back its own rows alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dcrnn_fast.errors import BackendUnavailable

from . import common
from .common import ITEMSIZE, Tile, Tiles, divide_up, dot, inside, product_operand, rounded, sigmoid, store
from .cross_rnn import Sizes


def shared_bytes(tile: Tile, kind: str, gates: int, rank: int, held: int = 1) -> int:
    """At most so many bytes of shared memory: ``held`` times z and y; the weights; values between two layouts."""
    columns = gates * divide_up(rank, tile.products) * tile.products
    weights = (2 * tile.stages - 1) * tile.columns * columns
    return (held * tile.rows * columns + weights) * ITEMSIZE[kind] + 2 * tile.rows * tile.columns * max(4, ITEMSIZE[kind]) + 16384


_HALF = {
    16: [(128, 64, 16, 8, 2), (128, 32, 16, 8, 2), (32, 64, 16, 4, 2), (32, 32, 16, 4, 2), (16, 64, 16, 4, 2), (16, 32, 16, 4, 2)],
    32: [(128, 32, 32, 8, 2), (64, 64, 32, 8, 2), (32, 32, 32, 4, 2), (16, 32, 32, 4, 2)],
    64: [(128, 32, 64, 8, 2), (32, 64, 64, 4, 2), (32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
    128: [(64, 32, 128, 8, 2), (32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
    256: [(32, 32, 64, 8, 2), (16, 32, 64, 8, 2), (16, 16, 64, 8, 2)],
}
TILES = Tiles(
    "low_rank_cross_rnn",
    {
        "bfloat16": _HALF,
        "float16": _HALF,
        "tf32": {
            16: [(32, 32, 16, 4, 2), (16, 32, 16, 4, 2)],
            32: [(32, 32, 32, 8, 2), (16, 32, 32, 4, 2), (16, 16, 32, 4, 2)],
            64: [(32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
            256: [(16, 16, 64, 8, 2)],
        },
        "float32": {
            32: [(32, 16, 16, 8, 2), (32, 16, 16, 4, 2), (16, 16, 16, 8, 1)],
            64: [(32, 16, 16, 8, 2), (16, 16, 16, 8, 2)],
            256: [(16, 16, 16, 8, 1)],
        },
        "float64": {16: [(16, 16, 16, 4, 2)], 64: [(16, 16, 64, 8, 2)], 256: [(16, 16, 64, 8, 1)]},
    },
    shared_bytes,
)
"""Of all kernels but the backward's walk. With a larger rank than D / 2 the thin products cost more than the full cell's."""


def parameters_of(n: Sizes, banks: tuple[Tensor, ...], projections: tuple[Tensor, Tensor], allow_tf32: bool) -> Tensor:
    """The parameters of each task and step side by side, [T, W, ...]; for tf32, all but the biases come rounded."""
    if 2 * n.r * (n.C + n.D) >= 2**31:
        raise BackendUnavailable(
            f"backend='triton' counts the values of a step's projection in 32 bits: got rank {n.r} and {n.C + n.D} columns, expected "
            "less than 2**30 in all. Use backend='reference'"
        )
    shared_weight, shared_bias, private_weight, private_bias = banks
    pairs = (shared_weight, private_weight), (shared_bias, private_bias), projections
    found = []
    for pair in pairs:
        shared, private = pair if pair is pairs[1] else [product_operand(bank, allow_tf32) for bank in pair]
        found += [shared.flatten(1).expand(n.T, -1, -1), private.flatten(2)]
    return torch.cat(found, dim=2)


@triton.jit
def of_step(parameters, at, D: tl.constexpr, C: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr):
    """Where the weights, biases and projections of a task and step, number ``at`` of all, begin."""
    weight = parameters + tl.cast(at, tl.int64) * (G * (D * (RANK + 1) + RANK * (C + D)))
    return weight, weight + D * G * RANK, weight + D * G * (RANK + 1)


@triton.jit
def zero_tiles(COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DTYPE: tl.constexpr):
    """COUNT tiles of zeros."""
    found = ()
    for _ in tl.static_range(COUNT):
        found += (tl.zeros((ROWS, COLUMNS), dtype=DTYPE),)
    return found


@triton.jit
def tile_rows(first, B, BLOCK_B: tl.constexpr):
    """A tile's rows counted from its first, the same with rows beyond B repeating the last one, for loads, and how many rows it has.

    Pointers to the first row and distances of 32 bits from it take fewer registers than distances of 64 bits.
    """
    b = tl.arange(0, BLOCK_B)
    rows = tl.minimum(B - first, BLOCK_B).to(tl.int32)
    return b, tl.minimum(b, rows - 1), rows


@triton.jit
def rank_tiles(pointer, row, ROWS: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr, BLOCK_K: tl.constexpr):
    """Rows ``row`` of the first vector and then of the second, from values [ROWS, G, r]: tiles [len(row), BLOCK_K].

    These are rows of W and V, or of z and y or their gradients. Where ROWS is None, there are all rows that are asked for.
    """
    found = ()
    for g in tl.static_range(G):
        for start in tl.static_range(0, RANK, BLOCK_K):
            j = start + tl.arange(0, BLOCK_K)
            at = pointer + row[:, None] * (G * RANK) + (g * RANK + j)[None, :]
            mask = (j < RANK)[None, :] if ROWS is None else inside(row, ROWS, j, RANK)
            found += (tl.load(at, mask=mask, other=0.0),)
    return found


@triton.jit
def projection_tiles(projection, n, columns, K: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr, BLOCK_K: tl.constexpr):
    """Columns ``n`` of P, then of Q, from projections [r, G, K], of which there are ``columns``: tiles [BLOCK_K, len(n)]."""
    found = ()
    for g in tl.static_range(G):
        for start in tl.static_range(0, RANK, BLOCK_K):
            j = start + tl.arange(0, BLOCK_K)
            rows = projection + j[:, None] * (G * K) + (g * K + n)[None, :]
            found += (tl.load(rows, mask=inside(j, RANK, n, columns), other=0.0),)
    return found


@triton.jit
def add_each(acc, left, right, PRECISION: tl.constexpr):
    """Each accumulator plus ``left`` times the transposed tile of ``right`` in its place."""
    found = ()
    for i in tl.static_range(len(right)):
        found += (dot(left, tl.trans(right[i]), acc[i], PRECISION),)
    return found


@triton.jit
def through_memory(pointer, tiles, b, row, rows, G: tl.constexpr, RANK: tl.constexpr, BLOCK_K: tl.constexpr):
    """Store sums [B, G, r], and load them as operands of the next products: from shared memory, which leaves registers to other values.

    Beyond the rank a row with an infinity has NaN, of 0 * infinity; it is not stored, and loaded as 0.
    """
    SLICES: tl.constexpr = (RANK + BLOCK_K - 1) // BLOCK_K
    for g in tl.static_range(G):
        for i in tl.static_range(SLICES):
            j = i * BLOCK_K + tl.arange(0, BLOCK_K)
            at = pointer + b[:, None] * (G * RANK) + (g * RANK + j)[None, :]
            store(at, tiles[g * SLICES + i], inside(b, rows, j, RANK))
    tl.debug_barrier()
    return rank_tiles(pointer, row, None, G, RANK, BLOCK_K)


@triton.jit
def biases(bias, start, n, D: tl.constexpr, G: tl.constexpr, ACC: tl.constexpr):
    """b, and with a gate c, of units ``n``, which begin with ``start``, from [D, G]; read side by side, as they lie."""
    if G == 1:
        return (tl.load(bias + n, mask=n < D, other=0.0).to(ACC),)
    else:
        both = start * 2 + tl.arange(0, 2 * n.shape[0])
        values = tl.load(bias + both, mask=both < 2 * D, other=0.0).to(ACC)
        return tl.split(tl.reshape(values, (n.shape[0], 2)))


@triton.jit
def with_bias(z, tiles, bias, gate: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr):
    """a (``gate`` 0) or the gate's argument (1): the sums start at the biases."""
    SLICES: tl.constexpr = len(tiles) // G
    acc = tl.broadcast_to(bias[None, :], (z[0].shape[0], bias.shape[0]))
    for i in tl.static_range(SLICES):
        acc = dot(z[gate * SLICES + i], tl.trans(tiles[gate * SLICES + i]), acc, PRECISION)
    return acc


@triton.jit
def _next_state(h, x, z, tiles, bias, n, D: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr):
    """h' of units ``n``; 0 beyond D, where an infinite z leaves NaN."""
    a = with_bias(z, tiles, bias[0], 0, G, PRECISION)
    if G == 2:
        x *= sigmoid(with_bias(z, tiles, bias[1], 1, G, PRECISION))
    return tl.where((n < D)[None, :], tl.fma(x, a, h), 0.0)


@triton.jit
def _project(
    acc, left, projection, columns, K: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """z and y plus the products of ``columns`` columns of u, to which ``left`` points, with those of the projections."""
    for start in range(0, columns, BLOCK_D):
        n = start + tl.arange(0, BLOCK_D)
        u = tl.load(left[:, None] + n[None, :], mask=(n < columns)[None, :], other=0.0)
        acc = add_each(acc, u, projection_tiles(projection, n, columns, K, G, RANK, BLOCK_K), PRECISION)
    return acc


@triton.jit
def _step(
    acc, z, x0, h, target, weight, bias, projection, b, row, rows,
    PROJECT: tl.constexpr, D: tl.constexpr, K: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write h' of all units to ``target``; with PROJECT add its products with the next step's projections to ``acc``, which is returned."""
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    for start in range(0, D, BLOCK_D):
        n = start + tl.arange(0, BLOCK_D)
        read = row[:, None] * D + n[None, :]
        units = (n < D)[None, :]
        x = tl.load(x0 + read, mask=units, other=0.0).to(ACC)
        old = tl.load(h + read, mask=units, other=0.0).to(ACC)
        tiles = rank_tiles(weight, n, D, G, RANK, BLOCK_K)
        new = _next_state(old, x, z, tiles, biases(bias, start, n, D, G, ACC), n, D, G, PRECISION)
        store(target + b[:, None] * D + n[None, :], new, inside(b, rows, n, D))
        if PROJECT:
            columns = projection_tiles(projection, n, D, K, G, RANK, BLOCK_K)
            acc = add_each(acc, rounded(new, x0.dtype.element_ty), columns, PRECISION)
    return acc


@TILES.tuned("D", "C", "G", "RANK")
@triton.jit(do_not_specialize=["steps"])
def low_rank_forward(
    x0, context, out, activations, parameters, B, W, steps,
    EVERY: tl.constexpr, SAVE: tl.constexpr, RANK: tl.constexpr, D: tl.constexpr, C: tl.constexpr, G: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """All steps. ``out`` gets all states, [T, L + 1, B, D] (EVERY), or each state in place of the one before, [T, B, D].

    ``activations`` get z and y: of every step, [T, L, B, G, r] (SAVE), or of the current one, [T, B, G, r].
    """
    task = tl.program_id(1).to(tl.int64)
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    K: tl.constexpr = C + D
    COUNT: tl.constexpr = G * ((RANK + BLOCK_K - 1) // BLOCK_K)
    first = tl.program_id(0).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first, B, BLOCK_B)
    saved_step, out_step = tl.cast(B, tl.int64) * (G * RANK), tl.cast(B, tl.int64) * D
    x0 += first * D
    activations += first * (G * RANK)
    out += first * D
    if SAVE:
        activations += task * steps * saved_step
    else:
        activations += task * saved_step
        saved_step *= 0
    if EVERY:
        out += task * (steps + 1) * out_step
    else:
        out += task * out_step
        out_step *= 0

    acc = zero_tiles(COUNT, BLOCK_B, BLOCK_K, ACC)
    _, _, projection = of_step(parameters, task * W, D, C, G, RANK)
    if context is not None:
        context += first * C
        acc = _project(acc, context + row * C, projection, C, K, G, RANK, PRECISION, BLOCK_D, BLOCK_K)
    acc = _project(acc, x0 + row * D, projection + C, D, K, G, RANK, PRECISION, BLOCK_D, BLOCK_K)
    for step in range(steps - 1):
        z = through_memory(activations + step * saved_step, acc, b, row, rows, G, RANK, BLOCK_K)
        w, c, _ = of_step(parameters, task * W + step % W, D, C, G, RANK)
        _, _, p = of_step(parameters, task * W + (step + 1) % W, D, C, G, RANK)
        acc = zero_tiles(COUNT, BLOCK_B, BLOCK_K, ACC)
        if context is not None:
            upstream = context + (step + 1) * C * tl.cast(B, tl.int64)
            acc = _project(acc, upstream + row * C, p, C, K, G, RANK, PRECISION, BLOCK_D, BLOCK_K)
        h = tl.where(step == 0, x0, out + step * out_step)
        target = out + (step + 1) * out_step
        acc = _step(acc, z, x0, h, target, w, c, p + C, b, row, rows, True, D, K, G, RANK, PRECISION, BLOCK_D, BLOCK_K)
    last = steps - 1
    z = through_memory(activations + last * saved_step, acc, b, row, rows, G, RANK, BLOCK_K)
    w, c, p = of_step(parameters, task * W + last % W, D, C, G, RANK)
    h = tl.where(last == 0, x0, out + last * out_step)
    _step(acc, z, x0, h, out + steps * out_step, w, c, p, b, row, rows, False, D, K, G, RANK, PRECISION, BLOCK_D, BLOCK_K)


@TILES.tuned("D", "G", "RANK")
@triton.jit(do_not_specialize=["steps"])
def low_rank_states(
    x0, states, activations, parameters, B, W, steps,
    RANK: tl.constexpr, D: tl.constexpr, C: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """States 1 to L - 1, [T, L - 1, B, D], from x0 and the saved z and y. A program computes a tile of all steps of one task."""
    task = tl.program_id(1).to(tl.int64)
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    UNIT_TILES: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    first = (tl.program_id(0) // UNIT_TILES).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first, B, BLOCK_B)
    start = tl.program_id(0) % UNIT_TILES * BLOCK_D
    n = start + tl.arange(0, BLOCK_D)
    saved_step, size = tl.cast(B, tl.int64) * (G * RANK), tl.cast(B, tl.int64) * D
    activations += task * steps * saved_step + first * (G * RANK)
    states += task * (steps - 1) * size + first * D
    x = tl.load(x0 + first * D + row[:, None] * D + n[None, :], mask=(n < D)[None, :], other=0.0).to(ACC)
    h = x
    for step in range(steps - 1):
        z = rank_tiles(activations + step * saved_step, row, None, G, RANK, BLOCK_K)
        w, c, _ = of_step(parameters, task * W + step % W, D, C, G, RANK)
        tiles = rank_tiles(w, n, D, G, RANK, BLOCK_K)
        h = _next_state(h, x, z, tiles, biases(c, start, n, D, G, ACC), n, D, G, PRECISION)
        store(states + step * size + b[:, None] * D + n[None, :], h, inside(b, rows, n, D))


def low_rank_cross_rnn(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    shared_projection: Tensor,
    private_projection: Tensor,
    steps: int,
    cell: str = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    allow_tf32: bool = False,
    saved: bool = False,
) -> tuple[Tensor, Tensor]:
    """The operator: the output, and z and y or [0]."""
    rank = shared_projection.shape[1] + private_projection.shape[2]
    n = Sizes.of(x0, shared_bias, private_bias, steps, cell, context, rank)
    x0, empty = x0.contiguous(), x0.new_empty
    out = empty(n.T, n.L + 1, n.B, n.D) if return_states else empty(n.T, n.B, n.D)
    activations = empty(n.T, n.L if saved else 1, n.B, n.G, n.r)
    if return_states:
        out[:, 0] = x0
    if out.numel():
        banks, projections = (shared_weight, shared_bias, private_weight, private_bias), (shared_projection, private_projection)
        constants = n.constants(TILES, x0, allow_tf32, rows=n.B * n.T, columns=1)
        common.launch(
            low_rank_forward, (divide_up(n.B, constants["BLOCK_B"]), n.T),
            x0=x0, context=context.contiguous() if n.C and context is not None else None, out=out, activations=activations,
            parameters=parameters_of(n, banks, projections, allow_tf32), B=n.B, W=n.W, steps=n.L,
            EVERY=return_states, SAVE=saved, **constants,
        )  # fmt: skip
    return out, activations if saved else empty(0)


def states_again(n: Sizes, x0: Tensor, activations: Tensor, parameters: Tensor, allow_tf32: bool) -> Tensor:
    """The states before every step but the first, [T, L - 1, B, D]."""
    states = x0.new_empty(n.T, n.L - 1, n.B, n.D)
    if n.L > 1:
        constants = n.constants(TILES, x0, allow_tf32, rows=n.B * n.T, columns=n.D)
        common.launch(
            low_rank_states, n.grid(constants, n.D, n.T),
            x0=x0, states=states, activations=activations, parameters=parameters, B=n.B, W=n.W, steps=n.L, **constants,
        )  # fmt: skip
    return states
