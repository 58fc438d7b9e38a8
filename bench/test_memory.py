"""Peak memory of a training step of every candidate."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from dcrnn_fast import CrossRNN, SharingPlan

from .candidates import Eager, step
from .cases import DTYPES, DTYPES_OF, GPU, SHARE_RATIO, STEPS, crossed
from .machine import CAN_MEASURE_MEMORY, memory_growth

FULL = {
    "cpu": [{"D": d, "B": b, "T": t} for d, b, t in ((128, 4096, 2), (624, 4096, 2), (624, 4096, 4), (624, 16384, 2))],
    "cuda": crossed(**GPU),
}


def cases(grid, device):
    dtypes = DTYPES_OF[device] if grid == "full" and device == "cuda" else DTYPES_OF[device][:1]
    sizes = {"smoke": [{"D": 64, "B": 64, "T": 2}], "headline": [{"D": 624, "B": 4096, "T": 2}], "full": FULL[device]}
    return [{"dtype": dtype, **size} for size in sizes[grid] for dtype in dtypes]


def peak(candidate: str, dtype: str, dim: int, batch: int, tasks: int, device: str) -> int:
    """The bytes that the step needs at its peak beyond what was there before it, after a step that loads libraries and compiles.

    ``candidate`` is "eager", "compile", a backend, or "BACKEND, recompute". On a CPU we measure the process's resident set: it counts every
    allocator and the kernels' scratch memory. On a GPU we ask PyTorch's allocator.
    """
    on_cpu = device == "cpu"
    plan = SharingPlan.from_ratio("rows", tasks, dim, SHARE_RATIO, steps=STEPS)
    kind = {"dtype": DTYPES[dtype], "device": device}
    backend, _, option = candidate.partition(", ")
    plain = backend in ("eager", "compile")
    module = Eager(plan, **kind) if plain else CrossRNN(plan, backend=backend, recompute=bool(option), **kind)
    run = torch.compile(module, fullgraph=True, dynamic=on_cpu) if backend == "compile" else module
    few = 32 if on_cpu else batch
    step(run, torch.randn(few, dim, **kind), torch.randn(tasks, few, dim, **kind))
    x0, seed = torch.randn(batch, dim, **kind), torch.randn(tasks, batch, dim, **kind)
    if on_cpu:
        grown = memory_growth()
        step(run, x0, seed)
        return grown()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(run, x0, seed)
    return torch.cuda.max_memory_allocated() - before


def peak_in_own_process(*arguments) -> int:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak, *arguments).result()


def test_memory(untimed_comparison):
    comparison = untimed_comparison
    case, on_cpu = comparison.case, comparison.device == "cpu"
    if on_cpu and not CAN_MEASURE_MEMORY:
        pytest.skip("reads the peak from Linux's /proc")
    ours = [name for name in comparison.ours if not (on_cpu and name == "triton")]
    ours += [f"{name}, recompute" for name in ours]
    measure = peak_in_own_process if on_cpu else peak
    for name in (*ours, "eager", *(["compile"] if comparison.grid != "smoke" else [])):
        comparison.add(name, lambda name=name: measure(name, case["dtype"], case["D"], case["B"], case["T"], comparison.device))
    peaks = comparison.calls
    row = {f"{name}, MB": round(value / 1e6, 1) for name, value in peaks.items()}
    pairs = [(name, peer) for name in ours for peer in ("eager", "compile") if name in peaks and peer in peaks]
    row |= {f"{name}/{peer}": round(peaks[name] / max(peaks[peer], 1), 4) for name, peer in pairs}
    comparison.finish(row)
