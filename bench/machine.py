"""What a result was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

import dcrnn_fast


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def card() -> dict[str, object]:
    """The GPU and what its results depend on; empty where there is none."""
    if not torch.cuda.is_available():
        return {}
    import triton

    from dcrnn_fast.kernels import tile_file

    name = torch.cuda.get_device_name()
    path = tile_file.user_file(name)
    tuned = path if path.is_file() else tile_file.shipped_file(name)
    return {
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "tile sizes": "measured" if tuned.is_file() else "predicted",
    }


def description() -> dict[str, object]:
    """Processor, instruction set, threads and versions; the card's name where a GPU is used."""
    extension = dcrnn_fast.ops.backends.extension()
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "isa of the kernels": extension.isa() if extension and not dcrnn_fast.ops.backends.ISA_ERROR else None,
        "threads": torch.get_num_threads(),
        "openmp": {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "OMP_PROC_BIND") if name in os.environ} or "defaults",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **card(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dcrnn_fast": dcrnn_fast.__version__,
        "backend": dcrnn_fast.ops.backends.resolve("auto"),
    }


def line(about: dict) -> str:
    """What :func:`description` found, for people."""
    isa = about["isa of the kernels"] or about["isa"]
    card = f"{about['gpu']}, CUDA {about['cuda']}, Triton {about['triton']}, tile sizes {about['tile sizes']}; " if about["gpu"] else ""
    versions = f"PyTorch {about['torch'].partition('+')[0]}, dcrnn_fast {about['dcrnn_fast']}, Python {about['python']}"
    return f"{card}{about['cpu']}, {isa}, {about['threads']} threads, {versions}"
