"""Peak memory of a training step of every candidate, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from .memory import CANDIDATES

SMOKE = [(64, 64, 2)]
GRID = [(128, 4096, 2), (624, 4096, 2), (624, 4096, 4), (624, 16384, 2)]

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak from Linux's /proc")


def pytest_generate_tests(metafunc):
    cases = GRID if metafunc.config.getoption("--benchmark") else SMOKE
    metafunc.parametrize(("dim", "batch", "tasks"), cases, ids=[f"D{d}-B{b}-T{t}" for d, b, t in cases])


def test_peak_memory(dim, batch, tasks, measuring, record):
    figures = {}
    for kind in CANDIDATES if measuring else CANDIDATES[:3]:
        command = [sys.executable, "-m", "bench.memory", kind, *map(str, (dim, batch, tasks))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures[f"{kind}, MB"] = round(int(done.stdout) / 1e6, 1)
    ratios = {f"{kind}/eager": round(figures[f"{kind}, MB"] / max(figures["eager, MB"], 1e-9), 4) for kind in CANDIDATES[:2]}
    record("memory_cpu", {"D": dim, "B": batch, "T": tasks}, {**figures, **ratios})
