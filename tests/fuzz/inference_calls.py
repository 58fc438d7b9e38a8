"""Valid calls of ``features`` and ``towers``, which only inference calls, their contracts, and what they compute."""

from typing import Any

import torch
from torch import Tensor

from ..ops.inference_problems import exact_of, features_arguments, plain_features, plain_towers, towers_arguments
from ..strategies import DTYPES

Arguments = dict[str, Any]
NUMBERS = ("dense", "lower", "scale", "weight", "bias")


def hold(holds: bool, words: str) -> None:
    if not holds:
        raise ValueError(words)


def is_shaped(arguments: Arguments, name: str, *shape: int | None) -> Tensor:
    value = arguments[name]
    hold(isinstance(value, Tensor), f"{name} is no tensor")
    fits = value.dim() == len(shape) and all(want in (None, have) for have, want in zip(value.shape, shape, strict=True))
    hold(fits, f"{name} is {list(value.shape)} in place of {list(shape)}")
    return value


def features(target: str, recipe: dict[str, Any]) -> Arguments:
    numbers = None if recipe["context_dim"] is None else recipe["context_dim"]
    return features_arguments(
        batch=recipe["batch"], fields=recipe["tasks"], numbers=numbers or 0, bins=recipe["steps"], width=recipe["dim"],
        more=None if recipe["seed"] % 2 else recipe["seed"] % 3, tasks=recipe["seed"] % 5 or None, dtype=DTYPES[recipe["dtype"]],
        seed=recipe["seed"],
    )  # fmt: skip


def towers(target: str, recipe: dict[str, Any]) -> Arguments:
    return towers_arguments(
        tasks=recipe["tasks"], batch=recipe["batch"], dim=recipe["dim"], widths=(16,) * (recipe["steps"] - 1),
        with_term=recipe["seed"] % 2 == 0, dtype=DTYPES[recipe["dtype"]], seed=recipe["seed"],
    )  # fmt: skip


def check_features(arguments: Arguments) -> None:
    ids, table = is_shaped(arguments, "ids", None, None), is_shaped(arguments, "table", None, None)
    sizes, offsets = (is_shaped(arguments, name, ids.shape[1]) for name in ("sizes", "offsets"))
    hold(ids.dtype in (torch.int64, torch.int32) and sizes.dtype == offsets.dtype == torch.int64, "dtypes of integers")
    hold(table.dtype in DTYPES.values(), "dtype of table")
    given = [name for name in NUMBERS if arguments[name] is not None]
    hold(given in ([], list(NUMBERS)), f"{given} alone")
    if given:
        count, bins = is_shaped(arguments, "lower", None, None).shape
        dense = is_shaped(arguments, "dense", len(ids), count)
        is_shaped(arguments, "scale", count, bins)
        is_shaped(arguments, "weight", count, bins, table.shape[1])
        is_shaped(arguments, "bias", count, table.shape[1])
        hold({arguments[name].dtype for name in NUMBERS} == {exact_of(table.dtype)}, "dtypes of numbers")
        hold(bool(dense.isfinite().all()), "numbers that are not finite")
    row, places = arguments["row"], arguments["places"]
    hold((row is None) == (places is None), "row or places alone")
    if row is not None:
        is_shaped(arguments, "row", None)
        is_shaped(arguments, "places", ids.shape[1] + (len(arguments["lower"]) if given else 0))
        hold(row.dtype == table.dtype and places.dtype == torch.int64, "dtypes of row and places")
        blocks = len(row) // max(table.shape[1], 1)
        hold(blocks * table.shape[1] == len(row), "part of a block")
        if not bool(((places >= 0) & (places < blocks)).all()):
            raise IndexError("places out of the row")
    rows = len(table)
    first_order, weight = arguments["first_order"], arguments["first_order_weight"]
    hold((weight is not None) == bool(given and first_order is not None), "first_order_weight alone")
    if first_order is not None:
        is_shaped(arguments, "first_order", rows, None)
        hold(first_order.dtype == table.dtype, "dtype of first_order")
    if weight is not None:
        is_shaped(arguments, "first_order_weight", *arguments["lower"].shape, first_order.shape[1])
        hold(weight.dtype == exact_of(table.dtype), "dtype of first_order_weight")
    if not bool(((sizes >= 0) & (sizes <= rows) & (offsets >= 0) & (offsets <= rows - sizes)).all()):
        raise IndexError("fields out of the table")
    if not bool(((ids >= 0) & (ids < sizes)).all()):
        raise IndexError("ids out of range")


def check_towers(arguments: Arguments) -> None:
    states, packed, widths = is_shaped(arguments, "states", None, None, None), arguments["packed"], is_shaped(arguments, "widths", None)
    hold(widths.dtype == torch.int64, "dtype of widths")
    hold(states.dtype in DTYPES.values(), "dtype of states")
    values, below = 0, states.shape[2]
    for width in widths.tolist():
        hold(0 < width < 2**31 and width % 16 == 0, "widths")
        values, below = values + (below + 1) * width, width
    is_shaped(arguments, "packed", len(states), values + below + 1)
    hold(packed.dtype == exact_of(states.dtype), "dtype of packed")
    if arguments["term"] is not None:
        hold(is_shaped(arguments, "term", states.shape[1], len(states)).dtype == torch.float64, "dtype of term")


def exact(name: str, arguments: Arguments) -> tuple[Tensor, ...]:
    """The results in float64."""
    wide = {n: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in arguments.items()}
    return plain_features(**wide) if name == "features" else (plain_towers(**wide),)


VALID = {"features": features, "towers": towers}
CHECKS = {"features": check_features, "towers": check_towers}
