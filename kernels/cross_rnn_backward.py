"""The backward of cross_rnn: the gradients of a step from those of the step after it.

Letters as in cross_rnn_forward; d = dL/dh' of a step. The backward of a step has two parts::

    gate part        da = d * g * x0        dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
    product part     dh = d + W^T da + V^T dq

One launch computes the product part of a step, and then the gate part of the step before it, which uses dh while it is in registers. da and
dq lie side by side, [B, G, D], so that one product gives both terms. A product whose result is added later is written as ``fma`` with 0, so
that the bits do not depend on what the compiler fuses.
"""

import triton
import triton.language as tl

from .tiles import aligned, bank_rows, dot, halves, inside, store


@triton.jit
def _dq(dg, x, a, g):
    """The gradient of the gate's argument; ``dg`` is d * g."""
    return tl.fma(dg * x * a, 1.0 - g, 0.0)


@triton.jit
def _gate(d, x0, activations, dx0, gradients, bias_sums, b, unit, B, D, G: tl.constexpr, ADD: tl.constexpr):
    """The gate part of a tile: writes da, dq and their sums over the tile's rows; writes dx0, or adds to it (ADD)."""
    n = unit + tl.arange(0, d.shape[1])
    stored = inside(b, B, n, D)
    at = b.to(tl.int64)[:, None] * D + n[None, :]
    kept = b.to(tl.int64)[:, None] * (G * D) + n[None, :]
    a = tl.load(activations + kept, mask=stored, other=0.0).to(d.dtype)
    x = tl.load(x0 + at, mask=stored, other=0.0).to(d.dtype)
    dg = d
    if G == 2:
        g = tl.load(activations + kept + D, mask=stored, other=0.0).to(d.dtype)
        dg = d * g
        dq = _dq(dg, x, a, g)
        store(gradients + kept + D, dq, stored)
        store(bias_sums + D + n, tl.sum(dq, axis=0), n < D)
    da = tl.fma(dg, x, 0.0)
    store(gradients + kept, da, stored)
    store(bias_sums + n, tl.sum(da, axis=0), n < D)
    if ADD:
        store(dx0 + at, tl.fma(dg, a, tl.load(dx0 + at, mask=stored, other=0.0)), stored)
    else:
        store(dx0 + at, dg * a, stored)


