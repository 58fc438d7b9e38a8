"""Checks of tensors, their dtypes and devices. Each message names the argument, what came and what was expected."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""The dtypes in which the operators compute."""


def check_tensor(name: str, value: object, expected: str) -> None:
    """Raise TypeError unless ``value`` is a tensor, ValueError unless it is dense."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor of {expected}")
    if value.layout != torch.strided or value.is_nested:
        layout = "nested" if value.is_nested else value.layout
        raise ValueError(f"{name}: got a tensor of layout {layout}, expected a dense one (torch.strided)")


def check_memory(name: str, tensor: Tensor) -> None:
    """Raise ValueError where values lie beyond the storage, as after ``untyped_storage().resize_(0)``: a kernel would read them."""
    if torch.compiler.is_compiling() or type(tensor) not in (Tensor, Parameter):  # a subclass may have no memory of its own
        return
    if tensor.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return
    if any([size >= 2**31 for size in tensor.shape]):
        raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected sizes below 2**31")
    if not tensor.numel():
        return
    last = tensor.storage_offset() + sum([(size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)])
    held = tensor.untyped_storage().nbytes()
    if (last + 1) * tensor.element_size() > held:
        raise ValueError(
            f"{name}: got shape {list(tensor.shape)} in a storage of {held} bytes, expected memory for every value (was its storage freed?)"
        )


def check_alike(name: str, tensor: Tensor, others: dict[str, Tensor]) -> None:
    """Raise TypeError or ValueError unless ``others`` have the dtype and device of ``tensor``."""
    for other, value in others.items():
        if value.dtype != tensor.dtype:
            raise TypeError(f"{other}: got dtype {value.dtype}, expected {tensor.dtype} as {name} has")
        if value.device != tensor.device:
            raise ValueError(f"{other}: got device {value.device}, expected {tensor.device} as {name} is on")


def check_floats(name: str, value: Tensor, shape: str, like: tuple[str, Tensor] | None = None) -> None:
    """Raise TypeError or ValueError unless ``value`` is floating with a dimension for each letter of ``shape``, such as "[B, T]".

    With ``like``, a name and a tensor, its shape and device must be those of that tensor.
    """
    check_tensor(name, value, f"floats {shape}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: got dtype {value.dtype}, expected a floating dtype")
    if value.dim() != shape.count(",") + 1:
        raise ValueError(f"{name}: got shape {list(value.shape)}, expected {shape}")
    if like is not None and (value.shape != like[1].shape or value.device != like[1].device):
        expected = f"{list(like[1].shape)} on {like[1].device} as {like[0]} has"
        raise ValueError(f"{name}: got shape {list(value.shape)} on {value.device}, expected {expected}")


def check_placement(device: object, dtype: object) -> None:
    """Raise TypeError or ValueError unless parameters can be made on ``device`` in ``dtype``; None stands for PyTorch's default."""
    if dtype is not None and dtype not in FLOATING:
        raise TypeError(f"dtype={dtype!r}: expected one of {', '.join(map(str, FLOATING))}")
    try:
        torch.device(device if device is not None else "cpu")  # type: ignore[call-overload]
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r}: expected a device of this PyTorch, such as 'cpu' or 'cuda:0'") from error
