"""Compiles every CUDA C++ source, and checks that no instance of a kernel spills. Without nvcc it checks nothing.

The files that bind the kernels to PyTorch compile too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ..sources import ROOT, sources

ONLY = "only sources whose path matches this"
SOURCES = ROOT / "csrc"
FLAGS = ("-std=c++20", "--expt-relaxed-constexpr", "-Xptxas", "-v", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000")
USAGE = re.compile(
    r"Compiling entry function '(\w+)' for 'sm_(\d+)'\n.*Function properties for \1\n"
    r"\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n.*Used (\d+) registers(.*)"
)


class Compiled(NamedTuple):
    """What nvcc printed for a source, and whether it failed."""

    source: str
    output: str
    failed: bool

    def failures(self) -> list[str]:
        """What is wrong, except for spills, which are reported with their kernels."""
        lines = self.output.splitlines()
        if self.failed:
            errors = [line for line in lines if re.search(r"\berror\b[^:]*:", line)] or lines[-3:]
            return [f"does not compile: {'; '.join(errors[:3])}"]
        kernels = self.output.count("Compiling entry function")
        if kernels != len(USAGE.findall(self.output)) or (kernels == 0 and self.source.endswith(".cu")):
            return [f"ptxas' report is not understood: {self.output[:400]}"]
        return []


def find_nvcc() -> str | None:
    """The nvcc of CUDA_HOME, of PATH, or of the toolkit's usual folder."""
    home = os.environ.get("CUDA_HOME")
    folders = [f"{home}/bin" if home else "", os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(filter(None, folders)))


def compile_all(nvcc: str, folder: Path, chosen: list[str], archs: list[int]) -> list[Compiled]:
    """Compile as many sources at a time as there are cores, each for all GPUs."""
    from torch.utils.cpp_extension import include_paths

    includes = [word for path in include_paths() for word in ("-isystem", path)]
    targets = [word for arch in archs for word in ("-gencode", f"arch=compute_{arch},code=sm_{arch}")]

    def one(source: str) -> Compiled:
        with tempfile.NamedTemporaryFile(suffix=".o") as made:
            command = [nvcc, *FLAGS, *includes, *targets, "-c", str(Path(source).relative_to("csrc")), "-o", made.name]
            done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(f"cuda-check: {source} {'does not compile' if done.returncode else 'compiled'}", flush=True)
        return Compiled(source, done.stdout, done.returncode != 0)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, chosen))


def rows_of(compiled: Iterable[Compiled]) -> list[dict[str, Any]]:
    """A row for each kernel and GPU: how many instances there are, and the most that any of them takes."""
    found = [usage for one in compiled for usage in USAGE.findall(one.output)]
    mangled = "\n".join(name for name, *_ in found)
    plain = subprocess.run(["c++filt", "--no-params"], input=mangled, capture_output=True, text=True, check=True).stdout.splitlines()
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for instance, (_, arch, *numbers, rest) in zip(plain, found, strict=True):
        instance = instance.replace("dcrnn_fast::cuda::", "")
        kernel, (frame, stores, loads, registers) = instance.partition("<")[0], map(int, numbers)
        shared = re.search(r"(\d+) bytes smem", rest)
        taken = {"registers": registers, "stack": frame, "spills": stores + loads, "shared": int(shared[1]) if shared else 0}
        row = rows.setdefault((int(arch), kernel), {"kernel": kernel, "arch": f"sm_{arch}", "instances": 0, "failures": []})
        row["instances"] += 1
        row |= {name: max(number, row.get(name, 0)) for name, number in taken.items()}
        if frame or stores or loads:
            row["failures"].append(f"{instance} keeps {frame} bytes on the stack, and spills: {stores} bytes stored, {loads} loaded")
    return [row for _, row in sorted(rows.items())]


def versions() -> dict[str, str] | None:
    """Those of nvcc and PyTorch, or None, with a line that says so, where there is no nvcc."""
    if (nvcc := find_nvcc()) is None:
        print("cuda-check: skipped: nvcc was not found; install the CUDA toolkit, or name it in CUDA_HOME")
        return None
    printed = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return {"nvcc": printed.splitlines()[-1], "torch": version("torch")}


def files_of(options: argparse.Namespace) -> list[Path]:
    """The files that the result depends on."""
    return [file for folder in (options.sources, options.sources / "cuda") for file in folder.iterdir() if file.is_file()]


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Compile the sources, and return the sections of the result."""
    nvcc = find_nvcc()
    assert nvcc is not None
    chosen = [source for source in sources("cuda") if re.search(options.only, source)]
    compiled = compile_all(nvcc, options.sources.resolve(), chosen, options.archs)
    return {"files": [{"source": one.source, "failures": one.failures()} for one in compiled], "rows": rows_of(compiled)}
