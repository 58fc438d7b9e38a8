"""The milliseconds of candidates that take turns, printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import interleave


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
