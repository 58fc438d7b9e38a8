"""Launches of param_gather and of the sums that are its backward."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from . import launch_options
from .launch_options import alignment, divide_up, on_device_of
from .param_gather import param_gather_low_rank, param_gather_readers, param_gather_rows, param_gather_sum

GATHER_COLUMNS, GATHER_VALUES = 1024, 2048
"""Columns and values of a tile of the gather, at most."""
LIST_ROWS, LIST_PLACES = 8, 128
"""Bank rows that a program lists the readers of, and places that it compares with them at a time, at most."""
SUM_VALUES = 512
"""Values of a tile of the sum, at most: of one bank row, or of several narrow ones."""


def gather(shared: Tensor, private: Tensor, index: Tensor, *, tf32: bool = False) -> Tensor:
    """[S, ...], [T, P, ...], int32 [T, R] to [T, R, ...]; with ``tf32``, float32 values come rounded to tf32."""
    out = shared.new_empty(*index.shape, *shared.shape[1:])
    if out.numel() == 0:
        return out
    shared, private, index = shared.contiguous(), private.contiguous(), index.contiguous()
    places, size = index.numel(), out.numel() // index.numel()
    block_r, block_n = _tile(size)
    with on_device_of(shared):
        launch_options.launch(
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
        launch_options.launch(
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
    """The places that read each bank row, as :func:`.param_gather.param_gather_readers` lists them, and the sizes S and P of the banks."""

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
            launch_options.launch(
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
            launch_options.launch(
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
