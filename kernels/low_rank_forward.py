"""The forward of the low-rank cell: all steps of a tile of rows of one task in one launch, and the states again from kept z and y.

Letters and layouts as in low_rank. A step goes once over the units. A block of units computes a, g and h' from z and y, and adds the
product of its h' with P and Q to the next step's z and y. So h is read once a step, and written once, where the output lies: each value in
place, after the program has read it. Between two steps a program waits for its own threads alone, and reads back its own rows through the
L2 cache. Registers could hold h only for a number of blocks that is fixed when the kernel is compiled; 64 rows of 624 units would take 160
of a thread's 255 registers, with 8 warps.
"""

import triton
import triton.language as tl

from .low_rank import (
    add_each,
    biases,
    load_tiles,
    of_step,
    of_task,
    projection_tiles,
    through_memory,
    tile_rows,
    weight_tiles,
    with_bias,
    zero_tiles,
)
from .tiles import aligned, inside, rounded, sigmoid, store


@triton.jit
def _next_state(h, x, z, tiles, bias, n, D, G: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr):
    """h' of units ``n``; 0 beyond D, where an infinite z leaves NaN."""
    a = with_bias(z, tiles, bias[0], 0, SLICES, PRECISION)
    if G == 2:
        x *= sigmoid(with_bias(z, tiles, bias[1], 1, SLICES, PRECISION))
    return tl.where((n < D)[None, :], tl.fma(x, a, h), 0.0)


@triton.jit
def _project(
    acc, left, projection, columns, K,
    G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """z and y plus the products of ``columns`` columns of u, to which ``left`` points, with those of the projections."""
    for start in range(0, columns, BLOCK_D):
        n = start + tl.arange(0, BLOCK_D)
        u = tl.load(left[:, None] + n[None, :], mask=(n < columns)[None, :], other=0.0)
        acc = add_each(acc, u, projection_tiles(projection, n, columns, K, G, RANK, SLICES, BLOCK_K), PRECISION)
    return acc


@triton.jit
def _step(
    acc, z, x0, h, target, weight, bias, projection, b, row, rows, D, K,
    PROJECT: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr,
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
        tiles = weight_tiles(weight, n, D, G, RANK, SLICES, BLOCK_K)
        new = _next_state(old, x, z, tiles, biases(bias, start, n, D, G, ACC), n, D, G, SLICES, PRECISION)
        store(target + b[:, None] * D + n[None, :], new, inside(b, rows, n, D))
        if PROJECT:
            columns = projection_tiles(projection, n, D, K, G, RANK, SLICES, BLOCK_K)
            acc = add_each(acc, rounded(new, x0.dtype.element_ty), columns, PRECISION)
    return acc


@triton.jit
def low_rank_forward(
    x0, context, out, activations, weight, bias, projection,
    B, D, C, steps, out_stride, out_step,
    G: tl.constexpr, RANK: tl.constexpr, TIED: tl.constexpr, HAS_CONTEXT: tl.constexpr, SAVE: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, SLICES: tl.constexpr,
):  # fmt: skip
    """All steps. The state after step l goes to ``out + (l + 1) * out_step``: with 0, all go to one place, and the last one stays.

    ``out_stride`` is the distance from task to task. ``activations`` get z and y: of every step, [T, L, B, G, r] (SAVE), or of
    the current one, [T, B, G, r].
    """
    task = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    D, C = aligned(D, V), aligned(C, V)
    K = C + D
    first = tl.program_id(0).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first, B, BLOCK_B)
    x0 += first * D
    context += first * C
    kept_step = tl.cast(B, tl.int64) * (G * RANK)
    activations += first * (G * RANK)
    if SAVE:
        activations += task * steps * kept_step
    else:
        activations += task * kept_step
        kept_step *= 0
    out += aligned(task * out_stride, V) + first * D
    weight, bias, projection = of_task(weight, bias, projection, task, D, K, steps, G, RANK, TIED)

    acc = zero_tiles(G * SLICES, BLOCK_B, BLOCK_K, ACC)
    if HAS_CONTEXT:
        acc = _project(acc, context + row * C, projection, C, K, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)
    acc = _project(acc, x0 + row * D, projection + C, D, K, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)
    for step in range(steps - 1):
        z = through_memory(activations + step * kept_step, acc, b, row, rows, G, RANK, SLICES, BLOCK_K)
        w, c, _ = of_step(weight, bias, projection, step, D, K, G, RANK, TIED)
        _, _, p = of_step(weight, bias, projection, step + 1, D, K, G, RANK, TIED)
        acc = zero_tiles(G * SLICES, BLOCK_B, BLOCK_K, ACC)
        if HAS_CONTEXT:
            upstream = context + (step + 1) * C * tl.cast(B, tl.int64)
            acc = _project(acc, upstream + row * C, p, C, K, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)
        h = tl.where(step == 0, x0, out + aligned(step * out_step, V))
        target = out + aligned((step + 1) * out_step, V)
        acc = _step(acc, z, x0, h, target, w, c, p + C, b, row, rows, D, K, True, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)
    last = steps - 1
    z = through_memory(activations + last * kept_step, acc, b, row, rows, G, RANK, SLICES, BLOCK_K)
    w, c, p = of_step(weight, bias, projection, last, D, K, G, RANK, TIED)
    h = tl.where(last == 0, x0, out + aligned(last * out_step, V))
    target = out + aligned(steps * out_step, V)
    _step(acc, z, x0, h, target, w, c, p, b, row, rows, D, K, False, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)


@triton.jit
def low_rank_states(
    x0, states, activations, weight, bias,
    B, D, steps,
    G: tl.constexpr, RANK: tl.constexpr, TIED: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, SLICES: tl.constexpr,
):  # fmt: skip
    """States 1 to L - 1, [L - 1, T, B, D], from x0 and the kept z and y. A program computes a tile of all steps of one task."""
    task = tl.program_id(1).to(tl.int64)
    tasks = tl.num_programs(1)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    D = aligned(D, V)
    unit_tiles = tl.cdiv(D, BLOCK_D)
    first = (tl.program_id(0) // unit_tiles).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first, B, BLOCK_B)
    start = tl.program_id(0) % unit_tiles * BLOCK_D
    n = start + tl.arange(0, BLOCK_D)
    kept = tl.cast(B, tl.int64) * (G * RANK)
    activations += task * steps * kept + first * (G * RANK)
    states += first * D
    weight, bias, _ = of_task(weight, bias, weight, task, D, 0, steps, G, RANK, TIED)

    x = tl.load(x0 + first * D + row[:, None] * D + n[None, :], mask=(n < D)[None, :], other=0.0).to(ACC)
    h = x
    for step in range(steps - 1):
        z = load_tiles(activations + step * kept, row, G, RANK, SLICES, BLOCK_K)
        w, c, _ = of_step(weight, bias, weight, step, D, 0, G, RANK, TIED)
        tiles = weight_tiles(w, n, D, G, RANK, SLICES, BLOCK_K)
        h = _next_state(h, x, z, tiles, biases(c, start, n, D, G, ACC), n, D, G, SLICES, PRECISION)
        target = states + (step * tasks + task) * (D * tl.cast(B, tl.int64))
        store(target + b[:, None] * D + n[None, :], h, inside(b, rows, n, D))
