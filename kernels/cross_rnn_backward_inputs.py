"""The backward of cross_rnn for what all tasks read, x0 and the context: products with the weights' columns, summed over the tasks.

Letters as in cross_rnn_backward. A program owns a tile of the result and adds the tasks in their order: no atomics, and the result is
rounded once.
"""

import triton
import triton.language as tl

from .cross_rnn_backward import add_dx0, add_gradient_product
from .tiles import aligned, inside, parts, store


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
