"""The contract of the operators that only inference calls: ``features`` and ``towers``. They run on the CPU and have no derivative."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendUnavailable
from ..support.checks import FLOATING, check_memory, check_tensor
from .autograd import register_derivative, save_nothing

MULTIPLE = 16
"""The widths of a tower's hidden layers are multiples of it."""


def _check(tensors: dict[str, Tensor | None], dtypes: dict[str, tuple[torch.dtype, ...]], dims: dict[str, int]) -> None:
    """Raise TypeError or ValueError unless each tensor is dense, of one of its dtypes, has so many dimensions, and lies on one device."""
    devices: dict[str, torch.device] = {}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        check_tensor(name, tensor, "numbers")
        check_memory(name, tensor)
        devices[name] = tensor.device
        if tensor.device != next(iter(devices.values())):
            raise ValueError(f"{name}: got device {tensor.device}, expected {next(iter(devices.values()))} as {next(iter(devices))} is on")
        if tensor.dtype not in dtypes[name]:
            raise TypeError(f"{name}: got dtype {tensor.dtype}, expected {' or '.join(map(str, dtypes[name]))}")
        if tensor.dim() != dims[name]:
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {dims[name]} dimensions")


def _fits(name: str, tensor: Tensor, *shape: int) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {list(shape)}")


def _exact(name: str, tensor: Tensor) -> tuple[torch.dtype]:
    """The dtype in which the operators compute beside this tensor. Raises TypeError or ValueError unless it is a dense one."""
    check_tensor(name, tensor, "numbers")
    return (torch.float64 if tensor.dtype == torch.float64 else torch.float32,)


def _features(
    ids: Tensor,
    table: Tensor,
    sizes: Tensor,
    offsets: Tensor,
    dense: Tensor | None = None,
    lower: Tensor | None = None,
    scale: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    row: Tensor | None = None,
    places: Tensor | None = None,
    first_order: Tensor | None = None,
    first_order_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """ids [B, F], a table [V, E], sizes and offsets [F], and of N binned numbers dense [B, N] and their parameters, to [B, (F + N) * E].

    With row [K * E] and places [F + N], to [B, K * E]: copies of the row, in which these blocks of E values lie at their places. And with
    first_order [V, T], and its weight [N, Q, T] of the numbers' Q bins, to the first-order term float64 [B, T]; without, [B, 0].
    """
    numbers = {"dense": dense, "lower": lower, "scale": scale, "weight": weight, "bias": bias}
    whole, exact = (torch.int64,), _exact("table", table)
    dtypes: dict[str, tuple[torch.dtype, ...]] = {"ids": (torch.int64, torch.int32), "table": FLOATING, "sizes": whole, "offsets": whole}
    dims = {"ids": 2, "table": 2, "sizes": 1, "offsets": 1, "dense": 2, "lower": 2, "scale": 2, "weight": 3, "bias": 2}
    tensors = {"ids": ids, "table": table, "sizes": sizes, "offsets": offsets, **numbers, "row": row, "places": places}
    tensors |= {"first_order": first_order, "first_order_weight": first_order_weight}
    dtypes |= dict.fromkeys((*numbers, "first_order_weight"), exact) | dict.fromkeys(("row", "first_order"), (table.dtype,))
    dtypes["places"] = whole
    _check(tensors, dtypes, dims | {"row": 1, "places": 1, "first_order": 2, "first_order_weight": 3})
    (batch, fields), width = ids.shape, table.shape[1]
    tasks = 0 if first_order is None else first_order.shape[1]
    _fits("sizes", sizes, fields)
    _fits("offsets", offsets, fields)
    if first_order is not None:
        _fits("first_order", first_order, table.shape[0], tasks)
    given = [tensor for tensor in numbers.values() if tensor is not None]
    if (first_order_weight is not None) != bool(given and first_order is not None):
        raise ValueError("first_order_weight: expected one with numbers and first_order, and none without")
    if not given:
        return table.new_empty(batch, _width_of_row(row, places, fields, width)), table.new_empty(batch, tasks, dtype=torch.float64)
    if dense is None or lower is None or scale is None or weight is None or bias is None:
        raise ValueError("dense, lower, scale, weight, bias: got some of them, expected all five, or none")
    count, bins = lower.shape
    _fits("dense", dense, batch, count)
    _fits("scale", scale, count, bins)
    _fits("weight", weight, count, bins, width)
    _fits("bias", bias, count, width)
    if first_order_weight is not None:
        _fits("first_order_weight", first_order_weight, count, bins, tasks)
    return table.new_empty(batch, _width_of_row(row, places, fields + count, width)), table.new_empty(batch, tasks, dtype=torch.float64)


def _width_of_row(row: Tensor | None, places: Tensor | None, blocks: int, width: int) -> int:
    if row is None and places is None:
        return blocks * width
    if row is None or places is None:
        raise ValueError("row, places: got one of them, expected both, or none")
    _fits("places", places, blocks)
    return row.shape[0]


def _towers(states: Tensor, packed: Tensor, widths: Tensor, term: Tensor | None = None) -> Tensor:
    """states [T, B, D], each task's packed layers [T, P], the hidden layers' widths [n] and a term float64 [B, T] to logits [B, T]."""
    dtypes = {"states": FLOATING, "packed": _exact("states", states), "widths": (torch.int64,), "term": (torch.float64,)}
    tensors = {"states": states, "packed": packed, "widths": widths, "term": term}
    _check(tensors, dtypes, {"states": 3, "packed": 2, "widths": 1, "term": 2})
    tasks, batch, _ = states.shape
    if packed.shape[0] != tasks:
        raise ValueError(f"packed: got shape {list(packed.shape)}, expected [{tasks}, P]")
    if term is not None:
        _fits("term", term, batch, tasks)
    return states.new_empty(batch, tasks)


DECLARATIONS: dict[str, Callable[..., Any]] = {"features": _features, "towers": _towers}


def register_derivatives(namespace: str) -> None:
    """Make a derivative of these operators an error that says what to do instead."""
    for name in DECLARATIONS:
        register_derivative(getattr(getattr(torch.ops, namespace), name).default, save_nothing, _no_derivative)


def _no_derivative(ctx: Any, *grads: Tensor | None) -> Mapping[str, Tensor]:
    raise BackendUnavailable("the operators features and towers are for inference and have no derivative: train the model itself")
