"""The backward of cross_rnn from the last step to the first: da and dq of every step, then the gradients of x0 and of the context.

Letters as in cross_rnn; d = dL/dh' of a step. The backward of a step has two parts::

    gate part        da = d * g * x0        dq = d * x0 * a * g * (1 - g)        dx0 += d * g * a
    product part     dh = d + W^T da + V^T dq

One launch computes the product part of a step, and then the gate part of the step before it, which uses dh while it is in registers. dh is
that step's d. da and dq of a unit are neighbours, [B, D, G], as rows of W and V are in the gathered weights [R, G, K]: so one product over
G * D gives both terms. A product whose result is added later is written as ``fma`` with 0, so that the bits do not depend on what the
compiler fuses. What all tasks read, x0 and the context, has gradients that are summed over the tasks in their order: a program owns a tile
of the result, so there are no atomics, and the result is rounded once.
"""

import triton
import triton.language as tl

from .common import ITEMSIZE, Tile, Tiles, aligned, dot, inside, parts, store

START_UNITS = 32
"""Units of a tile of the first launch, which has no product."""


def _shared_bytes(tile: Tile, kind: str, gates: int, rank: int) -> int:
    return tile.stages * (tile.rows + tile.columns) * tile.products * ITEMSIZE[kind] + 2048


_LARGE = [(128, 256, 64, 8, 3), (128, 128, 64, 8, 4), (128, 128, 64, 8, 3)]
_HALF = [*_LARGE, (64, 128, 64, 4, 3), (64, 64, 64, 4, 4), (32, 64, 64, 4, 4)]
TILES = Tiles(
    "cross_rnn_backward",
    {
        "bfloat16": {0: _HALF},
        "float16": {0: _HALF},
        "tf32": {0: [(128, 128, 32, 8, 3), (64, 128, 32, 4, 3), (64, 64, 32, 4, 4), (32, 64, 32, 4, 4)]},
        "float32": {0: [(64, 64, 16, 8, 3), (64, 32, 16, 8, 3)]},
        "float64": {0: [(32, 32, 16, 4, 3)]},
    },
    _shared_bytes,
)
"""Of a step. The rows of a tile decide how bias gradients are added up."""
_HALF_INPUTS = [*_LARGE, (64, 64, 64, 8, 3), (32, 128, 64, 8, 3)]
INPUT_TILES = Tiles(
    "cross_rnn_backward",
    {
        "bfloat16": {0: _HALF_INPUTS},
        "float16": {0: _HALF_INPUTS},
        "tf32": {0: [(64, 64, 32, 8, 3), (32, 64, 32, 8, 3)]},
        "float32": {0: [(64, 64, 16, 8, 3)]},
        "float64": {0: [(32, 32, 16, 8, 3)]},
    },
    _shared_bytes,
)
"""Of the gradients of x0 and of the context, whose loop over tasks needs more registers."""


@triton.jit
def _dq(dg, x, a, g):
    """The gradient of the gate's argument; ``dg`` is d * g."""
    return tl.fma(dg * x * a, 1.0 - g, 0.0)


@triton.jit
def add_dx0(total, d, activations, b, unit, B, D, G: tl.constexpr):
    """``total`` plus d * g * a of a tile, where the pointers begin at a step of a task."""
    n = unit + tl.arange(0, total.shape[1])
    mask = inside(b, B, n, D)
    row = b.to(tl.int64)[:, None]
    kept = row * (G * D) + n[None, :]
    dg = tl.load(d + row * D + n[None, :], mask=mask, other=0.0).to(total.dtype)
    if G == 2:
        dg *= tl.load(activations + kept + D, mask=mask, other=0.0).to(total.dtype)
    return tl.fma(dg, tl.load(activations + kept, mask=mask, other=0.0).to(total.dtype), total)


