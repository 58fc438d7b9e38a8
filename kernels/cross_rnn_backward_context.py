"""The backward of cross_rnn for the context: its gradient is a product with the first C columns of the weights, summed over tasks."""

import triton
import triton.language as tl

from .cross_rnn_backward import add_gradient_product
from .tiles import aligned, inside, store


@triton.jit
def cross_rnn_backward_context(
    dcontext, gradients, shared_weight, private_weight, index,
    B, D, C, T, R, num_shared, num_private, first_row, rows_a_step, context_at, read, gradients_stride, step_stride,
    G: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The gradient of the context, summed over tasks in their order; the second axis of the grid is the step."""
    step = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (gradients.dtype.element_ty.primitive_bitwidth // 8)
    D, C = aligned(D, V), aligned(C, V)
    column_tiles = tl.cdiv(C, BLOCK_D)
    b = tl.program_id(0) // column_tiles * BLOCK_B + tl.arange(0, BLOCK_B)
    n = tl.program_id(0) % column_tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    ACC: tl.constexpr = tl.float64 if dcontext.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BLOCK_B, BLOCK_D), dtype=ACC)
    gradients += aligned(read + step * step_stride, V)
    for task in range(T):
        owner = tl.cast(task, tl.int64)
        acc = add_gradient_product(
            acc, gradients + aligned(owner * gradients_stride, V), shared_weight, private_weight,
            index + task * R + first_row + step * rows_a_step, tl.minimum(b, B - 1).to(tl.int64), n, C, 0, D, C + D,
            num_shared, num_private, owner, G, ALIGN, PRECISION, BLOCK_K,
        )  # fmt: skip
    at = aligned(context_at, V) + (step * B + b)[:, None] * C + n[None, :]
    store(dcontext + at, acc, inside(b, B, n, C))
