"""The axes that the benchmarks' cases are made of. A benchmark's own file says which cases its grids have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import torch

PASSES = ("forward", "training")
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
DTYPES_OF = {"cpu": ("float32", "bfloat16"), "cuda": ("tf32", "bfloat16")}
COLUMNS = ("pass", "dtype", "D", "B", "T", "share_ratio", "rank", "L")
"""What names a case, in the order of a result's columns."""

STEPS, SHARE_RATIO = 3, 0.5
"""A case may have another number of steps: L."""
SMOKE = {"D": 17, "B": 9, "T": 2}
HEADLINE = ({"D": 128, "B": 64, "T": 2}, {"D": 256, "B": 512, "T": 2}, {"D": 624, "B": 4096, "T": 2})
"""A small request, a medium and a large batch."""

GPU_HEADLINE: tuple[dict[str, Any], ...] = (
    {"pass": "forward", "dtype": "bfloat16", "D": 624, "B": 8192, "T": 2},
    {"pass": "training", "dtype": "bfloat16", "D": 624, "B": 8192, "T": 2},
    {"pass": "forward", "dtype": "bfloat16", "D": 256, "B": 256, "T": 2},
)
"""The cases for which docs/inside/kernels.md states goals on an H100."""

GPU = {"T": (2, 1, 4), "D": (624, 256, 128, 1024), "B": (8192, 256, 2048, 65536)}
"""The full grid on a GPU, what matters most first."""


def crossed(**axes: Sequence) -> list[dict]:
    """Every combination of the axes' values; the last axis changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def both_passes(sizes: Iterable[dict], dtypes: Sequence[str]) -> list[dict]:
    """Every size in every dtype, as a forward and as a training step (forward and backward)."""
    return [{"pass": name, "dtype": dtype, **size} for size in sizes for dtype in dtypes for name in PASSES]
