"""Random arguments of the operators, with every index pattern the operators accept."""

from typing import Any

import torch
from torch import Tensor

from dcrnn_fast.sharing import GATES

DOUBLE = torch.float64

REFUSED = (ValueError, RuntimeError, TypeError)
"""Straight through the dispatcher, as from C++ or a compiled graph; PyTorch 2.15 hands a C++ exception on as RuntimeError."""

SHAPES = {
    "one row": {"batch": 1},
    "three rows": {"batch": 3, "dim": 33},
    "several tiles, odd sizes": {"batch": 50, "dim": 70},
    "one unit": {"dim": 1},
    "one task": {"tasks": 1},
    "five tasks": {"tasks": 5, "share_ratio": 0.3},
    "nothing shared": {"share_ratio": 0},
    "all shared": {"share_ratio": 1},
    "one step": {"steps": 1},
    "six steps": {"steps": 6},
    "untied": {"tied": False},
    "context": {"context_dim": 3},
    "rows of 8 values": {"dim": 24, "context_dim": 8, "batch": 21},
    "wide context, untied": {"batch": 40, "context_dim": 40, "tied": False, "tasks": 3},
    "low rank": {"rank": 3},
    "low rank, one row": {"rank": 5, "batch": 1},
    "low rank, rank 1 without a gate": {"rank": 1, "cell": "cross"},
    "low rank, untied with a context": {"rank": 5, "tied": False, "context_dim": 3},
    "low rank, projection shared in part": {"rank": 6, "tasks": 5, "projection_share_ratio": 0.5},
    "low rank, several tiles": {"rank": 33, "dim": 70, "steps": 2, "projection_share_ratio": 0},
    "low rank, rows of 8 values": {"rank": 16, "dim": 24, "context_dim": 8, "batch": 21},
}
"""What the kernels for GPUs are checked on, over ``cross_arguments(batch=20, dim=17)``."""


def cross_arguments(
    *,
    batch: int = 4,
    dim: int = 5,
    tasks: int = 2,
    steps: int = 3,
    cell: str = "gated",
    tied: bool = True,
    share_ratio: float = 0.5,
    context_dim: int = 0,
    rank: int | None = None,
    projection_share_ratio: float = 1.0,
    dtype: torch.dtype = DOUBLE,
    seed: int = 0,
) -> dict:
    """Keyword arguments of ``cross_rnn``; the index is a random choice with repeats among all rows a task can reach."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    rows = dim if tied else steps * dim
    shared = round(share_ratio * rows)
    private, gates, columns = rows - shared, GATES[cell], context_dim + dim
    projection = {}
    if rank is not None:
        places = rank if tied else steps * rank
        common = round(projection_share_ratio * places)
        projection = {
            "shared_projection": normal(common, gates, columns) / columns**0.5,
            "private_projection": normal(tasks, places - common, gates, columns) / columns**0.5,
            "projection_index": torch.randint(0, places, (tasks, places), generator=generator, dtype=torch.int32),
        }
        if common == places:  # as the modules have it: all tasks read the same rows
            projection["projection_index"] = torch.arange(places, dtype=torch.int32).expand(tasks, -1).contiguous()
        columns = rank
    return {
        "x0": normal(batch, dim),
        "shared_weight": normal(shared, gates, columns) / columns**0.5,
        "shared_bias": normal(shared, gates),
        "private_weight": normal(tasks, private, gates, columns) / columns**0.5,
        "private_bias": normal(tasks, private, gates),
        "index": torch.randint(0, rows, (tasks, rows), generator=generator, dtype=torch.int32),
        "steps": steps,
        "cell": cell,
        "context": normal(steps, batch, context_dim) if context_dim else None,
        **projection,
    }


def arguments_of(backend: Any, **shape: Any) -> dict:
    """:func:`cross_arguments` on a backend, 20 rows of 17 units where nothing else is said."""
    return backend.of(cross_arguments(**{"batch": 20, "dim": 17, **shape}))


def differentiable(arguments: dict) -> dict:
    """The floating tensors with at least one value among the arguments, set to require a gradient."""
    floating = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and value.is_floating_point()}
    return {name: value.requires_grad_() for name, value in floating.items() if value.numel()}


def freed(tensor: Tensor) -> Tensor:
    """The tensor without its memory, as sharded data parallel leaves a parameter between its uses."""
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(0)
    return tensor