@triton.jit
def _gate(
    d, x0, activations, terms, gradients, bias_sums, b, unit, B, D, G: tl.constexpr, ADD: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """The gate part of a tile: writes da, dq and their sums over the tile's rows. With ADD it adds to x0's ``terms``, LAST
    as the first of them."""
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
        da = tl.fma(dg, x, 0.0)
        m = unit * 2 + tl.arange(0, 2 * d.shape[1])
        both = b.to(tl.int64)[:, None] * (2 * D) + m[None, :]
        store(gradients + both, tl.interleave(da, dq), inside(b, B, m, 2 * D))
        store(bias_sums + m, tl.interleave(tl.sum(da, axis=0), tl.sum(dq, axis=0)), m < 2 * D)
    else:
        da = tl.fma(dg, x, 0.0)
        store(gradients + kept, da, stored)
        store(bias_sums + n, tl.sum(da, axis=0), n < D)
    if ADD:
        if LAST:
            store(terms + at, dg * a, stored)
        else:
            store(terms + at, tl.fma(dg, a, tl.load(terms + at, mask=stored, other=0.0)), stored)


@triton.jit
def cross_rnn_backward_start(
    x0, grad, activations, terms, gradients, bias_sums,
    B, D, grad_at, grad_stride, activations_at, activations_stride, write, write_stride, sums_at, sums_stride,
    G: tl.constexpr, ADD: tl.constexpr, ALIGN: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr,
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
    d = tl.load(grad + at, mask=inside(b, B, n, D), other=0.0).to(bias_sums.dtype.element_ty)
    activations += aligned(activations_at + task * activations_stride, V)
    gradients += aligned(write + task * write_stride, V)
    _gate(
        d, x0, activations, terms + task * B * D, gradients,
        bias_sums + sums_at + task * sums_stride + row_tile.to(tl.int64) * (G * D), b, unit, B, D, G, ADD, True,
    )  # fmt: skip


@triton.jit
def add_gradient_product(
    acc, gradients, weight, row, n, columns, first_column, D, K, G: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr
):
    """``acc`` plus W^T da + V^T dq of a task, where the pointers begin, for the columns ``first_column + n`` of its weights [D, G, K].

    The result has ``columns`` columns. For tf32 the weights come transposed, [K, D, G]: its tensor cores read both operands along the sum.
    """
    left = gradients + row * (G * D)
    within = (n < columns)[None, :]
    if PRECISION == "tf32":
        right = weight + (first_column + n).to(tl.int64)[None, :] * (G * D) + tl.arange(0, BLOCK_K)[:, None]
    else:
        right = weight + first_column + tl.arange(0, BLOCK_K).to(tl.int64)[:, None] * K + n[None, :]
    for start in range(0, G * D, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        u = tl.load(left[:, None] + k[None, :], mask=(k < G * D)[None, :], other=0.0)
        w = tl.load(right, mask=(k < G * D)[:, None] & within, other=0.0)
        acc = dot(u, w, acc, PRECISION)
        if PRECISION == "tf32":
            right += BLOCK_K
        else:
            right += BLOCK_K * K
    return acc


@triton.jit
def _end(
    acc, x0, given, state_grad, d, activations, terms, gradients, bias_sums, b, unit, B, D,
    G: tl.constexpr, ADD: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """dh of a tile: the product, d, and the gradient that the state itself was given (STATES). Then the gate part of the step before it."""
    n = unit + tl.arange(0, acc.shape[1])
    stored = inside(b, B, n, D)
    at = b.to(tl.int64)[:, None] * D + n[None, :]
    acc += tl.load(given + at, mask=stored, other=0.0).to(acc.dtype)
    if STATES:
        acc += tl.load(state_grad + at, mask=stored, other=0.0).to(acc.dtype)
    store(d + at, acc, stored)
    _gate(acc, x0, activations, terms, gradients, bias_sums, b, unit, B, D, G, ADD, False)


@TILES.tuned(["D", "C", "G"], restore=["terms"])
@triton.jit
def cross_rnn_backward_step(
    x0, grad, d, activations, terms, gradients, bias_sums, weight,
    B, D, C, grad_at, grad_stride, state_at, d_read, d_write, d_stride, activations_at, activations_stride,
    read, read_stride, write, write_stride, weight_at, weight_stride, sums_at, sums_stride,
    G: tl.constexpr, LAST: tl.constexpr, STATES: tl.constexpr, ADD: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The product part of a step and the gate part of the step before it. d comes from ``grad + grad_at`` (LAST) or ``d + d_read``.

    ``gradients + read`` are da|dq of this step, those of the step before go to ``gradients + write``, and its d to ``d + d_write``.
    """
    task = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    D, C = aligned(D, V), aligned(C, V)
    unit_tiles = tl.cdiv(D, BLOCK_D)
    row_tile, unit = tl.program_id(0) // unit_tiles, tl.program_id(0) % unit_tiles * BLOCK_D
    b = row_tile * BLOCK_B + tl.arange(0, BLOCK_B)
    ACC: tl.constexpr = bias_sums.dtype.element_ty
    given = d + aligned(d_read + task * d_stride, V)
    if LAST:
        given = grad + aligned(grad_at + task * grad_stride, V)
    acc = add_gradient_product(
        tl.zeros((BLOCK_B, BLOCK_D), dtype=ACC), gradients + aligned(read + task * read_stride, V),
        weight + aligned(weight_at + task * weight_stride, V), tl.minimum(b, B - 1).to(tl.int64), unit + tl.arange(0, BLOCK_D),
        D, C, D, C + D, G, PRECISION, BLOCK_K,
    )  # fmt: skip
    state_grad = grad + aligned(state_at + task * grad_stride, V)
    d += aligned(d_write + task * d_stride, V)
    activations += aligned(activations_at + task * activations_stride, V)
    gradients += aligned(write + task * write_stride, V)
    terms += task * B * D
    bias_sums += sums_at + task * sums_stride + row_tile.to(tl.int64) * (G * D)
    COUNT: tl.constexpr = 8 if BLOCK_D * gradients.dtype.element_ty.primitive_bitwidth >= 256 * 16 else 2 if BLOCK_D >= 64 else 1
    split = parts(acc, COUNT)
    for i in tl.static_range(COUNT):
        _end(
            split[i], x0, given, state_grad, d, activations, terms, gradients, bias_sums, b, unit + i * (BLOCK_D // COUNT), B, D,
            G, ADD, STATES,
        )  # fmt: skip


@INPUT_TILES.tuned(["D", "C", "G"])
@triton.jit
def cross_rnn_backward_context(
    dcontext, gradients, weight,
    B, D, C, T, context_at, read, read_stride, read_step, weight_at, weight_stride, weight_step,
    G: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The gradient of the context; the second axis of the grid is the step. Strides are in values, from task to task and step to step."""
    step = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (gradients.dtype.element_ty.primitive_bitwidth // 8)
    D, C = aligned(D, V), aligned(C, V)
    column_tiles = tl.cdiv(C, BLOCK_D)
    b = tl.program_id(0) // column_tiles * BLOCK_B + tl.arange(0, BLOCK_B)
    n = tl.program_id(0) % column_tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    ACC: tl.constexpr = tl.float64 if dcontext.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BLOCK_B, BLOCK_D), dtype=ACC)
    gradients += aligned(read + step * read_step, V)
    weight += aligned(weight_at + step * weight_step, V)
    for task in range(T):
        owner = tl.cast(task, tl.int64)
        acc = add_gradient_product(
            acc, gradients + aligned(owner * read_stride, V), weight + aligned(owner * weight_stride, V),
            tl.minimum(b, B - 1).to(tl.int64), n, C, 0, D, C + D, G, PRECISION, BLOCK_K,
        )  # fmt: skip
    at = aligned(context_at, V) + (step * B + b)[:, None] * C + n[None, :]
    store(dcontext + at, acc, inside(b, B, n, C))


@triton.jit
def _x0_end(
    acc, dx0, grad, d, activations, terms, b, unit, B, D, T, steps, grad_at, grad_stride, d_stride, activations_stride,
    G: tl.constexpr, ONE: tl.constexpr, STATES: tl.constexpr, ADDED: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """The rest of dx0 of a tile: of each task d of the first step, and d * g * a of every step, or ``terms`` (ADDED)."""
    n = unit + tl.arange(0, acc.shape[1])
    mask = inside(b, B, n, D)
    size = D * tl.cast(B, tl.int64)
    at = b.to(tl.int64)[:, None] * D + n[None, :]
    for task in range(T):
        owner = tl.cast(task, tl.int64)
        last = grad + aligned(grad_at + owner * grad_stride, V)
        ds = d + aligned(owner * d_stride, V)
        first = last
        if not ONE:
            first = ds
        acc += tl.load(first + at, mask=mask, other=0.0).to(acc.dtype)
        if STATES:
            acc += tl.load(grad + aligned(owner * grad_stride, V) + at, mask=mask, other=0.0).to(acc.dtype)
        if ADDED:
            acc += tl.load(terms + owner * size + at, mask=mask, other=0.0)
        else:
            kept = activations + aligned(owner * activations_stride, V)
            for step in range(steps - 1):
                acc = add_dx0(acc, ds + step * size, kept + step * G * size, b, unit, B, D, G)
            acc = add_dx0(acc, last, kept + (steps - 1) * G * size, b, unit, B, D, G)
    store(dx0 + at, acc, mask)


@INPUT_TILES.tuned(["D", "C", "G", "T"])
@triton.jit
def cross_rnn_backward_x0(
    dx0, gradients, weight, grad, d, activations, terms,
    B, D, C, T, steps, read, read_stride, weight_at, weight_stride, grad_at, grad_stride, d_stride, activations_stride,
    G: tl.constexpr, ONE: tl.constexpr, STATES: tl.constexpr, ADDED: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The gradient of x0: dh of the first step, and d * g * a of every step. ``d`` [T, steps - 1, B, D] are those before the last step's,
    which is ``grad + grad_at``; ONE says that the first step is the last. STATES: ``grad`` begins with the start state's own gradient.

    With ADDED, ``terms`` [T, B, D] holds the sums of d * g * a, ``d`` the first step's alone, and no activations are read.
    """
    V: tl.constexpr = ALIGN // (gradients.dtype.element_ty.primitive_bitwidth // 8)
    D, C = aligned(D, V), aligned(C, V)
    unit_tiles = tl.cdiv(D, BLOCK_D)
    b = tl.program_id(0) // unit_tiles * BLOCK_B + tl.arange(0, BLOCK_B)
    unit = tl.program_id(0) % unit_tiles * BLOCK_D
    ACC: tl.constexpr = tl.float64 if dx0.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BLOCK_B, BLOCK_D), dtype=ACC)
    gradients += aligned(read, V)
    weight += aligned(weight_at, V)
    for task in range(T):
        owner = tl.cast(task, tl.int64)
        acc = add_gradient_product(
            acc, gradients + aligned(owner * read_stride, V), weight + aligned(owner * weight_stride, V),
            tl.minimum(b, B - 1).to(tl.int64), unit + tl.arange(0, BLOCK_D), D, C, D, C + D, G, PRECISION, BLOCK_K,
        )  # fmt: skip
    COUNT: tl.constexpr = 8 if BLOCK_D * gradients.dtype.element_ty.primitive_bitwidth >= 256 * 16 else 2 if BLOCK_D >= 64 else 1
    split = parts(acc, COUNT)
    for i in tl.static_range(COUNT):
        _x0_end(
            split[i], dx0, grad, d, activations, terms, b, unit + i * (BLOCK_D // COUNT), B, D, T, steps,
            grad_at, grad_stride, d_stride, activations_stride, G, ONE, STATES, ADDED, V,
        )  # fmt: skip
