"""Random problems of the operators.

A *recipe* is a dictionary of plain values, which JSON can hold; :func:`problem` makes the same tensors of it each time. :data:`FIELDS`
lists what each value of a recipe can be, the simplest first.
"""

import math
import random
from typing import Any

import torch
from torch import Tensor

from dcrnn_fast.sharing import GATES

from ..operators.problems import cross_arguments

PROJECTIONS = ("shared_projection", "private_projection")
TENSORS = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "context", *PROJECTIONS)
"""The arguments that are tensors, in the order of their gradients."""

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)}

LAYOUTS = ("contiguous", "offset", "sliced", "every other", "transposed", "reversed", "expanded", "overlapping")
"""How a tensor lies in memory: see :func:`laid_out`."""

FIELDS: dict[str, tuple[Any, ...]] = {
    "dtype": tuple(DTYPES),
    "batch": (1, 2, 3, 0, 4, 5, 7, 8, 9, 13, 16, 17, 23, 31, 32, 33, 47, 63, 64, 65, 70),
    "dim": (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 31, 32, 33, 48, 61, 64, 65, 97, 127, 128, 130),
    "tasks": (1, 2, 3, 4, 5, 6, 0),
    "steps": (1, 2, 3, 4),
    "cell": ("cross", "gated"),
    "tied": (True, False),
    "share_ratio": (0.5, 0.0, 0.3, 0.7, 1.0),
    "context_dim": (None, None, None, 0, 1, 2, 5, 8, 17, 33),
    "rank": (None, None, None, 1, 2, 3, 8, 15, 16, 17, 33, 48),
    "projection_share_ratio": (1.0, 1.0, 0.5, 0.0),
    "index": ("in order", "random", "random", "random", "one row", "last row"),
    "trailing": ((), (1,), (3,), (2, 5), (0,)),
    "nan_in": (*["nothing"] * 30, *TENSORS),
    **{f"{name}_layout": (*["contiguous"] * 9, *LAYOUTS[1:]) for name in (*TENSORS, "index", "cotangent")},
    "wanted": tuple(range(255, -1, -1)),
    "mode": (*["backward"] * 8, "no_grad", "inference"),
    "return_states": (False, True),
    "recompute": (False, True),
    "seed": (0, *range(1, 1000)),
}
"""What each value of a recipe can be. A value that stands there twice is drawn twice as often. ``wanted`` has a bit for each of
:data:`TENSORS` that requires a gradient. ``rank`` is that of the cell, or None for the full cell. ``index`` and ``trailing`` are of
``param_gather``, which reads as many rows as the cell has units."""

SMALL = {
    "batch": (1, 2, 3, 0, 5), "dim": (1, 2, 3, 5), "tasks": (1, 2, 3), "steps": (1, 2, 3), "context_dim": (None, 0, 1, 2),
    "rank": (None, 1, 2),
}  # fmt: skip
"""Fields of problems for calls that are slow, or that are many."""


def draw(rng: random.Random, fields: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """A random recipe."""
    return {name: rng.choice(values) for name, values in fields.items()}


def work(recipe: dict[str, Any]) -> int:
    """About how many multiplications one forward takes."""
    columns = recipe["dim"] + (recipe["context_dim"] or 0)
    products = recipe["dim"] * columns if recipe["rank"] is None else recipe["rank"] * (recipe["dim"] + columns)
    return recipe["batch"] * recipe["tasks"] * recipe["steps"] * products * GATES[recipe["cell"]]


def problem(recipe: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """Keyword arguments of ``cross_rnn``, without options of how to compute, and a gradient for its output."""
    generator, dtype = torch.Generator().manual_seed(recipe["seed"]), DTYPES[recipe["dtype"]]
    sizes = ("batch", "dim", "tasks", "steps", "cell", "tied", "share_ratio", "rank", "projection_share_ratio", "seed")
    given = cross_arguments(**{name: recipe[name] for name in sizes}, context_dim=recipe["context_dim"] or 0, dtype=dtype)
    arguments = {**given, **{name: given.get(name) for name in PROJECTIONS}}
    if recipe["context_dim"] == 0:
        arguments["context"] = torch.empty(recipe["steps"], recipe["batch"], 0, dtype=dtype)
    for name in TENSORS:
        if isinstance(values := arguments[name], Tensor):
            if recipe["nan_in"] == name and values.numel():
                values.view(-1)[int(torch.randint(values.numel(), (), generator=generator))] = math.nan
            arguments[name] = laid_out(values, recipe[f"{name}_layout"], generator)
    states = [recipe["steps"] + 1] if recipe["return_states"] else []
    cotangent = torch.randn(recipe["tasks"], *states, recipe["batch"], recipe["dim"], generator=generator, dtype=dtype)
    return arguments, laid_out(cotangent, recipe["cotangent_layout"], generator)


def gather_problem(recipe: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """Arguments of ``param_gather``, in the layouts of the weights, and a gradient for its output."""
    generator = torch.Generator().manual_seed(recipe["seed"])
    tasks, rows, trailing = recipe["tasks"], recipe["dim"], recipe["trailing"]
    shared = round(recipe["share_ratio"] * rows)
    index = {
        "in order": torch.arange(rows).expand(tasks, -1),
        "random": torch.randint(rows, (tasks, rows), generator=generator),
        "one row": torch.zeros(tasks, rows),
        "last row": torch.full((tasks, rows), rows - 1),
    }[recipe["index"]].to(torch.int32)

    def normal(name: str, *shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64).to(DTYPES[recipe["dtype"]])
        return laid_out(values, recipe[f"{name}_layout"], generator)

    arguments = {
        "shared": normal("shared_weight", shared, *trailing),
        "private": normal("private_weight", tasks, rows - shared, *trailing),
        "index": laid_out(index.contiguous(), recipe["index_layout"], generator),
    }
    return arguments, normal("cotangent", tasks, rows, *trailing)


def laid_out(values: Tensor, layout: str, generator: torch.Generator) -> Tensor:
    """The values in another layout, with NaN in the memory between and around them. "expanded" and "overlapping" repeat some values."""
    shape, poison = values.shape, math.nan if values.is_floating_point() else min(torch.iinfo(values.dtype).max, 2**31 - 1)
    if layout == "offset":
        room = torch.full((values.numel() + 2,), poison, dtype=values.dtype)
        return room[1:-1].copy_(values.reshape(-1)).view(shape)
    if layout == "sliced":
        room = torch.full([size + 2 for size in shape], poison, dtype=values.dtype)
        return room[tuple(slice(1, -1) for _ in shape)].copy_(values)
    if layout == "every other":
        room = torch.full((*shape[:-1], 2 * shape[-1] + 1), poison, dtype=values.dtype)
        return room[..., 1::2].copy_(values)
    if layout == "transposed" and len(shape) > 1:
        return values.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "reversed":
        order = list(range(len(shape)))[::-1]
        return values.permute(order).contiguous().permute(order)
    if layout == "expanded" and values.numel() and shape:
        dim = int(torch.randint(len(shape), (), generator=generator))
        return values.narrow(dim, 0, 1).expand(shape)
    if layout == "overlapping" and values.numel():
        strides = [1 + int(stride) for stride in torch.randint(3, (len(shape),), generator=generator)]
        flat = values.reshape(-1)
        reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1
        return flat.repeat(-(-reach // flat.numel())).as_strided(shape, strides)
    return values
