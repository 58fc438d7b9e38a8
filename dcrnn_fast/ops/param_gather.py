"""The contract of ``param_gather``. Its backward is linear, and the derivative of the backward is ``param_gather`` again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..support.checks import FLOATING, check_memory, check_tensor
from .autograd import register_derivative
from .checks import check_banks, check_rows


def check_backward(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> None:
    """Raise TypeError or ValueError unless the backward's arguments fit each other: callers of an operator may have checked nothing."""
    check_tensor("grad", grad, "floats [T, R, ...]")
    check_tensor("index", index, "int32 [T, R]")
    for name, tensor in (("grad", grad), ("index", index)):
        check_memory(name, tensor)
    if index.dtype != torch.int32:
        raise TypeError(f"index: got dtype {index.dtype}, expected torch.int32")
    if grad.dtype not in FLOATING:
        raise TypeError(f"grad: got dtype {grad.dtype}, expected a floating dtype of at least 16 bits")
    if index.dim() != 2 or grad.dim() < 2 or grad.shape[:2] != index.shape:
        raise ValueError(f"grad: got shape {list(grad.shape)}, expected [T, R, ...] beside index {list(index.shape)}")
    if index.device != grad.device:
        raise ValueError(f"index: got device {index.device}, expected {grad.device} as grad is on")
    check_rows(num_shared, num_private, index, "num_shared, num_private")


def _forward(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    """[S, ...], [T, P, ...] and int32 [T, R] to [T, R, ...]."""
    check_banks("shared", shared, "private", private, index)
    return shared.new_empty(*index.shape, *shared.shape[1:])


def _backward(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> tuple[Tensor, Tensor]:
    """The gradients of shared and private from that of the gathered rows."""
    check_backward(grad, index, num_shared, num_private)
    trailing = grad.shape[2:]
    return grad.new_empty(num_shared, *trailing), grad.new_empty(index.shape[0], num_private, *trailing)


DECLARATIONS: dict[str, Callable[..., Any]] = {"param_gather": _forward, "param_gather_backward": _backward}


def register_autograd(namespace: str) -> Callable[..., Tensor]:
    """Register the derivatives of a namespace's operators, and return the function that computes by them."""
    operators = getattr(torch.ops, namespace)

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        shared, private, index = inputs
        ctx.save_for_backward(index)
        ctx.rows = shared.shape[0], private.shape[1]

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (index,) = ctx.saved_tensors
        return *gather_backward(grad, index, *ctx.rows), None

    def save_index(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    def double_backward(ctx: Any, shared: Tensor, private: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        return gather(shared, private, index), None, None, None

    gather = register_derivative(operators.param_gather.default, save, backward)
    gather_backward = register_derivative(operators.param_gather_backward.default, save_index, double_backward)
    return gather
