"""The forward of cross_rnn in one launch: a program takes a tile of rows of one task through all steps.

A program reads only the rows of a state that it wrote itself. Between two steps it waits for its own threads alone. The states go through
the L2 cache. This suits small batches, whose steps take less time than a launch; a large batch needs more programs than it has row tiles.
"""

import triton
import triton.language as tl

from .cross_rnn_forward import _tile
from .tiles import aligned


@triton.jit
def cross_rnn_all_steps(
    x0, states, context, out, activations, shared_weight, shared_bias, private_weight, private_bias, index,
    B, D, C, R, num_shared, num_private, steps, rows_a_step, slots, first_slot, states_stride,
    G: tl.constexpr, HAS_CONTEXT: tl.constexpr, GATHERED: tl.constexpr, TO_OUT: tl.constexpr, SAVE: tl.constexpr,
    ALIGN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """All steps of all tasks. The state after step l goes to slot ``(first_slot + l) % slots`` of ``states``, the last to ``out`` (TO_OUT).

    A task's states are ``slots`` matrices [B, D], one after the other. ``rows_a_step`` is D for untied weights and 0 for tied ones.
    """
    task = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    D, C = aligned(D, V), aligned(C, V)
    size = D * tl.cast(B, tl.int64)
    states += aligned(task * states_stride, V)
    activations += task * steps * G * size
    index += task * R
    weight = shared_weight
    if GATHERED:
        weight += task * R * G * (C + D)
    h = x0
    for step in range(steps):
        target = states + (first_slot + step) % slots * size
        if TO_OUT:
            target = tl.where(step == steps - 1, out + task * size, target)
        for unit_tile in range(tl.cdiv(D, BLOCK_D)):
            _tile(
                x0, h, context + step * C * tl.cast(B, tl.int64), target, activations + step * G * size,
                weight, shared_bias, private_weight, private_bias, index + step * rows_a_step,
                B, D, C, num_shared, num_private, task, tl.program_id(0), unit_tile,
                G, HAS_CONTEXT, GATHERED, SAVE, True, ALIGN, PRECISION, BLOCK_B, BLOCK_D, BLOCK_K,
            )  # fmt: skip
        if GATHERED:
            weight += tl.cast(rows_a_step, tl.int64) * (G * (C + D))
        tl.debug_barrier()
        h = target
