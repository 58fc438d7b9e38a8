"""What a result was measured on, and the memory of this process."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

import dcrnn_fast

PROCESS = Path("/proc/self")
CAN_MEASURE_MEMORY = (PROCESS / "clear_refs").exists()


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def description() -> dict[str, object]:
    """Processor, instruction set, threads and versions; the card's name where a GPU is used."""
    extension, gpu = dcrnn_fast.ops.backends.extension(), torch.cuda.is_available()
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "isa of the kernels": extension.isa() if extension and not dcrnn_fast.ops.backends.ISA_ERROR else None,
        "threads": torch.get_num_threads(),
        "openmp": {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "OMP_PROC_BIND") if name in os.environ} or "defaults",
        "gpu": torch.cuda.get_device_name() if gpu else None,
        **({"cuda": torch.version.cuda, "triton": version("triton")} if gpu else {}),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "dcrnn_fast": dcrnn_fast.__version__,
        "backend": dcrnn_fast.ops.backends.resolve("auto"),
    }


def line(about: dict) -> str:
    """What :func:`description` found, for people."""
    isa = about["isa of the kernels"] or about["isa"]
    card = f"{about['gpu']}, CUDA {about['cuda']}, Triton {about['triton']}; " if about["gpu"] else ""
    versions = f"PyTorch {about['torch'].partition('+')[0]}, dcrnn_fast {about['dcrnn_fast']}, Python {about['python']}"
    return f"{card}{about['cpu']}, {isa}, {about['threads']} threads, {versions}"


def memory_growth() -> Callable[[], int]:
    """A function that tells by how many resident bytes this process has grown since, at its highest.

    It reads Linux's /proc: every allocator and the kernels' scratch memory count. The system's record of the highest is of the whole life
    of a process: what came before would hide what comes now. A call begins it anew.
    """
    (PROCESS / "clear_refs").write_text("5", encoding="ascii")
    before = _bytes("VmRSS")
    return lambda: _bytes("VmHWM") - before


def _bytes(field: str) -> int:
    line = next(line for line in (PROCESS / "status").read_text(encoding="utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
