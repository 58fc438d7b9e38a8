"""Tile sizes: which there are, what shared memory they take, and which one a call gets where nothing was measured.

A choice depends on the number of units D, the cell, the dtype, and the number of rows of all tasks rounded up to a power of four, never on
the batch size itself: two batches of one bucket run the same compiled kernel. docs/triton.md tells how the prediction is to be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

KERNELS = ("step", "all_steps", "backward", "context")


@dataclass(frozen=True)
class Config:
    """Rows, units and products of a tile, warps of a program, and stages of its software pipeline."""

    block_b: int
    block_d: int
    block_k: int
    num_warps: int
    num_stages: int

    def constants(self) -> dict[str, int]:
        """As keyword arguments of a launch."""
        blocks = {"BLOCK_B": self.block_b, "BLOCK_D": self.block_d, "BLOCK_K": self.block_k}
        return {**blocks, "num_warps": self.num_warps, "num_stages": self.num_stages}


@dataclass(frozen=True)
class Card:
    """What the prediction asks of a GPU: multiprocessors, bytes of shared memory a block, and peak rates a second."""

    multiprocessors: int
    shared_memory: int
    tensor_flops: dict[str, float]
    l2_bytes: float
    launch_seconds: float = 10e-6


H100 = Card(132, 232_448, {"bfloat16": 989e12, "float16": 989e12, "tf32": 495e12, "float32": 67e12, "float64": 67e12}, 5.5e12)
"""NVIDIA's data sheet of the H100 SXM; the L2 rate and the time of a launch, from Python, are assumptions."""

SHARED_MEMORY = {80: 166_912, 90: 232_448, 100: 232_448, 120: 101_376}
"""Bytes of shared memory a block can have, by compute capability."""

ITEMSIZE = {"bfloat16": 2, "float16": 2, "tf32": 4, "float32": 4, "float64": 8}

# Every tile here compiles without a byte of stack on each architecture of SHARED_MEMORY (scripts/triton_resources.py checks it). The
# context's product has a loop over tasks around the backward's, whose addresses take registers: its tiles are its own.
_HALF = {
    "step": [(128, 128, 64, 8, 3), (128, 128, 64, 8, 4), (128, 64, 64, 8, 3), (64, 64, 64, 4, 4), (64, 64, 64, 4, 3), (32, 64, 64, 4, 4)],
    "all_steps": [(16, 64, 64, 4, 4), (16, 128, 64, 4, 3), (32, 128, 64, 8, 3), (64, 64, 64, 4, 3)],
    "backward": [(128, 128, 32, 8, 5), (128, 64, 64, 8, 5), (64, 64, 64, 4, 5), (32, 64, 64, 4, 5)],
    "context": [(128, 128, 64, 8, 3), (128, 128, 32, 8, 5), (128, 64, 64, 8, 3), (64, 64, 64, 8, 5), (32, 64, 64, 4, 3)],
}
_TF32 = {
    "step": [(128, 64, 32, 8, 3), (64, 64, 32, 4, 4), (64, 64, 32, 4, 3), (32, 64, 32, 4, 4)],
    "all_steps": [(16, 64, 32, 4, 4), (32, 64, 32, 4, 3)],
    "backward": [(128, 64, 32, 8, 3), (64, 64, 32, 4, 5), (32, 64, 32, 4, 5)],
    "context": [(128, 64, 32, 8, 3), (64, 64, 32, 8, 3), (32, 64, 32, 4, 5)],
}
_FULL = {
    "step": [(64, 64, 16, 8, 3), (64, 32, 16, 8, 3)],
    "all_steps": [(16, 32, 16, 8, 3)],
    "backward": [(64, 64, 16, 8, 5), (64, 32, 16, 8, 5)],
    "context": [(64, 64, 16, 8, 5), (64, 32, 16, 8, 5)],
}
_DOUBLE = {
    "step": [(32, 32, 16, 4, 3)],
    "all_steps": [(16, 32, 16, 8, 3)],
    "backward": [(32, 32, 16, 4, 5)],
    "context": [(32, 32, 16, 4, 5)],
}
_CANDIDATES = {"bfloat16": _HALF, "float16": _HALF, "tf32": _TF32, "float32": _FULL, "float64": _DOUBLE}


def shared_bytes(kernel: str, config: Config, kind: str, gates: int) -> int:
    """Shared memory of the pipeline's buffers, in bytes; the compiler's own needs are on top."""
    wide = gates * config.block_d if kernel in ("step", "all_steps") else config.block_d
    # the backward's loads follow an index, so its pipeline has two loads in a row and half the buffers
    buffers = config.num_stages if kernel in ("step", "all_steps") else max(2, (config.num_stages - 1) // 2 + 1)
    return buffers * (config.block_b + wide) * config.block_k * ITEMSIZE[kind]


def candidates(kernel: str, kind: str, gates: int, shared_memory: int) -> list[Config]:
    """The configurations of a kernel that fit, for ``kind`` "bfloat16", "float16", "tf32", "float32" (exact) or "float64"."""
    known = [Config(*sizes) for sizes in _CANDIDATES[kind][kernel]]
    return [config for config in known if shared_bytes(kernel, config, kind, gates) + 2048 <= shared_memory]


def bucket(rows: int) -> int:
    """``rows`` rounded up to a power of four, at least 64 and at most 65536."""
    return next((size for size in (64, 256, 1024, 4096, 16384) if rows <= size), 65536)


def predicted_seconds(
    kernel: str, config: Config, kind: str, *, rows: int, dim: int, gates: int, columns: int, steps: int, card: Card = H100
) -> float:
    """The time of one launch: FLOPs, traffic through L2, and the tiles that a multiprocessor works through one after another."""
    forward = kernel in ("step", "all_steps")
    wide, long = (gates * config.block_d, columns) if forward else (config.block_d, gates * dim)
    flops = 2.0 * config.block_b * wide * long
    moved = (config.block_b + wide) * long * ITEMSIZE[kind]
    tile = max(flops * card.multiprocessors / card.tensor_flops[kind], moved * card.multiprocessors / card.l2_bytes) + 1e-6
    row_tiles, unit_tiles = ceil(rows / config.block_b), ceil(dim / config.block_d)
    if kernel == "all_steps":
        return ceil(row_tiles / card.multiprocessors) * unit_tiles * steps * tile
    return ceil(row_tiles * unit_tiles / card.multiprocessors) * tile


def predicted(kernel: str, kind: str, *, rows: int, dim: int, gates: int, columns: int, steps: int, card: Card = H100) -> Config:
    """The configuration of the least predicted time."""
    fitting = candidates(kernel, kind, gates, card.shared_memory)

    def seconds(config: Config) -> float:
        return predicted_seconds(kernel, config, kind, rows=rows, dim=dim, gates=gates, columns=columns, steps=steps, card=card)

    return min(fitting, key=seconds)


def predicted_schedule(kind: str, *, rows: int, dim: int, gates: int, columns: int, steps: int, card: Card = H100) -> str:
    """ "all_steps" where one launch for all steps is predicted to take less time than a launch a step, else "step"."""
    sizes: dict[str, Any] = {"rows": rows, "dim": dim, "gates": gates, "columns": columns, "steps": steps, "card": card}
    at_once, one = (predicted_seconds(kernel, predicted(kernel, kind, **sizes), kind, **sizes) for kernel in ("all_steps", "step"))
    return "all_steps" if at_once + card.launch_seconds < steps * (one + card.launch_seconds) else "step"