@triton.jit
def cross_rnn_backward_start(
    x0, grad, activations, dx0, gradients, bias_sums,
    B, D, grad_at, grad_stride, activations_at, activations_stride, gradients_at, gradients_stride, sums_at, sums_stride,
    G: tl.constexpr, ALIGN: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The gate part of the last step, from the output's gradient ``grad + grad_at``. Strides are from task to task, in values."""
    task = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    D = aligned(D, V)
    unit_tiles = tl.cdiv(D, BLOCK_D)
    row_tile, unit = tl.program_id(0) // unit_tiles, tl.program_id(0) % unit_tiles * BLOCK_D
    b = row_tile * BLOCK_B + tl.arange(0, BLOCK_B)
    n = unit + tl.arange(0, BLOCK_D)
    at = aligned(grad_at + task * grad_stride, V) + b.to(tl.int64)[:, None] * D + n[None, :]
    d = tl.load(grad + at, mask=inside(b, B, n, D), other=0.0).to(dx0.dtype.element_ty)
    activations += aligned(activations_at + task * activations_stride, V)
    gradients += aligned(gradients_at + task * gradients_stride, V)
    _gate(
        d, x0, activations, dx0 + task * B * D, gradients,
        bias_sums + sums_at + task * sums_stride + row_tile * (G * D), b, unit, B, D, G, False,
    )  # fmt: skip


@triton.jit
def add_gradient_product(
    acc, gradients, shared_weight, private_weight, index, row, n, columns, first_column, D, K, num_shared, num_private, task,
    G: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """``acc`` plus W^T da + V^T dq of one task, for the columns ``first_column + n`` of the weights."""
    for start in range(0, G * D, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(gradients + row[:, None] * (G * D) + k[None, :], mask=(k < G * D)[None, :], other=0.0)
        gate = tl.minimum(k // D, G - 1)
        weight, _ = bank_rows(
            shared_weight, private_weight, index, tl.minimum(k - gate * D, D - 1), num_shared, num_private, G * K, task, ALIGN
        )
        right = tl.load((weight + gate * K)[:, None] + (first_column + n)[None, :], mask=(n < columns)[None, :], other=0.0)
        acc = dot(left, right, acc, PRECISION)
    return acc


@triton.jit
def _dh(acc, given, state_grad, d, b, unit, B, D, STATES: tl.constexpr, STORE: tl.constexpr):
    """dh of a tile: the product, d, and the gradient that the state itself was given (STATES)."""
    n = unit + tl.arange(0, acc.shape[1])
    stored = inside(b, B, n, D)
    at = b.to(tl.int64)[:, None] * D + n[None, :]
    acc += tl.load(given + at, mask=stored, other=0.0).to(acc.dtype)
    if STATES:
        acc += tl.load(state_grad + at, mask=stored, other=0.0).to(acc.dtype)
    if STORE:
        store(d + at, acc, stored)
    return acc


@triton.jit
def _end(
    acc, x0, given, state_grad, d, activations, dx0, gradients, bias_sums, b, unit, B, D,
    G: tl.constexpr, FIRST: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """dh of a tile, then the gate part of the step before it. dh of the first step is added to dx0."""
    acc = _dh(acc, given, state_grad, d, b, unit, B, D, STATES, not FIRST)
    if FIRST:
        n = unit + tl.arange(0, acc.shape[1])
        stored = inside(b, B, n, D)
        at = b.to(tl.int64)[:, None] * D + n[None, :]
        store(dx0 + at, tl.load(dx0 + at, mask=stored, other=0.0) + acc, stored)
    else:
        _gate(acc, x0, activations, dx0, gradients, bias_sums, b, unit, B, D, G, True)


@triton.jit
def cross_rnn_backward_step(
    x0, grad, d, activations, dx0, gradients, bias_sums, shared_weight, private_weight, index,
    B, D, C, R, num_shared, num_private, first_row, grad_at, grad_stride, state_at,
    activations_at, activations_stride, read, write, gradients_stride, sums_at, sums_stride,
    G: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, STATES: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The product part of a step and the gate part of the step before it. d comes from ``grad + grad_at`` (LAST) or the buffer ``d``.

    ``gradients + read`` are da|dq of this step, those of the step before go to ``gradients + write``.
    """
    task = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    D = aligned(D, V)
    unit_tiles = tl.cdiv(D, BLOCK_D)
    row_tile, unit = tl.program_id(0) // unit_tiles, tl.program_id(0) % unit_tiles * BLOCK_D
    b = row_tile * BLOCK_B + tl.arange(0, BLOCK_B)
    ACC: tl.constexpr = dx0.dtype.element_ty
    C = aligned(C, V)
    d += task * B * D
    given = d
    if LAST:
        given = grad + aligned(grad_at + task * grad_stride, V)
    gradients += aligned(task * gradients_stride, V)
    read, write = aligned(read, V), aligned(write, V)
    acc = add_gradient_product(
        tl.zeros((BLOCK_B, BLOCK_D), dtype=ACC), gradients + read, shared_weight, private_weight, index + task * R + first_row,
        tl.minimum(b, B - 1).to(tl.int64), unit + tl.arange(0, BLOCK_D), D, C, D, C + D, num_shared, num_private, task,
        G, ALIGN, PRECISION, BLOCK_K,
    )  # fmt: skip
    state_grad = grad + aligned(state_at + task * grad_stride, V)
    activations += aligned(activations_at + task * activations_stride, V)
    dx0 += task * B * D
    bias_sums += sums_at + task * sums_stride + row_tile * (G * D)
    if BLOCK_D >= 64:
        left, right = halves(acc)
        half: tl.constexpr = BLOCK_D // 2
        _end(left, x0, given, state_grad, d, activations, dx0, gradients + write, bias_sums, b, unit, B, D, G, FIRST, STATES)
        _end(right, x0, given, state_grad, d, activations, dx0, gradients + write, bias_sums, b, unit + half, B, D, G, FIRST, STATES)
    else:
        _end(acc, x0, given, state_grad, d, activations, dx0, gradients + write, bias_sums, b, unit, B, D, G, FIRST, STATES)
