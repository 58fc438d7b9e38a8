"""Timing that a noisy machine cannot tilt: candidates take turns in one process, and what is quoted is the median of per-round ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """Median, first and third quartile of per-round ratios."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def rounds(candidates: Mapping[str, Callable[[], object]], *, seconds: float, minimum: int = 7) -> dict[str, list[float]]:
    """Seconds of every candidate in every round; each round calls each candidate once, beginning with another one every time.

    A candidate is first called twice unmeasured (compilation, first touch of its memory). Rounds go on for about ``seconds``.
    """
    for run in candidates.values():
        run()
        run()
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    start, turn = time.perf_counter(), 0
    while turn < minimum or time.perf_counter() - start < seconds:
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = time.perf_counter()
            candidates[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - begin)
        turn += 1
    return times


def ratio(times: Mapping[str, list[float]], of: str, to: str) -> Ratio:
    """How many times as long ``of`` takes as ``to``, round by round."""
    values = [a / b for a, b in zip(times[of], times[to], strict=True)]
    low, median, high = statistics.quantiles(values, n=4)
    return Ratio(median, low, high)
