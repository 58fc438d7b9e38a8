"""Peak memory of one training step, in a process of its own: ``python -m bench.memory KIND DIM BATCH TASKS``, KIND as in CANDIDATES.

Prints the bytes that the step needs at its peak beyond what was there before it: the high-water mark of the resident set, which counts
every allocator, the kernels' own scratch memory included. Linux only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dcrnn_fast import CrossRNN, SharingPlan, reference

from .candidates import step

CANDIDATES = ("fast", "fast, recompute", "eager", "compile")


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def peak(kind: str, dim: int, batch: int, tasks: int) -> int:
    """Bytes at the peak of one training step, after a step on a few rows that loads libraries and compiles."""
    plan = SharingPlan.from_ratio("rows", tasks, dim, 0.5)
    if kind.startswith("fast"):
        module: torch.nn.Module = CrossRNN(plan, recompute="recompute" in kind)
    else:
        module = reference.CrossRNN(plan)
    if kind == "compile":
        module = torch.compile(module, fullgraph=True, dynamic=True)  # type: ignore[assignment]
    torch.manual_seed(0)
    step(module, torch.randn(32, dim), torch.randn(tasks, 32, dim))
    x0, seed = torch.randn(batch, dim), torch.randn(tasks, batch, dim)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark begins anew
    before = _status("VmRSS")
    step(module, x0, seed)
    return _status("VmHWM") - before


if __name__ == "__main__":
    print(peak(sys.argv[1], *map(int, sys.argv[2:])))
