"""``param_gather`` by the Triton kernels, as operators that PyTorch's compiler sees into."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import wrap_triton

from .launch import alignment, on_device_of, operator
from .param_gather import param_gather_rows, param_gather_sum

GATHER_COLUMNS, GATHER_VALUES = 1024, 2048
"""Columns and values of a tile of the gather, at most."""
SUM_ROWS, SUM_COLUMNS = 256, 512
"""Rows of the index looked through at a time and columns of a tile of the sum, at most: twice as many spill."""


def param_gather(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    """:func:`dcrnn_fast.reference.param_gather` by the Triton kernels."""
    return torch.ops.dcrnn_fast.triton_param_gather(shared, private, index)


@operator("dcrnn_fast::triton_param_gather", mutates_args={})
def forward(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    """[S, ...], [T, P, ...], int32 [T, R] to [T, R, ...]."""
    out = shared.new_empty(*index.shape, *shared.shape[1:])
    if out.numel() == 0:
        return out
    shared, private, index = shared.contiguous(), private.contiguous(), index.contiguous()
    places, size = index.numel(), out.numel() // index.numel()
    block_n = min(triton.next_power_of_2(size), GATHER_COLUMNS)
    block_r = max(1, GATHER_VALUES // block_n)
    with on_device_of(shared):
        wrap_triton(param_gather_rows)[(triton.cdiv(places, block_r), triton.cdiv(size, block_n))](
            shared, private, index, out, places, index.shape[1], size, shared.shape[0], private.shape[1],
            ALIGN=alignment((size,), shared, private), BLOCK_R=block_r, BLOCK_N=block_n, enable_fp_fusion=False,
        )  # fmt: skip
    return out


@operator("dcrnn_fast::triton_param_gather_backward", mutates_args={})
def backward(grad: Tensor, index: Tensor, num_shared: int, num_private: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gradients of the banks, [S, ...] and [T, P, ...] in ``dtype``, from that of the gathered rows [T, R, ...]."""
    tasks, rows = index.shape
    shared = grad.new_empty(num_shared, *grad.shape[2:], dtype=dtype)
    private = grad.new_empty(tasks, num_private, *grad.shape[2:], dtype=dtype)
    size, bank_rows = grad[0, 0].numel() if grad.numel() else 0, num_shared + tasks * num_private
    if grad.numel() == 0:
        return shared.zero_(), private.zero_()
    if bank_rows:
        block_r, block_n = min(triton.next_power_of_2(rows), SUM_ROWS), min(triton.next_power_of_2(size), SUM_COLUMNS)
        with on_device_of(grad):
            wrap_triton(param_gather_sum)[(bank_rows, triton.cdiv(size, block_n))](
                grad.contiguous(), index.contiguous(), shared, private, tasks, rows, size, num_shared, num_private,
                BLOCK_R=block_r, BLOCK_N=block_n, enable_fp_fusion=False,
            )  # fmt: skip
    return shared, private


@forward.register_fake
def _(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    return shared.new_empty(*index.shape, *shared.shape[1:])


@backward.register_fake
def _(grad: Tensor, index: Tensor, num_shared: int, num_private: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    shape = grad.shape[2:]
    return grad.new_empty(num_shared, *shape, dtype=dtype), grad.new_empty(index.shape[0], num_private, *shape, dtype=dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    shared, private, index = inputs
    ctx.save_for_backward(index)
    ctx.rows = shared.shape[0], private.shape[1], shared.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    (index,) = ctx.saved_tensors
    return *torch.ops.dcrnn_fast.triton_param_gather_backward(grad, index, *ctx.rows), None


def _keep_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[1])


def _double_backward(ctx: Any, shared: Tensor, private: Tensor) -> tuple[Tensor, None, None, None, None]:
    (index,) = ctx.saved_tensors
    return torch.ops.dcrnn_fast.triton_param_gather(shared, private, index), None, None, None, None


forward.register_autograd(_backward, setup_context=_keep)
backward.register_autograd(_double_backward, setup_context=_keep_backward)
