"""Timing that a noisy machine cannot tilt: candidates take turns in one process, and what is quoted is the median of per-round ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

SLOW = 1.0
"""A candidate that takes longer than this many seconds is warmed by one call, and three rounds do."""


@dataclass(frozen=True)
class Ratio:
    """Median, first and third quartile of per-round ratios."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def _seconds(run: Callable[[], object], calls: int = 1) -> float:
    """Seconds a call. A GPU's queue is empty when the clock starts and when it stops."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / calls


def rounds(
    candidates: Mapping[str, Callable[[], object]], *, seconds: float, minimum: int = 7, stretch: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of every candidate in every round; each round calls each candidate once, beginning with another one every time.

    A candidate is first called unmeasured (compilation, first touch of its memory). Rounds go on for about ``seconds``. A turn is one call,
    or as many in a row as take the fastest candidate ``stretch`` seconds: a GPU then works through a full queue, and waiting for it is not
    counted with every call.
    """
    again = []
    for run in candidates.values():
        if _seconds(run) < SLOW:
            again.append(_seconds(run))
        else:
            minimum = min(minimum, 3)
    calls = max(1, round(stretch / min(again))) if again else 1
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    start, turn = time.perf_counter(), 0
    while turn < minimum or time.perf_counter() - start < seconds:
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(_seconds(candidates[name], calls))
        turn += 1
    return times


def ratio(times: Mapping[str, list[float]], of: str, to: str) -> Ratio:
    """How many times as long ``of`` takes as ``to``, round by round."""
    values = [a / b for a, b in zip(times[of], times[to], strict=True)]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(median, low, high)


def measured(times: Mapping[str, list[float]], of: str) -> dict[str, float | int]:
    """A result row's figures: every candidate's median in milliseconds, and the ratios of ``of`` to the others with their quartiles."""
    row: dict[str, float | int] = {"rounds": len(times[of])}
    row |= {f"{name}, ms": round(statistics.median(values) * 1e3, 4) for name, values in times.items()}
    for name in times:
        if name != of:
            found = ratio(times, of, name)
            row |= {f"{of}/{name}": found.median, f"{of}/{name}, low": found.low, f"{of}/{name}, high": found.high}
    return {name: round(value, 4) for name, value in row.items()}
