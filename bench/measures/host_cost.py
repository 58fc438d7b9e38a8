"""How long does a call occupy the host before the GPU works? Measured without a GPU.

Triton compiles and prepares everything for a driver that launches nothing (bench/measures/fake_gpu.py), so what the driver itself takes
for a launch, some microseconds, is not in the figures. The ``cuda`` backend cannot be called without a GPU. The C++ backend stands for it
on a problem with next to nothing to compute: both go the same way through PyTorch's dispatcher and the checks in C++.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

import torch

from dcrnn_fast import functional
from dcrnn_fast.ops import backends

from .fake_gpu import FakeGpu
from .measure import Measure

CALLS, ROUNDS = 50, 20
GOALS = {"triton": 60, "cuda": 40}
"""Microseconds of a call in inference, outside of CUDA graphs."""


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


def problem(batch: int, dim: int, tasks: int, dtype: torch.dtype, *, requires_grad: bool = False) -> tuple[torch.Tensor, ...]:
    """The tensors of a call of ``cross_rnn``."""
    half = dim // 2
    shapes = (batch, dim), (half, 2, dim), (half, 2), (tasks, dim - half, 2, dim), (tasks, dim - half, 2)
    index = torch.arange(dim, dtype=torch.int32).repeat(tasks, 1)
    return *(torch.randn(*shape, dtype=dtype).requires_grad_(requires_grad) for shape in shapes), index


def low_rank(batch: int, dim: int, tasks: int, rank: int, dtype: torch.dtype, *, requires_grad: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of a call of the low-rank cell, by name; all tasks share the projection."""
    x0, _, shared_bias, _, private_bias, index = problem(batch, dim, tasks, dtype, requires_grad=requires_grad)
    half = dim // 2
    shapes = {
        "shared_weight": (half, 2, rank),
        "private_weight": (tasks, dim - half, 2, rank),
        "shared_projection": (rank, 2, dim),
        "private_projection": (tasks, 0, 2, dim),
    }
    banks = {name: torch.randn(*shape, dtype=dtype).requires_grad_(requires_grad) for name, shape in shapes.items()}
    places = torch.arange(rank, dtype=torch.int32).repeat(tasks, 1)
    return {"x0": x0, "shared_bias": shared_bias, "private_bias": private_bias, "index": index, **banks, "projection_index": places}


def rows() -> list[dict[str, object]]:
    """Measure every case."""
    gpu = FakeGpu().install()
    from dcrnn_fast.kernels import replay
    from dcrnn_fast.ops import dispatch, triton

    # CPU tensors stand for those on a GPU: the backend takes them, and their index counts as checked
    replay.DEVICE = "cpu"
    backends.REASONS["triton"] = None
    backends.BACKENDS["triton"] = replace(backends.BACKENDS["triton"], devices=("cuda", "cpu"))
    dispatch.IMPLEMENTATIONS["triton"] = triton.IMPLEMENTATION
    dispatch.index_is_checked = lambda index, rows: True  # type: ignore[attr-defined]
    found: list[dict[str, object]] = []

    def measure(backend: str, what: str, run: Callable[[], object]) -> None:
        run()
        gpu.launches.clear()
        gpu.noting = True
        run()
        gpu.noting = False
        found.append({"backend": backend, "call": what, "launches": len(gpu.launches), **microseconds(run)})

    tensors = problem(256, 256, 2, torch.bfloat16)
    trained = problem(16, 16, 2, torch.bfloat16, requires_grad=True)  # the CPU really computes PyTorch's own part: products, sums

    def forward(given: tuple[torch.Tensor, ...], backend: str = "triton") -> torch.Tensor:
        return functional.cross_rnn(*given, steps=3, backend=backend)  # type: ignore[arg-type]

    def prepared_anew() -> None:
        replay._recordings.clear()
        forward(tensors)

    def training() -> None:
        torch.autograd.grad(forward(trained).sum(), trained[:5])

    for schedule in ("all_steps", "step"):
        with functional.kernel_override("triton", schedule=schedule):
            with torch.no_grad():
                measure("triton", "inference", lambda: forward(tensors))
                measure("triton", "inference, prepared anew", prepared_anew)
            measure("triton", "forward and backward, D = 16", training)
    thin, thin_trained = low_rank(256, 256, 2, 32, torch.bfloat16), low_rank(16, 16, 2, 8, torch.bfloat16, requires_grad=True)
    leaves = [tensor for tensor in thin_trained.values() if tensor.requires_grad and tensor.numel()]

    def thin_forward(given: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.cross_rnn(**given, steps=3, backend="triton")  # type: ignore[arg-type]

    with torch.no_grad():
        measure("triton", "low rank, inference", lambda: thin_forward(thin))
    measure("triton", "low rank, forward and backward, D = 16", lambda: torch.autograd.grad(thin_forward(thin_trained).sum(), leaves))
    tiny = problem(1, 8, 1, torch.float32)
    with torch.no_grad():
        measure("cpp", "inference, B = 1, D = 8", lambda: forward(tiny, "cpp"))
    return found


def run(options: Namespace) -> dict[str, object]:
    """Measure and print every case."""
    measured = rows()
    for row in measured:
        print(f"{row['backend']:<8}{row['call']:<40}{row['launches']:>4} launches{row['us']:>8} us ({row['low']} to {row['high']})")
    return {"goals_us": GOALS, "rows": measured}


MEASURE = Measure("host_cost", run, "host_cost.json", threads=1)
