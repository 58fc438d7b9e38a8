"""Compiles a model's graph by AOTInductor, for this kind of CPU or for all with x86-64-v3."""

from __future__ import annotations

import platform
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ...errors import ConfigError, ExportError
from .archive import NO_ROOM, archive_file
from .cpu_kind import cpu_kind, missing_here, portable_kind

CPUS = ("native", "portable")
UNLOADABLE = "-fno-gnu-unique"
"""A flag for g++, whose code the system could otherwise not unload: each reload of a server would keep the whole model of before."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "native": {"cpp.march": f"native {UNLOADABLE}"} if platform.machine() == "x86_64" and sys.platform == "linux" else {},
    "portable": {"cpp.simdlen": 256, "cpp.march": f"x86-64-v3 {UNLOADABLE}"},
}
"""Options for AOTInductor, which writes `cpp.march` as it is into the compiler's command."""


def check_compiler() -> None:
    """Raise ExportError where there is no C++ compiler that PyTorch would use."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        compiler = shutil.which(get_cpp_compiler())
    except (RuntimeError, OSError):
        compiler = None
    if compiler is None:
        raise ExportError(
            "format aoti needs a C++ compiler, and none was found; install g++, name another one in the environment variable CXX, or "
            "export with --format pt2, which needs none"
        )


def kind_of(cpu: str) -> dict[str, Any]:
    """The :func:`cpu_kind` of the CPUs that "native" or "portable" code is for. Raises ConfigError where this machine is none of them."""
    kind = cpu_kind() if cpu == "native" else portable_kind()
    if problem := missing_here(kind):
        raise ConfigError(
            f"cpu={cpu!r}: portable code is for Linux on x86-64-v3, and must run here to be compared: {problem}; use 'native'"
        )
    return kind


def write_compiled(program: ExportedProgram, texts: Mapping[str, str], path: Path, cpu: str = "native") -> None:
    """Compile a graph into a .pt2 archive, and add the texts as torch.export.save adds extra files.

    ``cpu`` is "native", all instruction sets of this CPU, or "portable", those of x86-64-v3. Raises ExportError where the compiler fails,
    whose message it holds.
    """
    from torch._inductor import config

    try:
        with torch.no_grad(), config.patch(_OPTIONS[cpu]), archive_file(path) as file:
            torch._inductor.aoti_compile_and_package(program, package_path=file)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        raise ExportError(
            f"AOTInductor cannot compile the model: {' '.join(str(error).split())[-600:]}; "
            "mend the C++ compiler, or export with --format pt2"
        ) from error
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        for name, text in texts.items():
            archive.writestr(f"{root}/extra/{name}", text)
