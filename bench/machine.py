"""What a result was measured on, and where it is written."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import torch

import dcrnn_fast

RESULTS = Path(__file__).parent / "results"


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def description() -> dict[str, object]:
    """Processor, instruction set, threads and versions; the card's name where a GPU is used."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dcrnn_fast": dcrnn_fast.__version__,
        "backend": dcrnn_fast.backends.resolve("auto"),
    }


def write(name: str, content: object) -> Path:
    """Write ``content`` as bench/results/NAME, beside and renamed."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / name
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)
    return path
