"""Random arguments of the recurrence."""

from typing import Any

import torch
from torch import Tensor

from dcrnn_fast.sharing import GATES

DOUBLE = torch.float64

REFUSED = (ValueError, RuntimeError, TypeError, IndexError)
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
"""What every kernel is checked on, over ``cross_arguments(batch=20, dim=17)``."""

CPU_SHAPES = {
    "four rows of five units": {"batch": 4, "dim": 5},
    "several tiles": {"batch": 127, "dim": 33},
    "wide context, untied, many rows": {"batch": 127, "dim": 5, "context_dim": 40, "tied": False, "tasks": 3},
    "few rows of many units": {"batch": 5, "dim": 128},
    "few rows, in half precision by the library": {"batch": 6, "dim": 700},
    "many rows, in half precision by the library": {"batch": 127, "dim": 110, "context_dim": 40, "tied": False, "tasks": 3},
    "several chunks": {"batch": 2600, "dim": 9, "context_dim": 2},
    "low rank, four rows of five units": {"batch": 4, "dim": 5, "rank": 3},
    "low rank, six steps": {"batch": 4, "dim": 5, "rank": 6, "steps": 6},
    "low rank, many rows": {"batch": 700, "dim": 33, "context_dim": 2, "rank": 7},
    "low rank, wide context": {
        "batch": 127, "dim": 5, "context_dim": 40, "tied": False, "tasks": 3, "rank": 20, "projection_share_ratio": 0.5,
    },
    "low rank, more columns than registers hold": {"batch": 13, "dim": 150, "rank": 70},
    "low rank, first steps alike, one step": {"batch": 70, "dim": 50, "tasks": 3, "rank": 5, "share_ratio": 0.7, "steps": 1},
    "low rank, first steps alike, no gate": {"dim": 40, "tasks": 3, "rank": 5, "share_ratio": 1.0, "tied": False, "cell": "cross"},
    "tied weights, shared in part by three tasks": {"batch": 70, "dim": 20, "tasks": 3, "share_ratio": 0.3},
    "untied weights, shared in part by three tasks": {"batch": 70, "dim": 20, "tasks": 3, "share_ratio": 0.3, "tied": False},
}  # fmt: skip
"""Also on a CPU, where a tile has other sizes."""


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
    """Keyword arguments of ``cross_rnn``. Of the units and of the rank, the ratios are the same for all tasks."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    weight_steps, gates, columns, projections = 1 if tied else steps, GATES[cell], context_dim + dim, {}
    shared = round(share_ratio * dim)
    private = dim - shared
    if rank is not None:
        common = round(projection_share_ratio * rank)
        projections = {
            "shared_projection": normal(weight_steps, common, gates, columns) / columns**0.5,
            "private_projection": normal(tasks, weight_steps, rank - common, gates, columns) / columns**0.5,
        }
        columns = rank
    return {
        "x0": normal(batch, dim),
        "shared_weight": normal(weight_steps, shared, gates, columns) / columns**0.5,
        "shared_bias": normal(weight_steps, shared, gates),
        "private_weight": normal(tasks, weight_steps, private, gates, columns) / columns**0.5,
        "private_bias": normal(tasks, weight_steps, private, gates),
        "steps": steps,
        "cell": cell,
        "context": normal(steps, batch, context_dim) if context_dim else None,
        **projections,
    }


def arguments_of(backend: Any, **shape: Any) -> dict:
    """:func:`cross_arguments` on a backend, 20 rows of 17 units where nothing else is said."""
    return backend.of(cross_arguments(**{"batch": 20, "dim": 17, **shape}))


def differentiable(arguments: dict) -> dict:
    """The tensors with at least one value among the arguments, set to require a gradient."""
    return {name: value.requires_grad_() for name, value in arguments.items() if isinstance(value, Tensor) and value.numel()}


def freed(tensor: Tensor) -> Tensor:
    """The tensor without its memory, as sharded data parallel leaves a parameter between its uses."""
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


def strided(tensor: Tensor) -> Tensor:
    """The same values with other numbers between them in memory."""
    return torch.stack([tensor, tensor + 9], dim=-1)[..., 0]


def expanded(tensor: Tensor) -> Tensor:
    """A tensor of the same shape that has one value in memory for each row."""
    return tensor[..., :1].expand(tensor.shape)
