"""param_gather: gathers rows of a shared and a private bank by index. Its backward sorts the places by the row that they read, and sums.

With T tasks, R rows a task, S shared and P private rows of N values::

    out[t, r] = shared[index[t, r]]  where index[t, r] < S, else private[t, index[t, r] - S]
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import common
from .common import aligned, bank_rows, divide_up, store

GATHER_COLUMNS, GATHER_VALUES = 1024, 2048
"""Columns and values of a tile of the gather, at most."""
SUM_VALUES = 512
"""Values of a tile of the sum, at most: of one bank row, or of several narrow ones."""


@triton.jit
def param_gather_rows(
    shared, private, index, out, places, R, num_shared, num_private, N: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Copy a tile of places t * R + r and columns. A row whose index is out of range becomes NaN, for a kernel cannot raise."""
    COLUMN_TILES: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    place = (tl.program_id(0) // COLUMN_TILES).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    n = tl.program_id(0) % COLUMN_TILES * BLOCK_N + tl.arange(0, BLOCK_N)
    safe = tl.minimum(place, places - 1)
    row = tl.load(index + safe).to(tl.int64)
    valid = (row >= 0) & (row < num_shared + num_private)
    row = tl.where(valid, row, 0)
    own = safe // R * num_private + row - num_shared
    rows = bank_rows(row < num_shared, shared + row * N, private + own * N, N)
    values = tl.load(rows[:, None] + n[None, :], mask=valid[:, None] & (n < N)[None, :], other=float("nan"))
    tl.store(out + place[:, None] * N + n[None, :], values, mask=(place < places)[:, None] & (n < N)[None, :])


@triton.jit
def param_gather_sum(
    grad, order, ends, shared, private, rows, num_shared, N: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """The gradients of ``rows`` bank rows, shared ones first: the sum of the rows of ``grad`` [T * R, N] that read each, in their order.

    ``order`` [T * R] holds the places by the row that they read, and ``ends`` [rows + 1] where in it those of each row begin and end. There
    are no atomics, so every run gives the same bits. Narrow rows share a program, which goes on to the end of the longest list.
    """
    COLUMN_TILES: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    row = (tl.program_id(0) // COLUMN_TILES).to(tl.int64) * BLOCK_S + tl.arange(0, BLOCK_S)
    n = tl.program_id(0) % COLUMN_TILES * BLOCK_N + tl.arange(0, BLOCK_N)
    there, inside = row < rows, (n < N)[None, :]
    first = tl.load(ends + row, mask=there, other=0)
    last = tl.load(ends + row + 1, mask=there, other=0)
    total = tl.zeros((BLOCK_S, BLOCK_N), dtype=tl.float64 if grad.dtype.element_ty == tl.float64 else tl.float32)
    for number in range(tl.max(last - first)):
        reads = first + number < last
        place = tl.load(order + first + number, mask=reads, other=0)
        total += tl.load(grad + place[:, None] * N + n[None, :], mask=reads[:, None] & inside, other=0.0).to(total.dtype)
    target = bank_rows(row < num_shared, shared + row * N, private + (row - num_shared) * N, N)
    store(target[:, None] + n[None, :], total, there[:, None] & inside)


def param_gather(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    """The operator: [S, ...], [T, P, ...], int32 [T, R] to [T, R, ...]."""
    out = shared.new_empty(*index.shape, *shared.shape[1:])
    if out.numel():
        places, columns = index.numel(), int(out.numel() // index.numel())  # a graph fixes the columns
        block_n = min(triton.next_power_of_2(columns), GATHER_COLUMNS)
        block_r = max(1, GATHER_VALUES // block_n)
        common.launch(
            param_gather_rows, (divide_up(places, block_r) * divide_up(columns, block_n),),
            shared=aligned(shared), private=aligned(private), index=index.contiguous(), out=out, places=places, R=index.shape[1],
            num_shared=shared.shape[0], num_private=private.shape[1], N=columns, BLOCK_R=block_r, BLOCK_N=block_n,
        )  # fmt: skip
    return out


def param_gather_backward(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> tuple[Tensor, Tensor]:
    """The operator: the gradients of shared [S, ...] and private [T, P, ...], from [T, R, ...]."""
    (tasks, _), trailing, rows = index.shape, grad.shape[2:], num_shared + index.shape[0] * num_private
    made = grad.new_empty(num_shared, *trailing), grad.new_empty(tasks, num_private, *trailing)
    if grad.numel() == 0 or rows == 0:
        return made[0].zero_(), made[1].zero_()
    own = torch.arange(tasks, device=index.device).unsqueeze(1) * num_private
    row = torch.where(index < num_shared, index, index + own)
    row = torch.where((index >= 0) & (index < num_shared + num_private), row, rows)  # what is out of range is in no row's list
    read, order = torch.sort(row.flatten(), stable=True)
    ends = torch.searchsorted(read, torch.arange(rows + 1, device=index.device))
    columns = int(grad.numel() // index.numel())
    block_n = min(triton.next_power_of_2(columns), SUM_VALUES)
    block_s = min(triton.next_power_of_2(rows), SUM_VALUES // block_n)
    common.launch(
        param_gather_sum, (divide_up(rows, block_s) * divide_up(columns, block_n),),
        grad=grad.contiguous(), order=order, ends=ends, shared=made[0], private=made[1], rows=rows, num_shared=num_shared,
        N=columns, BLOCK_S=block_s, BLOCK_N=block_n,
    )  # fmt: skip
    return made
