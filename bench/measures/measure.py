"""What all measurements share: where their figures go, and the milliseconds of candidates that take turns."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .. import interleave

NAMES = (
    "compiled_step", "embedding_step", "host_cost", "load", "requests", "scale", "sizing", "spark", "step_parts", "training_step",
)  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """A measurement. Its name is that of its module."""

    name: str
    run: Callable[[Namespace], Mapping[str, Any] | None]
    """Measures and prints; gives the content of the file, without the machine. None: there is nothing to write."""
    file: str = ""
    """In bench/results/."""
    seconds: float | None = None
    """How long each case is measured, where ``--seconds`` does not say otherwise. None: there is no such option."""
    threads: int | None = None
    """PyTorch's; None: as many as it chooses."""
    add_options: Callable[[ArgumentParser], Any] | None = None


def measure(name: str) -> Measure:
    """A measurement by its name."""
    return import_module(f"{__package__}.{name}").MEASURE


def told(row: dict[str, Any]) -> dict[str, Any]:
    """The row, printed."""
    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row


def compared(
    case: Mapping[str, Any],
    candidates: Mapping[str, Callable[[], object]],
    ours: Sequence[str],
    *,
    seconds: float,
    minimum: int = 9,
    clock: interleave.Clock = time.perf_counter,
) -> dict[str, Any]:
    """A row: the case, the milliseconds of candidates that take turns, and the ratios of ours to the others. It is printed."""
    times = interleave.rounds(candidates, seconds=seconds, minimum=minimum, stretch=0.0, clock=clock)
    return told({**case, **interleave.figures(times, ours)})
