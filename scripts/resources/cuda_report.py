"""Compiles every instance of every CUDA C++ kernel, and checks that the C++ files that bind them to PyTorch compile.

Without nvcc it checks nothing. Without PyTorch it leaves out the bindings.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Any

from ..sources import ROOT, sources
from .cuda_compile import (
    ALL_STEPS_DIM,
    LOW_RANK,
    SHIM,
    Compiled,
    binding_includes,
    compile_all,
    find_nvcc,
    kernels_of,
    run,
    shapes_of,
    target_of,
)
from .multiprocessor import MULTIPROCESSORS, SHARED_MEMORY, programs
from .recorded import digest_of, recorded_result, with_differences

COLUMNS = ("registers", "stack", "spill_stores", "spill_loads", "static_shared", "dynamic_shared", "blocks", "occupancy")
"""What is printed of a row, after its names."""


def failures(arch: int, shape: dict[str, Any] | None, usage: dict[str, int]) -> list[str]:
    """What is wrong with a kernel. One of all steps, or of the low-rank cell, is launched only where it fits; its least case must fit."""
    found = []
    if usage["spill_stores"] or usage["spill_loads"]:
        found.append(f"spills: {usage['spill_stores']} bytes stored, {usage['spill_loads']} bytes loaded")
    if usage["stack"]:
        found.append(f"keeps {usage['stack']} bytes on the stack")
    if shape is None:
        return [*found, "its launch is not known to scripts/resources/cuda_shapes.h"]
    shared = usage["static_shared"] + shape.get("least_shared", shape["dynamic_shared"])
    if shared > SHARED_MEMORY[arch]:
        found.append(f"asks for {shared} bytes of shared memory, a block is granted {SHARED_MEMORY[arch]}")
    elif programs(arch, shape["warps"], usage["registers"], shared) == 0:
        found.append(f"has {32 * shape['warps']} threads of {usage['registers']} registers, more than a multiprocessor has")
    return found


def row_of(name: str, arch: int, shape: dict[str, Any] | None, usage: dict[str, int]) -> dict[str, Any]:
    """A row of the result."""
    row: dict[str, Any] = {"kernel": name, "arch": target_of(arch), **(shape or {}), **usage}
    row.pop("least_shared", None)
    if shape:
        row["blocks"] = programs(arch, shape["warps"], usage["registers"], usage["static_shared"] + shape["dynamic_shared"])
        row["occupancy"] = round(100 * row["blocks"] * shape["warps"] * 32 / MULTIPROCESSORS[arch].threads, 1)
    row["failures"] = failures(arch, shape, usage)
    return row


def rows_of(compiled: list[Compiled], folder: Path) -> tuple[list[dict[str, Any]], list[Compiled]]:
    """A row for every kernel of every source and architecture; and the compilation of their launches' numbers, if it failed."""
    found = [(one.arch, name, usage) for one in compiled for name, usage in one.usage().items()]
    kernels = kernels_of(sorted({name for _, name, _ in found}))
    shapes, problem = shapes_of(kernels.values(), folder)
    rows = [row_of(kernels[name].name, arch, shapes.get(kernels[name]), usage) for arch, name, usage in found]
    archs = [target_of(arch) for arch in MULTIPROCESSORS]
    words, numbers = ("kernel", "kind", "from"), ("gates", "tile_rows", "tile_columns", "stages", "all_steps", "context")
    rows.sort(key=lambda row: (archs.index(row["arch"]), *(row.get(key, "") for key in words), *(row.get(key, 0) for key in numbers)))
    return rows, problem


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this report alone."""
    parser.add_argument("--sources", type=Path, default=ROOT / "csrc", metavar="FOLDER", help="the sources: csrc, or a copy of it")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these files: their names without folder and suffix")


def report(options: argparse.Namespace) -> dict[str, Any] | None:
    """Compile the sources, and return the result, or None if there is no nvcc; or the recorded one, once sm_90 is compared."""
    nvcc = find_nvcc()
    if nvcc is None:
        print("cuda-check: skipped: nvcc was not found; install the CUDA toolkit, or name it in CUDA_HOME")
        return None
    versions = {"nvcc": run([nvcc, "--version"], options.sources)[0].splitlines()[-1]}
    folders = (options.sources, options.sources / "cuda", SHIM)
    digest = digest_of("cuda", (file for folder in folders for file in folder.iterdir() if file.is_file()), versions, options)
    recorded = recorded_result(options, digest)
    if recorded is None:
        return compiled_report(nvcc, options, versions, digest)
    part = argparse.Namespace(**vars(options) | {"archs": [90] if 90 in options.archs else options.archs[:1]})
    return with_differences(recorded, compiled_report(nvcc, part, versions, digest))


def compiled_report(nvcc: str, options: argparse.Namespace, versions: dict[str, str], digest: str) -> dict[str, Any]:
    """Compile the sources, and return the result."""
    folder = options.sources.resolve()
    chosen = [source for source in sources("cuda") if not options.only or Path(source).stem in options.only]
    if not chosen:
        raise SystemExit(f"cuda-check: csrc/sources.txt has no CUDA source called {' or '.join(options.only)}")
    kernels = [source for source in chosen if source.endswith(".cu")]
    bindings, includes = [source for source in chosen if source not in kernels], []
    if bindings:
        try:
            includes = binding_includes(nvcc)
            versions = versions | {"torch": sys.modules["torch"].__version__}
        except ImportError:
            print(f"cuda-check: skipped {', '.join(bindings)}: PyTorch is not installed")
            bindings = []
    compiled = compile_all(nvcc, folder, [*product(kernels, options.archs), *product(bindings, [0])], includes)
    rows, problem = rows_of(compiled, folder)
    return {
        "digest": digest,
        "versions": versions,
        "case": {"all_steps": {"D": ALL_STEPS_DIM}, "low_rank": {"D": ALL_STEPS_DIM, "r": LOW_RANK}},
        "files": [{"source": one.source, "arch": target_of(one.arch), "failures": one.failures()} for one in (*compiled, *problem)],
        "rows": rows,
    }
