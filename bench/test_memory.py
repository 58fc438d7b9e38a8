"""Peak memory of a training step of every candidate."""

from pathlib import Path

import pytest

from .cases import DTYPES_OF, crossed
from .memory import peak, peak_in_own_process

FULL = {
    "cpu": [{"D": d, "B": b, "T": t} for d, b, t in ((128, 4096, 2), (624, 4096, 2), (624, 4096, 4), (624, 16384, 2))],
    "cuda": crossed(T=(2, 1, 4), D=(624, 256, 128, 1024), B=(8192, 256, 2048, 65536)),
}


def cases(grid, device):
    dtypes = DTYPES_OF[device] if grid == "full" and device == "cuda" else DTYPES_OF[device][:1]
    sizes = {"smoke": [{"D": 64, "B": 64, "T": 2}], "headline": [{"D": 624, "B": 4096, "T": 2}], "full": FULL[device]}
    return [{"dtype": dtype, **size} for size in sizes[grid] for dtype in dtypes]


def test_memory(comparison):
    case, on_cpu = comparison.case, comparison.device == "cpu"
    if on_cpu and not Path("/proc/self/clear_refs").exists():
        pytest.skip("reads the peak from Linux's /proc")
    ours = [name for name in comparison.ours if not (on_cpu and name == "triton")]
    ours += [f"{name}, recompute" for name in ours]
    size = case["dtype"], case["D"], case["B"], case["T"]
    for name in (*ours, "eager", *(["compile"] if comparison.grid != "smoke" else [])):
        comparison.add(name, lambda name=name: peak_in_own_process(name, *size) if on_cpu else peak(name, *size, device="cuda"))
    peaks = comparison.calls
    row = {f"{name}, MB": round(value / 1e6, 1) for name, value in peaks.items()}
    pairs = [(name, peer) for name in ours for peer in ("eager", "compile") if name in peaks and peer in peaks]
    row |= {f"{name}/{peer}": round(peaks[name] / max(peaks[peer], 1), 4) for name, peer in pairs}
    comparison.finish(row)
