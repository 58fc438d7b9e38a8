"""Compiles a model's graph by AOTInductor, for this kind of CPU."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram

from ..errors import ExportError


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


def write_compiled(program: ExportedProgram, texts: Mapping[str, str], path: Path) -> None:
    """Compile a graph into a .pt2 archive, and add the texts as torch.export.save adds extra files.

    Raises ExportError where the compiler fails, whose message it holds.
    """
    try:
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:
        raise ExportError(
            f"AOTInductor cannot compile the model: {' '.join(str(error).split())[-600:]}; "
            "mend the C++ compiler, or export with --format pt2"
        ) from error
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        for name, text in texts.items():
            archive.writestr(f"{root}/extra/{name}", text)
