"""Checks of numbers, names and tensors. Each message names the argument, what came and what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ..errors import DataError, shown

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""The dtypes in which the operators compute."""


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")


MAX_STEPS = 65535
"""The most steps of a recurrence, on every backend. It is a GPU's largest grid in one dimension, and far above any use."""


MAX_SIZE = 2**20
"""The most units, widths, features or tasks of a module. A weight matrix of that width would take 4 TiB."""


def check_count(name: str, value: object, minimum: int = 1, maximum: int | None = None) -> int:
    """``value`` as an int. Raise TypeError or ValueError unless it is an integer (NumPy's too) from ``minimum`` to ``maximum``."""
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{name}={value!r}: expected an int, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name}={value}: expected at least {minimum}")
    if maximum is not None and int(value) > maximum:
        raise ValueError(f"{name}={value}: expected at most {maximum}")
    return int(value)


def check_number(name: str, value: object, expected: str, holds: Callable[[float], bool]) -> None:
    """Raise TypeError or ValueError unless ``value`` is a number for which ``holds`` is true."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r}: expected {expected}, got {type(value).__name__}")
    if not holds(float(value)):
        raise ValueError(f"{name}={value}: expected {expected}")


def check_ratio(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless ``value`` is a number in [0, 1]."""
    check_number(name, value, "a number in [0, 1]", lambda number: 0 <= number <= 1)


def check_deviation(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless ``value`` is a finite number of at least 0."""
    check_number(name, value, "a finite number of at least 0", lambda number: 0 <= number < math.inf)


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected True or False, got {type(value).__name__}")


def check_sequence(name: str, value: object, expected: str) -> None:
    """Raise TypeError unless ``value`` can be iterated over and is not a string."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}={value!r}: expected a sequence of {expected}, got {type(value).__name__}")


def listed(name: str, given: Any) -> list[Any]:
    """A list, tuple, array or column of names as a list. Raises DataError for another type."""
    try:
        if isinstance(given, (str, bytes, Mapping, Iterator)):  # an iterator would be empty at the next call
            raise TypeError
        return [str(one) if isinstance(one, str) else one for one in (given.to_pylist() if hasattr(given, "to_pylist") else given)]
    except TypeError:
        raise DataError(f"{name}={shown(given)}: expected a list; put a single one in a list") from None


def label_columns(name: str, given: Any) -> list[str]:
    """The names of tasks' columns as a list. Raises DataError unless there is one and each differs from the others."""
    columns = listed(name, given)
    if not columns or not all(isinstance(column, str) for column in columns) or len(set(columns)) < len(columns):
        raise DataError(f"{name}={shown(given)}: expected a list of different columns of 0 and 1; put a single one in a list")
    return columns


def check_counts(name: str, values: Iterable[object], expected: str, minimum: int = 1) -> tuple[int, ...]:
    """``values``, from any iterable, as ints. Raise TypeError or ValueError unless they are integers from ``minimum`` to MAX_SIZE."""
    check_sequence(name, values, expected)
    return tuple([check_count(f"{name}[{place}]", value, minimum, MAX_SIZE) for place, value in enumerate(values)])


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
