"""The table of tile sizes, and the shared memory they take.

A choice depends on :class:`Sizes`, never on the batch size itself: two batches whose rows round up to the same number run the same compiled
kernel. Nothing here imports PyTorch before :meth:`Sizes.of` is called.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

STEP, ALL_STEPS = SCHEDULES = ("step", "all_steps")
"""The forward takes one launch a step, or one launch for all steps. Each schedule has a kernel of the same name."""

KERNELS = (*SCHEDULES, "backward", "inputs")
"""What has tiles of its own: "backward" a step of the backward, "inputs" the gradients of x0 and of the context."""

ITEMSIZE = {"bfloat16": 2, "float16": 2, "tf32": 4, "float32": 4, "float64": 8}
"""Bytes of a value, by ``kind``: the dtype as the products see it. "float32" is exact, "tf32" is float32 rounded for the tensor cores."""

SHARED_MEMORY = {80: 166_912, 90: 232_448, 100: 232_448, 120: 101_376}
"""Bytes of shared memory that a block can have, by compute capability, from NVIDIA's CUDA C++ programming guide."""


@dataclass(frozen=True)
class Config:
    """A tile's rows, units and products; the warps of a program; the stages of its software pipeline."""

    block_b: int
    block_d: int
    block_k: int
    num_warps: int
    num_stages: int

    def constants(self) -> dict[str, int]:
        """As keyword arguments of a launch."""
        blocks = {"BLOCK_B": self.block_b, "BLOCK_D": self.block_d, "BLOCK_K": self.block_k}
        return {**blocks, "num_warps": self.num_warps, "num_stages": self.num_stages}

    def __str__(self) -> str:
        return f"{self.block_b}x{self.block_d}x{self.block_k}, {self.num_warps} warps, {self.num_stages} stages"


@dataclass(frozen=True)
class Card:
    """A GPU: its name as PyTorch gives it, its multiprocessors, the bytes of shared memory that a block can have, and the major compute
    capability."""

    name: str
    multiprocessors: int
    shared_memory: int
    major: int


NO_CARD = Card("", 132, SHARED_MEMORY[90], 9)
"""Stands for the card of a CPU tensor: it has an H100's sizes and no measured choices."""


@cache
def card_of(device: torch.device) -> Card:
    """The card of a tensor's device."""
    if device.type != "cuda":
        return NO_CARD
    import torch

    found: Any = torch.cuda.get_device_properties(device)  # PyTorch's types leave out the shared memory
    return Card(found.name, found.multi_processor_count, found.shared_memory_per_block_optin, found.major)


@dataclass(frozen=True, order=True)
class Sizes:
    """What a choice depends on: ``kind`` (see :data:`ITEMSIZE`), the rows of all tasks, D units, K columns, G vectors a unit, L steps, T
    tasks, and the card."""

    kind: str
    rows: int
    dim: int
    columns: int
    gates: int
    steps: int
    tasks: int
    card: Card = NO_CARD

    @classmethod
    def of(cls, x0: torch.Tensor, tasks: int, gates: int, columns: int, steps: int, allow_tf32: bool) -> Sizes:
        """The sizes of a call, with the rows rounded up by :func:`bucket`. Of a size that a traced graph leaves open, the traced value."""
        from .launch_options import precision

        kind = "tf32" if precision(x0.dtype, allow_tf32) == "tf32" else str(x0.dtype).removeprefix("torch.")
        rows = bucket(_hint(x0.shape[0]) * _hint(tasks))
        return cls(kind, rows, _hint(x0.shape[1]), _hint(columns), gates, steps, _hint(tasks), card_of(x0.device))

    def key(self, choice: str) -> tuple[str, Sizes]:
        """What a file knows a choice by, a kernel's tile or "schedule". A file is of one card.

        The schedule depends on the steps. The tiles of "inputs" depend on the steps and the tasks: a program adds up all of them.
        """
        steps, tasks = self.steps if choice in ("schedule", "inputs") else 0, self.tasks if choice == "inputs" else 0
        return choice, replace(self, card=NO_CARD, steps=steps, tasks=tasks)


def bucket(rows: int) -> int:
    """``rows`` rounded up to a power of four, at least 64 and at most 65536."""
    return next((size for size in (64, 256, 1024, 4096, 16384) if rows <= size), 65536)


def _hint(size: int | torch.SymInt) -> int:
    """The size in the call that is traced; the graph stays open for others."""
    hint = size if isinstance(size, int) else size.node.hint
    return 8192 if hint is None else int(hint)


