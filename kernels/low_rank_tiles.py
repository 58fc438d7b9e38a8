"""The tiles of the low-rank kernels, and which one a call gets.

A program has ``block_b`` rows, goes through ``block_d`` units at a time, and multiplies by slices of ``block_k`` columns of the rank. It
holds z and y of its rows with all columns of the rank, so each rank has tiles of its own, up to a limit. :class:`~.tile_table.Sizes` have
the rank as their ``columns``. Nothing here was measured on a GPU, and ``dcrnn-fast info --warm`` does not measure these kernels.
"""

from __future__ import annotations

from dcrnn_fast.errors import BackendUnavailable

from .tile_table import ITEMSIZE, Card, Config, Sizes

KERNELS = ("low_rank_forward", "low_rank_backward")
"""What has tiles of its own. Those of the forward serve the states and the gradients of x0 and the context too."""

MAX_RANK = 256
"""With a larger rank than D / 2 the thin products cost more than the full cell's."""

_HALF = {
    "low_rank_forward": {
        16: [(128, 64, 16, 8, 2), (32, 64, 16, 4, 2), (16, 64, 16, 4, 2)],
        32: [(128, 64, 32, 8, 2), (32, 64, 32, 4, 2), (16, 64, 32, 4, 2)],
        64: [(128, 32, 64, 8, 2), (32, 64, 64, 4, 2), (16, 64, 64, 4, 2)],
        128: [(64, 32, 128, 8, 2), (32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
        256: [(32, 32, 64, 8, 2), (16, 32, 64, 8, 2), (16, 16, 128, 8, 2)],
    },
    "low_rank_backward": {
        16: [(128, 32, 16, 8, 2), (32, 32, 16, 4, 2), (16, 32, 16, 4, 2)],
        32: [(128, 32, 32, 8, 2), (32, 32, 32, 4, 2), (16, 32, 32, 4, 2)],
        64: [(128, 16, 64, 8, 2), (32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
        128: [(32, 32, 64, 8, 2), (16, 32, 64, 4, 2)],
        256: [(16, 32, 64, 8, 2), (16, 16, 128, 8, 2)],
    },
}
_TF32 = {
    kernel: {
        16: [(32, 32, 16, 4, 2), (16, 32, 16, 4, 2)],
        32: [(32, 32, 32, 4, 2), (16, 32, 32, 4, 2)],
        64: [(32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
        256: [(16, 16, 64, 8, 2)],
    }
    for kernel in KERNELS
}
_FULL = {
    "low_rank_forward": {64: [(32, 32, 16, 8, 2)], 256: [(16, 16, 16, 8, 1)]},
    "low_rank_backward": {64: [(32, 32, 16, 8, 1)], 256: [(16, 16, 16, 8, 1)]},
}
_DOUBLE = {
    "low_rank_forward": {16: [(16, 16, 16, 4, 2)], 64: [(16, 16, 64, 4, 2)], 256: [(16, 16, 64, 8, 1)]},
    "low_rank_backward": {16: [(16, 16, 16, 8, 1)], 256: [(16, 16, 64, 8, 1)]},
}
_CANDIDATES = {"bfloat16": _HALF, "float16": _HALF, "tf32": _TF32, "float32": _FULL, "float64": _DOUBLE}
"""By kind and kernel, for ranks up to a limit, the tile with most rows first."""


def limit(kernel: str, kind: str, rank: int) -> int | None:
    """The least limit that a rank does not exceed, or None."""
    return min((most for most in _CANDIDATES[kind][kernel] if rank <= most), default=None)


def limits(kernel: str, kind: str) -> list[int]:
    """The limits of a kernel's tiles."""
    return list(_CANDIDATES[kind][kernel])


def shared_bytes(kernel: str, config: Config, kind: str, gates: int, rank: int) -> int:
    """At most so many bytes of shared memory: z and y, in the backward dz and dy too; the weights; values between two layouts."""
    columns = gates * -(-rank // config.block_k) * config.block_k
    held = config.block_b * columns * (2 if kernel == "low_rank_backward" else 1)
    weights = (2 * config.num_stages - 1) * config.block_d * columns
    return (held + weights) * ITEMSIZE[kind] + 2 * config.block_b * config.block_d * max(4, ITEMSIZE[kind]) + 16384


def candidates(kernel: str, kind: str, gates: int, rank: int, card: Card | None = None) -> list[Config]:
    """The tiles for a rank, or those of them that fit a card."""
    most = limit(kernel, kind, rank)
    known = [] if most is None else [Config(*sizes) for sizes in _CANDIDATES[kind][kernel][most]]
    return [tile for tile in known if card is None or shared_bytes(kernel, tile, kind, gates, rank) <= card.shared_memory]


def chosen(kernel: str, sizes: Sizes) -> Config:
    """The tile with most rows that keeps three of four multiprocessors busy, else the one with the fewest: weights are read once a tile.

    Raises BackendUnavailable where the rank is too large, or no tile fits the card.
    """
    fitting = candidates(kernel, sizes.kind, sizes.gates, sizes.columns, sizes.card)
    if not fitting:
        raise BackendUnavailable(
            f"backend='triton' has no tiles for rank {sizes.columns} in {sizes.kind} that fit {sizes.card.shared_memory} bytes of shared "
            f"memory a block (ranks go up to {MAX_RANK}). Use a lower rank, backend='auto' or backend='reference'"
        )
    wanted = 3 * sizes.card.multiprocessors / 4
    return next((tile for tile in fitting if sizes.rows / tile.block_b >= wanted), min(fitting, key=lambda tile: tile.block_b))
