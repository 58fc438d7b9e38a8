"""The forward of cross_rnn for one tile of one step. A launch computes one step, or, for small batches, all steps.

Letters: T tasks, B rows, D units, C context columns, K = C + D, G = 2 (gated) or 1 (cross) vectors a unit. With u = [context, h]::

    a  = W u + b        g = sigmoid(V u + c)        h' = h + g * x0 * a

Row d of W and row d of V are neighbouring columns of one product, so the thread that holds a unit's a also holds its gate. A multiplication
that feeds an addition is written as ``fma``, so that the bits do not depend on what the compiler fuses.
"""

import triton
import triton.language as tl

from .tiles import add_product, aligned, bank_rows, inside, parts, sigmoid, store


@triton.jit
def _finish(acc, x0, h, out, activations, b, unit, B, D, G: tl.constexpr, SAVE: tl.constexpr, STORE: tl.constexpr):
    """a and the gate's argument to h', for the units from ``unit`` on."""
    BLOCK_D: tl.constexpr = acc.shape[1] // G
    d = unit + tl.arange(0, BLOCK_D)
    stored = inside(b, B, d, D)
    at = b.to(tl.int64)[:, None] * D + d[None, :]
    kept = b.to(tl.int64)[:, None] * (G * D) + d[None, :]
    update = tl.load(x0 + at, mask=stored).to(acc.dtype)
    if G == 2:
        a, q = tl.split(tl.reshape(acc, (acc.shape[0], BLOCK_D, 2)))
        g = sigmoid(q)
        update *= g
        if SAVE:
            store(activations + kept + D, g, stored)
    else:
        a = acc
    if SAVE:
        store(activations + kept, a, stored)
    if STORE:
        store(out + at, tl.fma(update, a, tl.load(h + at, mask=stored).to(acc.dtype)), stored)


@triton.jit
def _tile(
    x0, h, context, out, activations, shared_weight, shared_bias, private_weight, private_bias, index,
    B, D, C, num_shared, num_private, task, row_tile, unit_tile,
    G: tl.constexpr, HAS_CONTEXT: tl.constexpr, GATHERED: tl.constexpr, SAVE: tl.constexpr, STORE: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of one step of one task, where the pointers begin. Writes a, g to ``activations`` [B, G, D] and h' to ``out`` [B, D].

    With GATHERED, ``shared_weight`` are the step's weights [D, G, K], gathered before; else they are found by the index.
    """
    K = C + D
    # tiles at the edge compute the last row and unit several times and store them once, which saves a mask
    n = tl.arange(0, BLOCK_D * G)
    b = row_tile * BLOCK_B + tl.arange(0, BLOCK_B)
    row = tl.minimum(b, B - 1).to(tl.int64)
    unit = tl.minimum(unit_tile * BLOCK_D + n // G, D - 1)
    bias, valid = bank_rows(shared_bias, private_bias, index, unit, num_shared, num_private, G, task, 1)
    if GATHERED:
        weight = shared_weight + unit.to(tl.int64) * (G * K)
    else:
        weight, _ = bank_rows(shared_weight, private_weight, index, unit, num_shared, num_private, G * K, task, ALIGN)
    weight += n % G * K

    # the sums start at the biases: loaded after the loop, the biases would need registers that the accumulator holds
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    first = tl.where(valid, tl.load(bias + n % G).to(ACC), float("nan"))
    acc = tl.broadcast_to(first[None, :], (BLOCK_B, BLOCK_D * G))
    if HAS_CONTEXT:
        acc = add_product(acc, context + row * C, weight, C, PRECISION, BLOCK_K)
    acc = add_product(acc, h + row * D, weight + C, D, PRECISION, BLOCK_K)

    COUNT: tl.constexpr = 2 if BLOCK_D >= 64 else 1
    split = parts(acc, COUNT)
    for i in tl.static_range(COUNT):
        _finish(split[i], x0, h, out, activations, b, unit_tile * BLOCK_D + i * (BLOCK_D // COUNT), B, D, G, SAVE, STORE)


@triton.jit
def cross_rnn_step(
    x0, states, context, out, activations, shared_weight, shared_bias, private_weight, private_bias, index,
    B, D, C, R, num_shared, num_private, first_row, read, write, states_stride, context_at, activations_at, activations_stride,
    G: tl.constexpr, HAS_CONTEXT: tl.constexpr, GATHERED: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, SAVE: tl.constexpr,
    STORE: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One step; a program computes a tile. Reads x0 (FIRST) or ``states + read``; writes ``out`` [T, B, D] (LAST) or ``states + write``.

    Offsets and strides are in values: ``read``, ``write``, ``context_at`` and ``activations_at`` to the step, ``states_stride`` and
    ``activations_stride`` from task to task; ``first_row`` is the step's first row of the index.
    """
    task = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    D, C = aligned(D, V), aligned(C, V)
    unit_tiles = tl.cdiv(D, BLOCK_D)
    h = x0
    if not FIRST:
        h = states + aligned(read + task * states_stride, V)
    target = states + aligned(write + task * states_stride, V)
    if LAST:
        target = out + task * B * D
    context += aligned(context_at, V)
    activations += aligned(activations_at + task * activations_stride, V)
    if GATHERED:
        shared_weight += (task * R + first_row) * G * (C + D)
    _tile(
        x0, h, context, target, activations,
        shared_weight, shared_bias, private_weight, private_bias, index + task * R + first_row,
        B, D, C, num_shared, num_private, task, tl.program_id(0) // unit_tiles, tl.program_id(0) % unit_tiles,
        G, HAS_CONTEXT, GATHERED, SAVE, STORE, ALIGN, PRECISION, BLOCK_B, BLOCK_D, BLOCK_K,
    )  # fmt: skip