# Every tile here compiles without a byte of stack on each architecture of SHARED_MEMORY, with the oldest and newest Triton, except those
# in _SPILLS. `make resources`, also with TRITON=3.6.0, checks this. "inputs" has tiles of its own because its loop over tasks needs more
# registers than "backward".
_LARGE = [(128, 256, 64, 8, 3), (128, 128, 64, 8, 4), (128, 128, 64, 8, 3)]
_HALF = {
    "step": [(128, 128, 64, 8, 3), (128, 128, 64, 8, 4), (128, 64, 64, 4, 3), (64, 64, 64, 4, 4), (64, 64, 64, 4, 3), (32, 64, 64, 4, 4)],
    "all_steps": [(16, 64, 64, 4, 4), (16, 128, 64, 8, 3), (32, 128, 64, 8, 3), (64, 64, 64, 4, 3)],
    "backward": [*_LARGE, (64, 128, 64, 4, 3), (64, 64, 64, 4, 4), (32, 64, 64, 4, 4)],
    "inputs": [*_LARGE, (64, 256, 64, 8, 3), (64, 64, 64, 4, 4), (32, 64, 64, 4, 3)],
}
_TF32 = {
    "step": [(128, 64, 32, 8, 3), (64, 64, 32, 4, 4), (64, 64, 32, 4, 3), (32, 64, 32, 4, 4)],
    "all_steps": [(16, 64, 32, 4, 4), (32, 64, 32, 4, 3)],
    "backward": [(128, 128, 32, 8, 3), (64, 128, 32, 4, 3), (64, 64, 32, 4, 4), (32, 64, 32, 4, 4)],
    "inputs": [(128, 128, 32, 8, 3), (64, 128, 32, 4, 3), (64, 64, 32, 8, 3), (32, 64, 32, 4, 3)],
}
_FULL = {
    "step": [(64, 64, 16, 8, 3), (64, 32, 16, 8, 3)],
    "all_steps": [(16, 32, 16, 8, 4)],
    "backward": [(64, 64, 16, 8, 3), (64, 32, 16, 8, 3)],
    "inputs": [(64, 64, 16, 8, 3), (64, 32, 16, 8, 3)],
}
_DOUBLE = {
    "step": [(32, 32, 16, 4, 3)],
    "all_steps": [(16, 32, 16, 8, 3)],
    "backward": [(32, 32, 16, 4, 3)],
    "inputs": [(32, 32, 16, 8, 4), (32, 32, 16, 4, 3)],
}
_SPILLS = {
    ("step", 8): {(128, 64, 64, 4, 3)},
    ("all_steps", 10): {(64, 64, 64, 4, 3)},
    ("inputs", 8): {(64, 64, 64, 4, 4), (32, 64, 64, 4, 3), (64, 128, 32, 4, 3), (64, 32, 16, 8, 3), (32, 32, 16, 4, 3)},
    ("inputs", 10): {(128, 128, 32, 8, 3), (64, 32, 16, 8, 3)},
    ("inputs", 12): {(64, 128, 32, 4, 3), (32, 64, 32, 4, 3), (64, 32, 16, 8, 3), (32, 32, 16, 8, 4)},
}
"""Tiles that keep a stack on cards of a major compute capability, by kernel and that capability."""
_CANDIDATES = {"bfloat16": _HALF, "float16": _HALF, "tf32": _TF32, "float32": _FULL, "float64": _DOUBLE}


def product_columns(kernel: str, config: Config, gates: int) -> int:
    """Columns of a tile's product: in the forward one for each of the G vectors of its units, in the backward one for each unit."""
    return config.block_d * (gates if kernel in SCHEDULES else 1)


def shared_bytes(kernel: str, config: Config, kind: str, gates: int) -> int:
    """Shared memory of the pipeline's buffers, in bytes. The compiler needs some more for itself."""
    return config.num_stages * (config.block_b + product_columns(kernel, config, gates)) * config.block_k * ITEMSIZE[kind]


def candidates(kernel: str, kind: str, gates: int, card: Card | None = None) -> list[Config]:
    """The configurations of a kernel, or those that fit a card."""
    shared_memory, spills = (inf, set()) if card is None else (card.shared_memory, _SPILLS.get((kernel, card.major), set()))
    known = [Config(*sizes) for sizes in _CANDIDATES[kind][kernel] if sizes not in spills]
    return [config for config in known if shared_bytes(kernel, config, kind, gates) + 2048 <= shared_memory]
