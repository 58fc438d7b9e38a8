"""Which schedule and tile sizes a call gets: forced ones, else measured ones, else predicted ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import tile_file, tile_table
from .launch import precision
from .tile_file import Key
from .tile_table import Card, Config


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
    def of(cls, x0: Tensor, tasks: int, gates: int, columns: int, steps: int, allow_tf32: bool) -> Sizes:
        """The sizes of a call; a size that a traced graph leaves open counts as the one it was traced with."""
        kind = str(x0.dtype).removeprefix("torch.")
        if precision(x0.dtype, allow_tf32) == "tf32":
            kind = "tf32"
        device = x0.device.index if x0.is_cuda and x0.device.index is not None else -1
        return cls(device, kind, tile_table.bucket(_hint(x0.shape[0]) * _hint(tasks)), _hint(x0.shape[1]), gates, _hint(columns), steps)

    def arguments(self) -> dict[str, int]:
        """What the predictions are made from."""
        return {"rows": self.rows, "dim": self.dim, "gates": self.gates, "columns": self.columns, "steps": self.steps}


def _hint(size: int | torch.SymInt) -> int:
    if isinstance(size, int):
        return size
    from torch.fx.experimental import symbolic_shapes

    # PyTorch 2.13 has this under another name than 2.10
    hint = getattr(symbolic_shapes, "optimization_hint", None) or symbolic_shapes.size_hint  # type: ignore[attr-defined]
    return int(hint(size, fallback=8192))


# No context variables: PyTorch runs backwards in threads of its own, which would not see them.
_overrides: dict[str, Config | str] = {}
_named_card: list[str] = []


@contextmanager
def kernel_override(**values: Config | str) -> Iterator[None]:
    """Within it every call gets these: a :class:`Config` by the kernel's name, ``schedule="step"`` or ``"all_steps"``. For measuring and
    tests; not for calls of several threads that want different ones."""
    unknown = [name for name in values if name not in (*tile_table.KERNELS, "schedule")]
    if unknown:
        raise ValueError(f"{unknown[0]!r}: expected one of {', '.join(tile_table.KERNELS)}, schedule")
    before = dict(_overrides)
    _overrides.update(values)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


@contextmanager
def as_card(name: str) -> Iterator[None]:
    """Within it measured choices are those of this card, also where no tensor is on a GPU."""
    _named_card.append(name)
    clear()
    try:
        yield
    finally:
        _named_card.pop()
        clear()


def clear() -> None:
    """Forget what was looked up, so that files are read again."""
    for lookup in (_chosen, card_name, tile_file.choices):
        lookup.cache_clear()


@cache
def card_name(device: int) -> str | None:
    """The name of a CUDA device; None for -1, which is no CUDA device."""
    if _named_card:
        return _named_card[-1]
    return torch.cuda.get_device_name(device) if device >= 0 else None


@cache
def card(device: int) -> Card:
    """What the prediction asks of the device; of an H100 where there is none. Rates are an H100's for every card."""
    if device < 0:
        return tile_table.H100
    found: Any = torch.cuda.get_device_properties(device)  # PyTorch's own types leave the shared memory out
    return replace(tile_table.H100, multiprocessors=found.multi_processor_count, shared_memory=found.shared_memory_per_block_optin)


def config(kernel: str, sizes: Sizes) -> Config:
    """The tile sizes of a kernel."""
    value = _overrides.get(kernel) or _chosen(kernel, sizes)
    assert isinstance(value, Config)
    return value


def schedule(sizes: Sizes) -> str:
    """One launch for all steps of the forward, "all_steps", or one a "step"."""
    return str(_overrides.get("schedule") or _chosen("schedule", sizes))


@cache
def _chosen(choice: str, sizes: Sizes) -> Config | str:
    name, found_on = card_name(sizes.device), card(sizes.device)
    found = tile_file.choices(name).get(Key.of(choice, sizes)) if name else None
    if found is not None:
        return found
    if choice == "schedule":
        return tile_table.predicted_schedule(sizes.kind, **sizes.arguments(), card=found_on)
    return tile_table.predicted(choice, sizes.kind, **sizes.arguments(), card=found_on)
