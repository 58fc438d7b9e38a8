"""The tiles of the low-rank kernels."""

from __future__ import annotations

from .tile_table import Config, Sizes

KERNELS = ("low_rank_forward", "low_rank_states", "low_rank_backward", "low_rank_inputs")


def chosen(kernel: str, sizes: Sizes) -> Config:
    """The tile sizes of a kernel."""
    return Config(32, 32, 16, 4, 2)
