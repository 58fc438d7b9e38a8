"""Compiles the CUDA C++ sources without a GPU and takes apart what came of it: registers, spills, how each kernel is launched."""

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

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ROOT / "scripts" / "cuda_shapes.h"
SHIM = ROOT / "tests" / "cuda_on_host"
TOOLKIT = Path("/usr/local/cuda")

KERNEL_FLAGS = ("-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xptxas", "-v,-warn-spills,-Werror")
BINDING_FLAGS = ("-std=c++20", "-fsyntax-only", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000")
ALL_STEPS_DIM = 256
"""Kernels of all steps keep their states in shared memory, the more the more units: they are shown with this number."""

USAGE = re.compile(
    r"Compiling entry function '(\w+)'.*\n.*Function properties for \1\n"
    r"\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n.*Used (\d+) registers(.*)"
)
SPILLED = re.compile(r"Registers are spilled to local memory in function '(\w+)'")
TEMPLATE = re.compile(r"void dcrnn_fast::cuda::(\w+)(<.*>)\(")


@dataclass(frozen=True)
class Kernel:
    """An instance of a kernel: its name and its template arguments as C++ writes them."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Compiled:
    """What a compiler said of a source file. ``arch`` is a compute capability, 0 for the CPU."""

    source: str
    arch: int
    output: str
    failed: bool

    def usage(self) -> dict[str, dict[str, int]]:
        """What ptxas reports of every kernel, by its mangled name."""
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
        """What is wrong besides spills of kernels, which are reported with them."""
        known, lines = self.usage(), self.output.splitlines()
        if self.failed:
            errors = [line for line in lines if re.search(r"\berror\b[^:]*:", line)] or lines[-3:] or ["the compiler says nothing"]
            others = [line for line in errors if not ((spilled := SPILLED.search(line)) and spilled[1] in known)]
            return [f"does not compile: {'; '.join(others[:3])}"] if others else []
        if self.arch and (not known or len(known) != self.output.count("Compiling entry function")):
            return [f"ptxas' report is not understood: {self.output[:400]}"]
        return []


def find_nvcc() -> str | None:
    """Of CUDA_HOME, of PATH, or of the toolkit's usual place."""
    home = os.environ.get("CUDA_HOME")
    places = [str(Path(home) / "bin")] if home else []
    return shutil.which("nvcc", path=os.pathsep.join([*places, os.environ.get("PATH", ""), str(TOOLKIT / "bin")]))


def host_compiler() -> list[str]:
    """The C++ compiler."""
    return shlex.split(os.environ.get("CXX", "c++"))


def sources_of(folder: Path, only: list[str]) -> list[str]:
    """The files of the group "cuda", as csrc/sources.txt names them."""
    lines = (line.split() for line in (folder / "sources.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    sources = [path for group, path in lines if group == "cuda"]
    return [path for path in sources if not only or Path(path).stem in only]


def inside(source: str) -> str:
    """A source's path in the folder of sources, which a copy calls by another name."""
    return str(Path(source).relative_to("csrc"))


def run(command: list[str], folder: Path) -> tuple[str, bool]:
    """What a command prints, and whether it fails."""
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout, done.returncode != 0


def binding_includes(nvcc: str) -> list[str]:
    """PyTorch's include folders, and those that nvcc would add: it need not lie beside them. Raises ImportError without PyTorch."""
    from torch.utils.cpp_extension import include_paths

    plan = run([nvcc, "--dryrun", "-c", "-x", "c++", os.devnull], ROOT)[0]
    cuda = [word for line in re.findall(r"INCLUDES=(.*)", plan) for word in shlex.split(line)]
    return [*cuda, *(word for path in include_paths() for word in ("-isystem", path))]


def compile_all(nvcc: str, folder: Path, jobs: list[tuple[str, int]], includes: list[str]) -> list[Compiled]:
    """As many files at a time as there are cores; ``includes`` are for those of the CPU."""
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:

        def one(job: tuple[str, int]) -> Compiled:
            source, arch = job
            if arch:
                target = f"{Path(temporary) / Path(source).stem}_{arch}.o"
                command = [nvcc, *KERNEL_FLAGS, "-gencode", f"arch=compute_{arch},code=sm_{arch}", "-c", inside(source), "-o", target]
            else:
                command = [*host_compiler(), *BINDING_FLAGS, *includes, inside(source)]
            output, failed = run(command, folder)
            print(f"cuda-check: {source} {'does not compile' if failed else 'compiled'} for {target_of(arch)}", file=sys.stderr, flush=True)
            return Compiled(source, arch, output, failed)

        return list(pool.map(one, jobs))


def target_of(arch: int) -> str:
    """An architecture as it is shown."""
    return f"sm_{arch}" if arch else "host"


def kernels_of(names: list[str]) -> dict[str, Kernel]:
    """Kernels by their mangled names. One that is no template, or lies elsewhere, keeps its whole signature for a name."""
    if shutil.which("c++filt") is None:
        raise SystemExit("cuda-check: c++filt was not found; install binutils")
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    found = {}
    for name, plain in zip(names, text.splitlines(), strict=True):
        match = TEMPLATE.match(plain)
        found[name] = Kernel(match[1], match[2]) if match else Kernel(plain, "")
    return found


def shapes_of(kernels: Iterable[Kernel], folder: Path) -> tuple[dict[Kernel, dict[str, Any]], Compiled | None]:
    """How kernels are launched: the sources' own numbers, from a program that prints them; and that program's compilation if it fails."""
    described = set(re.findall(r"^void (\w+)\(\)", SHAPES.read_text(encoding="utf-8"), re.MULTILINE))
    known = [kernel for kernel in dict.fromkeys(kernels) if kernel.name in described]
    if not known:
        return {}, None
    with tempfile.TemporaryDirectory() as temporary:
        program, source = Path(temporary) / "shapes", Path(temporary) / "shapes.cpp"
        calls = "\n".join(f"  shapes::{kernel.name}{kernel.arguments}();" for kernel in known)
        source.write_text(f'#include "{SHAPES.name}"\nint main() {{\n{calls}\n}}\n', encoding="utf-8")
        flags = ["-std=c++20", "-pthread", "-DDCRNN_CUDA_ON_HOST", f"-DDIM={ALL_STEPS_DIM}"]
        includes = [f"-I{path}" for path in (SHIM, folder / "cuda", SHAPES.parent)]
        output, failed = run([*host_compiler(), *flags, *includes, str(source), "-o", str(program)], folder)
        if failed:
            return {}, Compiled("scripts/cuda_shapes.h", 0, output, failed)
        lines = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(zip(known, map(json.loads, lines), strict=True)), None
