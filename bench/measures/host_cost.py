"""How long does a call of the compiled operators occupy the host before a GPU works? Measured without a GPU.

The ``cuda`` backend cannot be called without a GPU. The C++ backend stands for it on a problem with next to nothing to compute: both go the
same way through PyTorch's dispatcher and the checks in C++. What the driver takes for a launch, some microseconds, is not in the figures.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Callable

import torch

from dcrnn_fast import CrossRNN, SharingPlan

from .measure import Measure

CALLS, ROUNDS = 50, 20
GOALS = {"cuda": {"forward": 40, "forward and backward": 100}}
"""Microseconds of a call outside of CUDA graphs."""
BATCH, DIM, RANK = 16, 16, 8


def microseconds(run: Callable[[], object]) -> dict[str, float]:
    """The median over rounds of the mean of a round's calls, and the quartiles."""
    run()
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(CALLS):
            run()
        times.append((time.perf_counter() - begin) / CALLS * 1e6)
    low, median, high = statistics.quantiles(times, n=4)
    return {"us": round(median, 1), "low": round(low, 1), "high": round(high, 1)}


def rows() -> list[dict[str, object]]:
    """Measure every case."""
    found: list[dict[str, object]] = []
    for what, rank in (("full", None), ("low rank", RANK)):
        plan = SharingPlan.from_ratio("rows", num_tasks=2, dim=DIM, share_ratio=0.5, steps=3, rank=rank)
        cell, x0 = CrossRNN(plan, backend="cpp"), torch.randn(BATCH, DIM)
        leaves = [parameter for parameter in cell.parameters() if parameter.numel()]
        grad = torch.randn(2, BATCH, DIM)

        def forward(cell: CrossRNN = cell, x0: torch.Tensor = x0) -> torch.Tensor:
            return cell(x0)

        def both(forward=forward, leaves=leaves, grad=grad) -> object:
            return torch.autograd.grad(forward(), leaves, grad)

        with torch.no_grad():
            found.append({"backend": "cpp", "call": f"{what}, forward", **microseconds(forward)})
        found.append({"backend": "cpp", "call": f"{what}, forward and backward", **microseconds(both)})
    return found


def run(options: Namespace) -> dict[str, object]:
    """Measure and print every case."""
    measured = rows()
    for row in measured:
        print(f"{row['backend']:<8}{row['call']:<40}{row['us']:>8} us ({row['low']} to {row['high']})")
    return {"goals_us": GOALS, "rows": measured}


MEASURE = Measure("host_cost", run, "host_cost.json", threads=1)
