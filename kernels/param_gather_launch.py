"""Launches of param_gather and of the sums that are its backward."""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from torch.library import wrap_triton

from .launch_options import alignment, on_device_of
from .param_gather import param_gather_rows, param_gather_sum

GATHER_COLUMNS, GATHER_VALUES = 1024, 2048
"""Columns and values of a tile of the gather, at most."""
SUM_ROWS, SUM_COLUMNS = 128, 512
"""Rows of the index that a program searches at a time, and columns of a tile of the sum, at most. Twice as many spill registers."""


def gather(shared: Tensor, private: Tensor, index: Tensor, *, tf32: bool = False) -> Tensor:
    """[S, ...], [T, P, ...], int32 [T, R] to [T, R, ...]; with ``tf32``, float32 values come rounded to tf32."""
    out = shared.new_empty(*index.shape, *shared.shape[1:])
    if out.numel() == 0:
        return out
    shared, private, index = shared.contiguous(), private.contiguous(), index.contiguous()
    places, size = index.numel(), out.numel() // index.numel()
    block_n = min(triton.next_power_of_2(size), GATHER_COLUMNS)
    block_r = max(1, GATHER_VALUES // block_n)
    with on_device_of(shared):
        wrap_triton(param_gather_rows)[(triton.cdiv(places, block_r) * triton.cdiv(size, block_n),)](
            shared, private, index, out, places, index.shape[1], size, shared.shape[0], private.shape[1],
            ALIGN=alignment((size,), shared, private), TF32=tf32, BLOCK_R=block_r, BLOCK_N=block_n, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def sum_rows(grad: Tensor, index: Tensor, num_shared: int, num_private: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gradients of the banks, [S, ...] and [T, P, ...] in ``dtype``, from that of the gathered rows [T, R, ...]."""
    tasks, rows = index.shape
    shared = grad.new_empty(num_shared, *grad.shape[2:], dtype=dtype)
    private = grad.new_empty(tasks, num_private, *grad.shape[2:], dtype=dtype)
    if grad.numel() == 0:
        return shared.zero_(), private.zero_()
    size, bank_rows = grad[0, 0].numel(), num_shared + tasks * num_private
    if bank_rows:
        block_r, block_n = min(triton.next_power_of_2(rows), SUM_ROWS), min(triton.next_power_of_2(size), SUM_COLUMNS)
        with on_device_of(grad):
            wrap_triton(param_gather_sum)[(bank_rows * triton.cdiv(size, block_n),)](
                grad.contiguous(), index.contiguous(), shared, private, tasks, rows, size, num_shared, num_private,
                BLOCK_R=block_r, BLOCK_N=block_n, enable_fp_fusion=False,
            )  # fmt: skip
    return shared, private
