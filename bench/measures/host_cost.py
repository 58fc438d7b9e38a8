"""How long does a call of the compiled operators occupy the host before a GPU works? Measured without a GPU.

The ``cuda`` backend cannot be called without a GPU. The C++ backend stands for it on a problem with next to nothing to compute: both go the
same way through PyTorch's dispatcher and the checks in C++. What the driver takes for a launch, some microseconds, is not in the figures.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from typing import Any

import torch

from dcrnn_fast import CrossRNN, SharingPlan

from .measure import told

CALLS, ROUNDS = 50, 20
GOALS = {"cuda": {"forward": 40, "forward and backward": 100}}
"""Microseconds of a call outside of CUDA graphs."""
BATCH, DIM, RANKS = 16, 16, {"full": None, "low rank": 8}
FILE, THREADS = "host_cost.json", 1


def run(options: Namespace) -> dict[str, Any]:
    """Of each call the median over rounds of the mean of a round's calls, and the quartiles."""
    rows = []
    for what, rank in RANKS.items():
        plan = SharingPlan.from_ratio("rows", num_tasks=2, dim=DIM, share_ratio=0.5, steps=3, rank=rank)
        cell, x0, grad = CrossRNN(plan, backend="cpp"), torch.randn(BATCH, DIM), torch.randn(2, BATCH, DIM)
        leaves = [parameter for parameter in cell.parameters() if parameter.numel()]
        for way in ("forward", "forward and backward"):
            times = []
            with torch.set_grad_enabled(way != "forward"):
                for _ in range(ROUNDS + 1):
                    begin = time.perf_counter()
                    for _ in range(CALLS):
                        out = cell(x0)
                        if way != "forward":
                            torch.autograd.grad(out, leaves, grad)
                    times.append((time.perf_counter() - begin) / CALLS * 1e6)
            low, median, high = (round(value, 1) for value in statistics.quantiles(times[1:], n=4))
            rows.append(told({"backend": "cpp", "call": f"{what}, {way}", "us": median, "low": low, "high": high}))
    return {"goals_us": GOALS, "rows": rows}
