"""The page of `dcrnn-fast info`: installed versions and usable backends. Needs only PyTorch and numpy."""

from __future__ import annotations

import platform

import numpy
import torch

from . import __version__
from .errors import DcrnnFastError
from .ops import backends


def facts() -> dict[str, str]:
    """Versions, the CPU, the builds of the extensions, and what "auto" takes, by name."""
    compiled = backends.extension()
    build = compiled.build_info() if compiled else None
    try:
        auto = backends.resolve("auto", device="cpu")
    except DcrnnFastError as error:
        auto = f"none: {error}"
    return {
        "dcrnn_fast": __version__,
        "Python": platform.python_version(),
        "PyTorch": torch.__version__ + (f" (CUDA {torch.version.cuda})" if torch.version.cuda else " (no CUDA)"),
        "numpy": numpy.__version__,
        "CPU": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "extension": (
            f"built against PyTorch {build['built_against_torch']}, loads in {build['abi_target']} or later, compiler {build['compiler']}, "
            f"CPU kernels for {'nothing' if backends.ISA_ERROR else compiled.isa()}"
            if compiled and build
            else f"absent: {backends.extension_missing_reason()}"
        ),
        "CUDA kernels": cuda_kernels(),
        "auto on CPU": auto,
        "auto on GPU": "checks and times the backends at the first call of a size",
    }


def cuda_kernels() -> str:
    """How the CUDA extension was built, or why it is absent."""
    compiled = backends.cuda_extension()
    if compiled is None:
        return f"absent: {backends.cuda_extension_missing_reason()}"
    build = compiled.build_info()
    return (
        f"compiled for {build['architectures'].replace(';', ', ')} by CUDA {build['cuda']}, against PyTorch {build['built_against_torch']}"
    )


def render() -> str:
    """The facts and the table of backends, as one text."""
    known = facts()
    lines = [f"{name:<12} {value}" for name, value in known.items()]
    rows = backends.table()
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in rows[0]}
    header = "  ".join(f"{column:<{width}}" for column, width in widths.items()).rstrip()
    lines += ["", header, "-" * len(header)]
    lines += ["  ".join(f"{row[column]:<{width}}" for column, width in widths.items()).rstrip() for row in rows]
    return "\n".join(lines)
