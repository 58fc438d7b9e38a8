"""The contract of the operators that only inference calls: ``features`` and ``towers``. They run on the CPU and have no derivative."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendUnavailable
from ..support.checks import FLOATING, check_memory, check_tensor
from .autograd import register_derivative, save_nothing

MULTIPLE = 16
"""The widths of a tower's hidden layers are multiples of it."""
SHAPES = {
    "ids": "BF", "table": "VE", "sizes": "F", "offsets": "F", "dense": "BN", "lower": "NQ", "scale": "NQ", "weight": "NQE", "bias": "NE",
    "row": "R", "places": "P", "first_order": "VT", "first_order_weight": "NQT",
    "states": "TBD", "packed": "TX", "widths": "L", "term": "BT",
}  # fmt: skip
"""The letters of each argument's sizes."""


def _checked(tensors: dict[str, Tensor | None], dtypes: Mapping[str, tuple[torch.dtype, ...]]) -> dict[str, int]:
    """The sizes by letter. Raise TypeError or ValueError unless each tensor is dense, of one of its dtypes, and fits the others."""
    sizes: dict[str, int] = {}
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first, like = next(iter(given.items()))
    for name, tensor in given.items():
        check_tensor(name, tensor, "numbers")
        check_memory(name, tensor)
        if tensor.device != like.device:
            raise ValueError(f"{name}: got device {tensor.device}, expected {like.device} as {first} is on")
        if tensor.dtype not in dtypes[name]:
            raise TypeError(f"{name}: got dtype {tensor.dtype}, expected {' or '.join(map(str, dtypes[name]))}")
        letters, shape = SHAPES[name], tensor.shape
        if len(shape) != len(letters) or any(sizes.setdefault(one, size) != size for one, size in zip(letters, shape, strict=True)):
            raise ValueError(f"{name}: got shape {list(shape)}, expected [{', '.join(str(sizes.get(one, one)) for one in letters)}]")
    return sizes


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
    of_row, of_term = {"row": row, "places": places}, {"first_order": first_order, "first_order_weight": first_order_weight}
    whole, exact = (torch.int64,), _exact("table", table)
    dtypes = {"ids": (torch.int64, torch.int32), "table": FLOATING, "row": (table.dtype,), "first_order": (table.dtype,)}
    dtypes |= dict.fromkeys(("sizes", "offsets", "places"), whole) | dict.fromkeys((*numbers, "first_order_weight"), exact)
    for group in (numbers, of_row):
        if len({tensor is None for tensor in group.values()}) > 1:
            raise ValueError(f"{', '.join(group)}: got some of them, expected all, or none")
    if (first_order_weight is not None) != (dense is not None and first_order is not None):
        raise ValueError("first_order_weight: expected one with numbers and first_order, and none without")
    found = _checked({"ids": ids, "table": table, "sizes": sizes, "offsets": offsets, **numbers, **of_row, **of_term}, dtypes)
    blocks = found["F"] + found.get("N", 0)
    if found.get("P", blocks) != blocks:
        raise ValueError(f"places: got shape [{found['P']}], expected [{blocks}]")
    width = found.get("R", blocks * found["E"])
    return table.new_empty(found["B"], width), table.new_empty(found["B"], found.get("T", 0), dtype=torch.float64)


def _towers(states: Tensor, packed: Tensor, widths: Tensor, term: Tensor | None = None) -> Tensor:
    """states [T, B, D], each task's packed layers [T, P], the hidden layers' widths [n] and a term float64 [B, T] to logits [B, T]."""
    dtypes = {"states": FLOATING, "packed": _exact("states", states), "widths": (torch.int64,), "term": (torch.float64,)}
    found = _checked({"states": states, "packed": packed, "widths": widths, "term": term}, dtypes)
    return states.new_empty(found["B"], found["T"])


OPERATORS: dict[str, Callable[..., Any]] = {"features": _features, "towers": _towers}


def register_derivatives(namespace: str) -> None:
    """Make a derivative of these operators an error that says what to do instead."""
    for name in OPERATORS:
        register_derivative(getattr(getattr(torch.ops, namespace), name).default, save_nothing, _no_derivative)


def _no_derivative(ctx: Any, *grads: Tensor | None) -> Sequence[Tensor]:
    raise BackendUnavailable("the operators features and towers are for inference and have no derivative: train the model itself")
