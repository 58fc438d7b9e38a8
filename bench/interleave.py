"""Interleaves all candidates in one process and computes time ratios within each round, which cancels noise."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

SLOW = 1.0
"""A candidate that takes longer than this many seconds gets one warm-up call, and three rounds are enough."""

wait: Callable[[], None] = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
"""Returns when the GPU, if there is one, has no work left."""


Clock = Callable[[], float]


def _seconds(run: Callable[[], object], calls: int = 1, clock: Clock = time.perf_counter) -> float:
    """Seconds a call."""
    wait()
    begin = clock()
    for _ in range(calls):
        run()
    wait()
    return (clock() - begin) / calls


def rounds(
    candidates: Mapping[str, Callable[[], object]], *, seconds: float, minimum: int, stretch: float, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds a call of every candidate in every round. Each round gives every candidate a turn, and starts with another candidate.

    Every candidate is called once or twice before, unmeasured. Rounds go on for about ``seconds``, and there are at least ``minimum``. A
    candidate's turn is one call, or as many calls as take the fastest candidate ``stretch`` seconds: on a GPU, the wait for the end of the
    queue then hardly counts. ``clock`` gives the seconds; those of ``time.process_time`` leave out the time in which other processes have
    the processor.
    """
    again = []
    for run in candidates.values():
        if _seconds(run, clock=clock) < SLOW:
            again.append(_seconds(run, clock=clock))
        else:
            minimum = min(minimum, 3)
    calls = max(1, round(stretch / min(again))) if again else 1
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    start, turn = clock(), 0
    while turn < minimum or clock() - start < seconds:
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(_seconds(candidates[name], calls, clock))
        turn += 1
    return times


def figures(times: Mapping[str, Sequence[float]], ours: Sequence[str]) -> dict[str, float]:
    """A row of results: the median milliseconds of every candidate, and for each of ``ours`` the ratios of its times to the others' times.

    The column "a/b" has the median of the ratios over the rounds, "a/b, low" and "a/b, high" their quartiles.
    """
    row: dict[str, float] = {"rounds": len(next(iter(times.values())))}
    row |= {f"{name}, ms": statistics.median(values) * 1e3 for name, values in times.items()}
    for own in ours:
        for name in times:
            if name != own:
                ratios = [a / b for a, b in zip(times[own], times[name], strict=True)]
                low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
                row |= {f"{own}/{name}": median, f"{own}/{name}, low": low, f"{own}/{name}, high": high}
    return {column: round(value, 4) for column, value in row.items()}


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
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """A row: the case, the milliseconds of candidates that take turns, and the ratios of ours to the others. It is printed."""
    return told({**case, **figures(rounds(candidates, seconds=seconds, minimum=minimum, stretch=0.0, clock=clock), ours)})
