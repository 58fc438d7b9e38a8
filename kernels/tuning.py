"""Which schedule and tile sizes a call gets: measured ones where there are any, else predicted ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from . import configs
from .configs import Config
from .launch import precision


@dataclass(frozen=True)
class Sizes:
    """What a choice depends on: the device, the dtype as the products see it, and sizes, of which the rows are rounded up."""

    device: int
    kind: str
    rows: int
    dim: int
    gates: int
    columns: int
    steps: int

    @classmethod
    def of(cls, x0: Tensor, tasks: int, gates: int, columns: int, steps: int) -> Sizes:
        """The sizes of a call; a batch size that a traced graph leaves open counts as the one it was traced with."""
        kind = str(x0.dtype).removeprefix("torch.")
        if precision(x0.dtype) == "tf32":
            kind = "tf32"
        device = x0.device.index if x0.is_cuda and x0.device.index is not None else -1
        return cls(device, kind, configs.bucket(_hint(x0.shape[0]) * tasks), x0.shape[1], gates, columns, steps)

    def arguments(self) -> dict[str, int]:
        return {"rows": self.rows, "dim": self.dim, "gates": self.gates, "columns": self.columns, "steps": self.steps}


def _hint(size: int | torch.SymInt) -> int:
    if isinstance(size, int):
        return size
    from torch.fx.experimental.symbolic_shapes import size_hint

    return int(size_hint(size, fallback=8192))


@cache
def config(kernel: str, sizes: Sizes) -> Config:
    return configs.predicted(kernel, sizes.kind, **sizes.arguments())


@cache
def schedule(sizes: Sizes) -> str:
    return configs.predicted_schedule(sizes.kind, **sizes.arguments())
