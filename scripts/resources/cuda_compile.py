"""Compiles the CUDA C++ sources without a GPU, and reads registers, spills and the numbers of each kernel's launch from the results."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..sources import ROOT

SHAPES = Path(__file__).with_name("cuda_shapes.h")
SHIM = ROOT / "tests" / "cuda_on_host"
TOOLKIT = Path("/usr/local/cuda")

KERNEL_FLAGS = ("-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xptxas", "-v,-warn-spills,-Werror")
BINDING_FLAGS = ("-std=c++20", "-fsyntax-only", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000")
ALL_STEPS_DIM = 256
"""The number of units that kernels of all steps are shown with: each unit's states take shared memory."""
LOW_RANK = 32
"""The rank that the kernels of the low-rank cell are shown with, with as many units."""

USAGE = re.compile(
    r"Compiling entry function '(\w+)'.*\n.*Function properties for \1\n"
    r"\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n.*Used (\d+) registers(.*)"
)
SPILLED = re.compile(r"Registers are spilled to local memory in function '(\w+)'")
OURS = re.compile(r"(?:void )?dcrnn_fast::cuda::(\w+)(<.*>)?\(")


@dataclass(frozen=True)
class Kernel:
    """An instance of a kernel: its name, and its template arguments as C++ writes them."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Compiled:
    """What a compiler printed for a source file. ``arch`` is a compute capability, or 0 for the CPU."""

    source: str
    arch: int
    output: str
    failed: bool

    def usage(self) -> dict[str, dict[str, int]]:
        """What ptxas reports on every kernel, by its mangled name."""
        found = {}
        for name, frame, stores, loads, registers, rest in USAGE.findall(self.output):
            static, stack = re.search(r"(\d+) bytes smem", rest), re.search(r"(\d+) bytes cumulative stack", rest)
            found[name] = {
                "registers": int(registers),
                "stack": max(int(frame), int(stack[1]) if stack else 0),
                "spill_stores": int(stores),
                "spill_loads": int(loads),
                "static_shared": int(static[1]) if static else 0,
            }
        return found

    def failures(self) -> list[str]:
        """What is wrong, except for spills, which are reported with their kernels."""
        known, lines = self.usage(), self.output.splitlines()
        if self.failed:
            errors = [line for line in lines if re.search(r"\berror\b[^:]*:", line)] or lines[-3:] or ["the compiler says nothing"]
            others = [line for line in errors if not ((spilled := SPILLED.search(line)) and spilled[1] in known)]
            return [f"does not compile: {'; '.join(others[:3])}"] if others else []
        if self.arch and (not known or len(known) != self.output.count("Compiling entry function")):
            return [f"ptxas' report is not understood: {self.output[:400]}"]
        return []


def find_nvcc() -> str | None:
    """The nvcc of CUDA_HOME, of PATH, or of the toolkit's usual folder."""
    home = os.environ.get("CUDA_HOME")
    places = [str(Path(home) / "bin")] if home else []
    return shutil.which("nvcc", path=os.pathsep.join([*places, os.environ.get("PATH", ""), str(TOOLKIT / "bin")]))


def host_compiler() -> list[str]:
    """The C++ compiler."""
    return shlex.split(os.environ.get("CXX", "c++"))


def run(command: list[str], folder: Path) -> tuple[str, bool]:
    """Run a command, and return what it prints and whether it failed."""
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout, done.returncode != 0


def binding_includes(nvcc: str) -> list[str]:
    """The compiler's options for PyTorch's headers, and for the toolkit's as nvcc names them. Raises ImportError without PyTorch."""
    from torch.utils.cpp_extension import include_paths

    plan = run([nvcc, "--dryrun", "-c", "-x", "c++", os.devnull], ROOT)[0]
    cuda = [word for line in re.findall(r"INCLUDES=(.*)", plan) for word in shlex.split(line)]
    return [*cuda, *(word for path in include_paths() for word in ("-isystem", path))]


def compile_all(nvcc: str, folder: Path, jobs: list[tuple[str, int]], includes: list[str]) -> list[Compiled]:
    """Compile as many files at a time as there are cores. ``includes`` are the options for files of the CPU.

    The CPU's part of a kernel file is the same for every GPU: the file's first job alone compiles it.
    """
    first = dict(reversed(jobs))
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:

        def one(job: tuple[str, int]) -> Compiled:
            source, arch = job
            path = str(Path(source).relative_to("csrc"))  # a copy of csrc may have another name
            if arch:
                target = f"{Path(temporary) / Path(source).stem}_{arch}.o"
                parts = "-c" if arch == first[source] else "-cubin"
                command = [nvcc, *KERNEL_FLAGS, "-gencode", f"arch=compute_{arch},code=sm_{arch}", parts, path, "-o", target]
            else:
                command = [*host_compiler(), *BINDING_FLAGS, *includes, path]
            output, failed = run(command, folder)
            print(f"cuda-check: {source} {'does not compile' if failed else 'compiled'} for {target_of(arch)}", file=sys.stderr, flush=True)
            return Compiled(source, arch, output, failed)

        return list(pool.map(one, jobs))


def target_of(arch: int) -> str:
    """How the report names an architecture."""
    return f"sm_{arch}" if arch else "host"


def kernels_of(names: list[str]) -> dict[str, Kernel]:
    """Kernels by their mangled names. The name of one of another namespace is its whole signature."""
    if shutil.which("c++filt") is None:
        raise SystemExit("cuda-check: c++filt was not found; install binutils")
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    found = {}
    for name, plain in zip(names, text.splitlines(), strict=True):
        match = OURS.match(plain)
        found[name] = Kernel(match[1], match[2] or "") if match else Kernel(plain, "")
    return found


def shapes_of(kernels: Iterable[Kernel], folder: Path) -> tuple[dict[Kernel, dict[str, Any]], list[Compiled]]:
    """How kernels are launched, as a small program prints it from the sources; and that program's compilation, if it failed."""
    described = set(re.findall(r"^void (\w+)\(\)", SHAPES.read_text(encoding="utf-8"), re.MULTILINE))
    known = [kernel for kernel in dict.fromkeys(kernels) if kernel.name in described]
    if not known:
        return {}, []
    with tempfile.TemporaryDirectory() as temporary:
        program, source = Path(temporary) / "shapes", Path(temporary) / "shapes.cpp"
        calls = "\n".join(f"  shapes::{kernel.name}{kernel.arguments}();" for kernel in known)
        source.write_text(f'#include "{SHAPES.name}"\nint main() {{\n{calls}\n}}\n', encoding="utf-8")
        flags = ["-std=c++20", "-pthread", "-DDCRNN_CUDA_ON_HOST", f"-DDIM={ALL_STEPS_DIM}", f"-DRANK={LOW_RANK}"]
        includes = [f"-I{path}" for path in (SHIM, folder / "cuda", SHAPES.parent)]
        output, failed = run([*host_compiler(), *flags, *includes, str(source), "-o", str(program)], folder)
        if failed:
            return {}, [Compiled("scripts/resources/cuda_shapes.h", 0, output, failed)]
        lines = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(zip(known, map(json.loads, lines), strict=True)), []
