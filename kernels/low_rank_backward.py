"""The backward of the low-rank cell: all steps of a tile of rows of one task in one launch, then the gradients of x0 and the context.

Letters and layouts as in low_rank; d = dL/dh' of a step. The backward of a step, with a and g computed again from the kept z and y::

    da = d * g * x0        dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
    dz = W^T da            dy = V^T dq                          dh = d + P^T dz + Q^T dy

Like the forward, a step goes once over the units: dh of the later step, which needs that step's whole dz and dy, is computed for a block of
units and is the block's d. The gradients of P, Q, W and V are library products of what is written here (low_rank_launch).
"""

import triton
import triton.language as tl

from .cross_rnn_backward import _dq
from .low_rank import biases, load_tiles, of_step, of_task, projection_tiles, through_memory, tile_rows, weight_tiles, with_bias, zero_tiles
from .tiles import aligned, dot, inside, rounded, sigmoid, store


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
