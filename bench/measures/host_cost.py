"""How long does a call occupy the host before the GPU works? Measured without a GPU.

Triton compiles and prepares everything for a driver that launches nothing (bench/measures/fake_gpu.py), so what the driver itself takes
for a launch, some microseconds, is not in the figures. What PyTorch computes on a GPU, the CPU computes here: the sizes are small. The
``cuda`` backend cannot be called without a GPU. The C++ backend stands for it on a problem with next to nothing to compute: both go the
same way through PyTorch's dispatcher and the checks in C++.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dcrnn_fast import CrossRNN, SharingPlan, functional
from dcrnn_fast.ops import backends, checks

from .fake_gpu import FakeGpu
from .measure import Measure

CALLS, ROUNDS = 50, 20
GOALS = {"triton": {"forward": 60, "forward and backward": 150}, "cuda": {"forward": 40, "forward and backward": 100}}
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
    gpu = FakeGpu().install()
    from dcrnn_fast.kernels import replay
    from dcrnn_fast.ops import dispatch, triton

    # CPU tensors stand for those on a GPU: the backend takes them, and reads an index once
    replay.DEVICE = "cpu"
    backends.REASONS["triton"] = None
    backends.BACKENDS["triton"] = replace(backends.BACKENDS["triton"], devices=("cuda", "cpu"))
    dispatch.IMPLEMENTATIONS["triton"] = triton.IMPLEMENTATION
    checks.remembers = lambda index: True  # type: ignore[assignment]
    found: list[dict[str, object]] = []

    def measure(backend: str, what: str, run: Callable[[], object]) -> None:
        run()
        gpu.launches.clear()
        gpu.noting = True
        run()
        gpu.noting = False
        found.append({"backend": backend, "call": what, "launches": len(gpu.launches), **microseconds(run)})

    def measure_module(backend: str, what: str, rank: int | None) -> None:
        plan = SharingPlan.from_ratio("rows", num_tasks=2, dim=DIM, share_ratio=0.5, steps=3, rank=rank)
        cell, x0 = CrossRNN(plan, backend=backend), torch.randn(BATCH, DIM)
        leaves = [parameter for parameter in cell.parameters() if parameter.numel()]
        grad = torch.randn(2, BATCH, DIM)

        def prepared_anew() -> Tensor:
            replay._kinds.clear()
            return cell(x0)

        with torch.no_grad():
            measure(backend, f"{what}, forward", lambda: cell(x0))
            if backend == "triton":
                measure(backend, f"{what}, forward, prepared anew", prepared_anew)
        measure(backend, f"{what}, forward and backward", lambda: torch.autograd.grad(cell(x0), leaves, grad))

    for schedule in ("all_steps", "step"):
        with functional.kernel_override("triton", schedule=schedule):
            measure_module("triton", f"full, {schedule}", None)
    measure_module("triton", "low rank", RANK)
    measure_module("cpp", "full", None)
    measure_module("cpp", "low rank", RANK)
    return found


def run(options: Namespace) -> dict[str, object]:
    """Measure and print every case."""
    measured = rows()
    for row in measured:
        print(f"{row['backend']:<8}{row['call']:<40}{row['launches']:>4} launches{row['us']:>8} us ({row['low']} to {row['high']})")
    return {"goals_us": GOALS, "rows": measured}


MEASURE = Measure("host_cost", run, "host_cost.json", threads=1)
