"""param_gather: gathers rows of a shared and a private bank by index. Its backward lists the places that read each bank row, and sums.

With T tasks, R rows a task, S shared and P private rows of N values::

    out[t, r] = shared[index[t, r]]  where index[t, r] < S, else private[t, index[t, r] - S]
"""

from math import prod
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import common
from .common import alignment, bank_rows, divide_up, on_device_of, store, to_tf32

GATHER_COLUMNS, GATHER_VALUES = 1024, 2048
"""Columns and values of a tile of the gather, at most."""
LIST_ROWS, LIST_PLACES = 8, 128
"""Bank rows that a program lists the readers of, and places that it compares with them at a time, at most."""
SUM_VALUES = 512
"""Values of a tile of the sum, at most: of one bank row, or of several narrow ones."""


@triton.jit
def copy_rows(
    tile, shared, private, index, out, places, R, N, num_shared, num_private,
    ALIGN: tl.constexpr, TF32: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Copy a tile of places t * R + r and columns. A row whose index is out of range becomes NaN.

    TF32 rounds the values to tf32, for products whose operand they are.
    """
    column_tiles = tl.cdiv(N, BLOCK_N)
    place = tl.cast(tile // column_tiles, tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    n = tile % column_tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    safe = tl.minimum(place, places - 1)
    rows, valid = bank_rows(shared, private, index, safe, num_shared, num_private, N, safe // R, ALIGN)
    values = tl.load(rows[:, None] + n[None, :], mask=(n < N)[None, :], other=0.0)
    if TF32:
        values = to_tf32(values)
    values = tl.where(valid[:, None], values, float("nan"))
    tl.store(out + place[:, None] * N + n[None, :], values, mask=(place < places)[:, None] & (n < N)[None, :])


@triton.jit
def param_gather_rows(
    shared, private, index, out, places, R, N, num_shared, num_private,
    ALIGN: tl.constexpr, TF32: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Copy rows of one pair of banks."""
    copy_rows(
        tl.program_id(0), shared, private, index, out, places, R, N, num_shared, num_private, ALIGN, TF32, BLOCK_R, BLOCK_N
    )  # fmt: skip


@triton.jit
def param_gather_low_rank(
    shared_weight, shared_bias, private_weight, private_bias, index, shared_projection, private_projection, projection_index,
    weight, bias, projection, places, R, num_shared, num_private,
    projection_places, projection_rows, projection_shared, projection_private, K,
    G: tl.constexpr, RANK: tl.constexpr, ALIGN: tl.constexpr, TF32: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """All that a cell of low rank gathers: its weights and, by the same index, biases; then, in further programs, its projections."""
    column_tiles: tl.constexpr = (G * RANK + BLOCK_N - 1) // BLOCK_N
    tile, of_weights = tl.program_id(0), tl.cdiv(places, BLOCK_R) * column_tiles
    if tile < of_weights:
        copy_rows(
            tile, shared_weight, private_weight, index, weight, places, R, G * RANK, num_shared, num_private, ALIGN, TF32, BLOCK_R, BLOCK_N
        )
        if tile % column_tiles == 0:
            VALUE: tl.constexpr = bias.dtype.element_ty.primitive_bitwidth // 8
            copy_rows(
                tile // column_tiles, shared_bias, private_bias, index, bias, places, R, G, num_shared, num_private,
                VALUE, False, BLOCK_R, G,
            )  # fmt: skip
    else:
        copy_rows(
            tile - of_weights, shared_projection, private_projection, projection_index, projection, projection_places, projection_rows,
            G * K, projection_shared, projection_private, ALIGN, TF32, BLOCK_P, BLOCK_K,
        )  # fmt: skip


@triton.jit
def param_gather_readers(
    index, readers, ranges, T, R, num_shared, num_private, BLOCK_S: tl.constexpr, BLOCK_R: tl.constexpr
):  # fmt: skip
    """The inverse of an index: for each bank row the places that read it, by task, then by row; a place is t * 2**32 + r.

    A program lists those of BLOCK_S rows of the shared bank, or of a task's private bank, which this task's places alone read. It goes
    through these places twice: first it counts those of lower rows of the bank, then it knows where each list begins. ``readers`` [2, T, R]
    has the lists of the shared rows, then those of each task's own rows; ``ranges`` [S + T * P, 2] where in it each row's list begins and
    ends. A value out of range is in no list.
    """
    shared_blocks, private_blocks = tl.cdiv(num_shared, BLOCK_S), tl.cdiv(num_private, BLOCK_S)
    block = tl.program_id(0)
    first_task, last_task, lowest, count = 0, T, 0, num_shared
    first_row, list_start = tl.cast(0, tl.int64), tl.cast(0, tl.int64)
    if block >= shared_blocks:
        first_task = (block - shared_blocks) // private_blocks
        last_task = first_task + 1
        block = (block - shared_blocks) % private_blocks
        lowest, count = num_shared, num_private
        first_row = num_shared + tl.cast(first_task, tl.int64) * num_private
        list_start = (tl.cast(T, tl.int64) + first_task) * R
    row = block * BLOCK_S + tl.arange(0, BLOCK_S)
    wanted, there = lowest + row, row < count
    start = tl.zeros((BLOCK_S,), dtype=tl.int64) + list_start
    for task in range(first_task, last_task):
        of_task = index + tl.cast(task, tl.int64) * R
        for at in range(0, R, BLOCK_R):
            r = at + tl.arange(0, BLOCK_R)
            value = tl.load(of_task + r, mask=r < R, other=-1)
            lower = (value >= lowest)[None, :] & (value[None, :] < wanted[:, None])
            start += tl.sum(lower.to(tl.int32), axis=1)
    end = start
    for task in range(first_task, last_task):
        of_task, first_place = index + tl.cast(task, tl.int64) * R, tl.cast(task, tl.int64) << 32
        for at in range(0, R, BLOCK_R):
            r = at + tl.arange(0, BLOCK_R)
            value = tl.load(of_task + r, mask=r < R, other=-1)
            reads = (value[None, :] == wanted[:, None]) & there[:, None]
            before = tl.cumsum(reads.to(tl.int32), axis=1) - 1
            tl.store(readers + end[:, None] + before, (first_place + r)[None, :], mask=reads)
            end += tl.sum(reads.to(tl.int32), axis=1)
    tl.store(ranges + 2 * (first_row + row), start, mask=there)
    tl.store(ranges + 2 * (first_row + row) + 1, end, mask=there)


@triton.jit
def param_gather_sum(
    grad, first_part, bias_rows, readers, ranges, shared, private, shared_bias, private_bias,
    R, K, parts, task_stride, part_stride, row_stride, gate_stride, first_stride, bank_rows, num_shared,
    G: tl.constexpr, FIRST: tl.constexpr, BIAS: tl.constexpr, ALIGN: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The gradients of bank rows: each the sum over the places that read the row, by task, then by row, of all parts of a place's gradient.

    ``grad`` [T, parts, R, G, K] lies in memory by its strides. With FIRST, each place has one more part, in ``first_part`` [T, R, G, K].
    With BIAS, so many values of each place, ``bias_rows`` [T, R, BIAS], are added up too, for two banks of biases. There are no atomics, so
    every run gives the same bits. Narrow rows share a program, which goes on to the end of the longest list.
    """
    column_tiles = tl.cdiv(K, BLOCK_N)
    tile, program = tl.program_id(0) % column_tiles, tl.program_id(0) // column_tiles
    gate = tl.cast(program % G, tl.int64)
    row = (program // G).to(tl.int64) * BLOCK_S + tl.arange(0, BLOCK_S)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    there, inside = row < bank_rows, (n < K)[None, :]
    first = tl.load(ranges + 2 * row, mask=there, other=0)
    last = tl.load(ranges + 2 * row + 1, mask=there, other=0)
    ACC: tl.constexpr = tl.float64 if grad.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((BLOCK_S, BLOCK_N), dtype=ACC)
    of_gate = gate * gate_stride + n
    if BIAS:
        b = tl.arange(0, BIAS)
        of_first = (b < tl.where(tl.program_id(0) % (column_tiles * G) == 0, BIAS, 0))[None, :]  # one program writes a row's biases
        total_bias = tl.zeros((BLOCK_S, BIAS), dtype=ACC)
    for number in range(tl.max(last - first)):
        reads = first + number < last
        place = tl.load(readers + first + number, mask=reads, other=0)
        task, r = place >> 32, place & 0xFFFFFFFF
        at = r * row_stride
        if FIRST:
            values = first_part + (task * first_stride + at)[:, None] + of_gate[None, :]
            total += tl.load(values, mask=reads[:, None] & inside, other=0.0).to(ACC)
        values = grad + (task * task_stride + at)[:, None] + of_gate[None, :]
        for part in range(parts):
            offset = tl.cast(part, tl.int64) * part_stride
            total += tl.load(values + offset, mask=reads[:, None] & inside, other=0.0).to(ACC)
        if BIAS:
            values = bias_rows + ((task * R + r) * BIAS)[:, None] + b[None, :]
            total_bias += tl.load(values, mask=reads[:, None] & of_first, other=0.0).to(ACC)
    own = row - num_shared
    width = tl.cast(K, tl.int64) * G
    target = tl.multiple_of(tl.where(row < num_shared, shared + row * width, private + own * width), ALIGN)
    store(target[:, None] + (gate * K + n)[None, :], total, there[:, None] & inside)
    if BIAS:
        target_bias = tl.where(row < num_shared, shared_bias + row * BIAS, private_bias + own * BIAS)
        store(target_bias[:, None] + b[None, :], total_bias, there[:, None] & of_first)


def gather(shared: Tensor, private: Tensor, index: Tensor, *, tf32: bool = False) -> Tensor:
    """[S, ...], [T, P, ...], int32 [T, R] to [T, R, ...]; with ``tf32``, float32 values come rounded to tf32."""
    out = shared.new_empty(*index.shape, *shared.shape[1:])
    if out.numel() == 0:
        return out
    shared, private, index = shared.contiguous(), private.contiguous(), index.contiguous()
    places, size = index.numel(), out.numel() // index.numel()
    block_r, block_n = _tile(size)
    with on_device_of(shared):
        common.launch(
            param_gather_rows, (divide_up(places, block_r) * divide_up(size, block_n),),
            shared=shared, private=private, index=index, out=out, places=places, R=index.shape[1], N=size,
            num_shared=shared.shape[0], num_private=private.shape[1],
            ALIGN=alignment((size,), shared, private), TF32=tf32, BLOCK_R=block_r, BLOCK_N=block_n, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def gather_low_rank(
    banks: tuple[Tensor, Tensor, Tensor, Tensor],
    index: Tensor,
    projections: tuple[Tensor, Tensor, Tensor],
    gates: int,
    rank: int,
    *,
    tf32: bool,
) -> dict[str, Tensor]:
    """What a cell of low rank reads by its two indices, in one launch: weights [T, R, G, r], biases [T, R, G], projections [T, W r, G, K].

    None of them is empty. With ``tf32``, weights and projections in float32 come rounded to tf32.
    """
    (shared, shared_bias, private, private_bias), (of_all, of_tasks, places) = banks, projections
    columns, empty = of_all.shape[2], shared.new_empty
    out = {
        "weight": empty(*index.shape, gates, rank),
        "bias": empty(*index.shape, gates),
        "projection": empty(*places.shape, gates, columns),
    }
    of_all, of_tasks, places = of_all.contiguous(), of_tasks.contiguous(), places.contiguous()
    (block_r, block_n), (block_p, block_k) = _tile(gates * rank), _tile(gates * columns)
    tiles = divide_up(index.numel(), block_r) * divide_up(gates * rank, block_n)
    with on_device_of(shared):
        common.launch(
            param_gather_low_rank, (tiles + divide_up(places.numel(), block_p) * divide_up(gates * columns, block_k),),
            shared_weight=shared, shared_bias=shared_bias, private_weight=private, private_bias=private_bias, index=index,
            shared_projection=of_all, private_projection=of_tasks, projection_index=places, **out,
            places=index.numel(), R=index.shape[1], num_shared=shared.shape[0], num_private=private.shape[1],
            projection_places=places.numel(), projection_rows=places.shape[1],
            projection_shared=of_all.shape[0], projection_private=of_tasks.shape[1], K=columns, G=gates, RANK=rank,
            ALIGN=alignment((gates * rank, gates * columns), shared, private, of_all, of_tasks), TF32=tf32,
            BLOCK_R=block_r, BLOCK_N=block_n, BLOCK_P=block_p, BLOCK_K=block_k, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def _tile(size: int) -> tuple[int, int]:
    """The rows of ``size`` values, and the columns, that a program copies."""
    columns = min(triton.next_power_of_2(size), GATHER_COLUMNS)
    return max(1, GATHER_VALUES // columns), columns


class Readers(NamedTuple):
    """The places that read each bank row, as :func:`param_gather_readers` lists them, and the sizes S and P of the banks."""

    places: Tensor
    ranges: Tensor
    num_shared: int
    num_private: int


def readers_of(index: Tensor, num_shared: int, num_private: int) -> Readers:
    """The inverse of an index int32 [T, R]; one serves the sums of all gradients by this index."""
    tasks, rows = index.shape
    lists = index.new_empty(tasks * rows + num_shared + tasks * num_private, 2, dtype=torch.int64)
    places, ranges = lists[: tasks * rows], lists[tasks * rows :]
    if places.numel() and ranges.numel():
        blocks = divide_up(num_shared, LIST_ROWS) + tasks * divide_up(num_private, LIST_ROWS)
        with on_device_of(index):
            common.launch(
                param_gather_readers, (blocks,),
                index=index.contiguous(), readers=places, ranges=ranges, T=tasks, R=rows, num_shared=num_shared, num_private=num_private,
                BLOCK_S=LIST_ROWS, BLOCK_R=min(triton.next_power_of_2(rows), LIST_PLACES),
            )  # fmt: skip
    return Readers(places, ranges, num_shared, num_private)


def sum_rows(grad: Tensor, readers: Readers, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gradients of the banks, [S, ...] and [T, P, ...] in ``dtype``, from that of the gathered rows [T, R, ...]."""
    tasks, rows, trailing = *grad.shape[:2], grad.shape[2:]
    shared, private = sum_parts(grad.contiguous().view(tasks, 1, rows, 1, prod(trailing)), readers, dtype)
    return shared.view(readers.num_shared, *trailing), private.view(tasks, readers.num_private, *trailing)


def sum_parts(
    grad: Tensor, readers: Readers, dtype: torch.dtype, *, first: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Gradients of a cell's banks, [S, G, K] and [T, P, G, K] in ``dtype``, from parts of those of the gathered rows.

    ``grad`` [T, parts, R, G, K] may lie in any order but for K; ``first`` [T, R, G, K], which lies in the same order, is one more part. No
    sum is rounded before the end. With ``bias`` [T, R, G], the gradients of its banks, [S, G] and [T, P, G], follow.
    """
    (tasks, parts, rows, gates, columns), (of_task, of_part, of_row, of_gate, _) = grad.shape, grad.stride()
    made = [
        grad.new_empty(*bank, *trailing, dtype=dtype)
        for trailing in ((gates, columns), (gates,))[: 1 if bias is None else 2]
        for bank in ((readers.num_shared,), (tasks, readers.num_private))
    ]
    if grad.numel() == 0:
        return tuple([values.zero_() for values in made])
    if of_gate == columns:  # side by side: one row of both
        gates, columns, of_gate = 1, gates * columns, 0
    if bank_rows := readers.ranges.shape[0]:
        block_n = min(triton.next_power_of_2(columns), SUM_VALUES)
        block_s = min(triton.next_power_of_2(bank_rows), SUM_VALUES // block_n)
        with on_device_of(grad):
            common.launch(
                param_gather_sum, (divide_up(bank_rows, block_s) * gates * divide_up(columns, block_n),),
                grad=grad, first_part=grad if first is None else first, bias_rows=grad if bias is None else bias.contiguous(),
                readers=readers.places, ranges=readers.ranges,
                shared=made[0], private=made[1], shared_bias=made[-2], private_bias=made[-1],
                R=rows, K=columns, parts=parts, task_stride=of_task, part_stride=of_part, row_stride=of_row, gate_stride=of_gate,
                first_stride=0 if first is None else first.stride(0), bank_rows=bank_rows, num_shared=readers.num_shared,
                G=gates, FIRST=first is not None, BIAS=0 if bias is None else bias.shape[2],
                ALIGN=alignment((gates * columns,), *made[:2]), BLOCK_S=block_s, BLOCK_N=block_n, enable_fp_fusion=False,
            )  # fmt: skip
    return tuple(made)
