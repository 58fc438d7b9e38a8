"""Random arguments of the operators, with every index pattern the operators accept."""

from typing import Any

import torch
from torch import Tensor

from dcrnn_fast.sharing import GATES

DOUBLE = torch.float64

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
    }


def arguments_of(backend: Any, **shape: Any) -> dict:
    """:func:`cross_arguments` on a backend, 20 rows of 17 units where nothing else is said."""
    return backend.of(cross_arguments(**{"batch": 20, "dim": 17, **shape}))


def differentiable(arguments: dict) -> dict:
    """The floating tensors with at least one value among the arguments, set to require a gradient."""
    floating = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and value.is_floating_point()}
    return {name: value.requires_grad_() for name, value in floating.items() if value.numel()}
