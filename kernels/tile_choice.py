"""Which schedule and tile sizes a call gets: those of a kernel override, else measured ones, else predicted ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from . import cost_model, low_rank_tiles, tile_file, tile_table
from .tile_table import Config, Sizes

# No context variable: PyTorch runs backwards in threads of its own, which would not see it.
_overrides: dict[str, Config | str] = {}
_changes = 0


@contextmanager
def kernel_override(**values: Config | str) -> Iterator[None]:
    """Inside the block, every call gets these values: a :class:`Config` by its kernel's name, or ``schedule="step"`` or ``"all_steps"``.

    For tests and measurements. All threads share the values.
    """
    for name, value in values.items():
        if name == "schedule":
            if value not in tile_table.SCHEDULES:
                raise ValueError(f"schedule: got {value!r}, expected one of {', '.join(tile_table.SCHEDULES)}")
        elif name not in (known := (*tile_table.KERNELS, *low_rank_tiles.KERNELS)):
            raise ValueError(f"kernel_override: got {name!r}, expected one of schedule, {', '.join(known)}")
        elif not isinstance(value, Config):
            raise ValueError(f"{name}: got {value!r}, expected a Config")
    before = dict(_overrides)
    _override({**before, **values})
    try:
        yield
    finally:
        _override(before)


def _override(values: dict[str, Config | str]) -> None:
    global _changes
    _overrides.clear()
    _overrides.update(values)
    _changes += 1


def changes() -> int:
    """How often choices changed. While this number stays the same, a call of the same sizes gets the same choices."""
    return _changes


def config(kernel: str, sizes: Sizes) -> Config:
    """The tile sizes of a kernel."""
    value = _overrides.get(kernel) or _chosen(kernel, sizes)
    assert isinstance(value, Config)
    return value


def schedule(sizes: Sizes) -> str:
    """The schedule of the forward, one of :data:`~dcrnn_fast.kernels.tile_table.SCHEDULES`."""
    return str(_overrides.get("schedule") or _chosen("schedule", sizes))


def clear() -> None:
    """Forget all choices, so that the next calls read the files again."""
    global _changes
    _chosen.cache_clear()
    tile_file.choices.cache_clear()
    _changes += 1


@cache
def _chosen(choice: str, sizes: Sizes) -> Config | str:
    if choice in low_rank_tiles.KERNELS:
        return low_rank_tiles.chosen(choice, sizes)
    measured = tile_file.choices(sizes.card.name).get(sizes.key(choice))
    if measured is not None:
        return measured
    return cost_model.predicted_schedule(sizes) if choice == "schedule" else cost_model.predicted(choice, sizes)
