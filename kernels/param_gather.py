"""param_gather: gathers rows of a shared and a private bank by index. Its backward has one program for each bank row.

With T tasks, R rows a task, S shared and P private rows of N values::

    out[t, r] = shared[index[t, r]]  where index[t, r] < S, else private[t, index[t, r] - S]
"""

import triton
import triton.language as tl

from .tiles import bank_rows, store, to_tf32


@triton.jit
def param_gather_rows(
    shared, private, index, out, places, R, N, num_shared, num_private,
    ALIGN: tl.constexpr, TF32: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Copy rows. A program copies a tile of places t * R + r and columns. A row whose index is out of range becomes NaN.

    TF32 rounds the values to tf32, for products whose operand they are.
    """
    column_tiles = tl.cdiv(N, BLOCK_N)
    place = (tl.program_id(0) // column_tiles).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    n = tl.program_id(0) % column_tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    safe = tl.minimum(place, places - 1)
    rows, valid = bank_rows(shared, private, index, safe, num_shared, num_private, N, safe // R, ALIGN)
    values = tl.load(rows[:, None] + n[None, :], mask=(n < N)[None, :], other=0.0)
    if TF32:
        values = to_tf32(values)
    values = tl.where(valid[:, None], values, float("nan"))
    tl.store(out + place[:, None] * N + n[None, :], values, mask=(place < places)[:, None] & (n < N)[None, :])


@triton.jit
def param_gather_sum(
    grad, index, shared, private, T, R, N, num_shared, num_private, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """The gradient of one bank row: the sum over the places that read it, by task, then by row.

    There are no atomics, so every run gives the same bits. The program searches the whole index for its row, which is short
    compared with the gradient.
    """
    column_tiles = tl.cdiv(N, BLOCK_N)
    bank_row = tl.program_id(0) // column_tiles
    n = tl.program_id(0) % column_tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    first_task, last_task, wanted = 0, T, bank_row
    target = shared + bank_row.to(tl.int64) * N
    if bank_row >= num_shared:
        own = bank_row - num_shared
        first_task = own // num_private
        last_task = first_task + 1
        wanted = num_shared + own % num_private
        target = private + own.to(tl.int64) * N
    ACC: tl.constexpr = tl.float64 if grad.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((BLOCK_N,), dtype=ACC)
    for task in range(first_task, last_task):
        first = tl.cast(task, tl.int64) * R
        for start in range(0, R, BLOCK_R):
            r = start + tl.arange(0, BLOCK_R)
            hit = tl.load(index + first + r, mask=r < R, other=-1) == wanted
            found = -1
            for _ in range(tl.sum(hit.to(tl.int32))):
                found = tl.min(tl.where(hit & (r > found), r, R))
                at = (first + found) * N + n
                total += tl.load(grad + at, mask=n < N, other=0.0).to(ACC)
    store(target + n, total, n < N)
