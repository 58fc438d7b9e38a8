"""Peak memory of one training step. On a CPU, each candidate has a process of its own: ``python -m bench.memory KIND DTYPE D B T``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from dcrnn_fast import CrossRNN, SharingPlan, reference

from .candidates import step
from .cases import DTYPES, SHARE_RATIO, STEPS


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def peak(candidate: str, dtype: str, dim: int, batch: int, tasks: int, device: str) -> int:
    """The bytes that the step needs at its peak beyond what was there before it, after a step that loads libraries and compiles.

    ``candidate`` is "eager", "compile", a backend, or "BACKEND, recompute". On a CPU the peak is the high-water mark of the process's
    resident set (Linux only). It counts every allocator, and the kernels' own scratch memory. On a GPU it is what PyTorch's allocator counts.
    """
    on_cpu = device == "cpu"
    plan = SharingPlan.from_ratio("rows", tasks, dim, SHARE_RATIO, steps=STEPS)
    kind = {"dtype": DTYPES[dtype], "device": device}
    backend, _, option = candidate.partition(", ")
    eager = backend in ("eager", "compile")
    module = reference.CrossRNN(plan, **kind) if eager else CrossRNN(plan, backend=backend, recompute=bool(option), **kind)
    run = torch.compile(module, fullgraph=True, dynamic=on_cpu) if backend == "compile" else module
    few = 32 if on_cpu else batch
    step(run, torch.randn(few, dim, **kind), torch.randn(tasks, few, dim, **kind))
    x0, seed = torch.randn(batch, dim, **kind), torch.randn(tasks, batch, dim, **kind)
    if on_cpu:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts again from here
        before = _status("VmRSS")
        step(run, x0, seed)
        return _status("VmHWM") - before
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(run, x0, seed)
    return torch.cuda.max_memory_allocated() - before


def peak_in_own_process(candidate: str, dtype: str, dim: int, batch: int, tasks: int) -> int:
    """:func:`peak` on the CPU."""
    command = [sys.executable, "-m", "bench.memory", candidate, dtype, *map(str, (dim, batch, tasks))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
    return int(done.stdout)


if __name__ == "__main__":
    print(peak(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]), device="cpu"))
