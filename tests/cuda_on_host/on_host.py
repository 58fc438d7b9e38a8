"""The CUDA kernels and their bindings for CPU tensors, compiled by the C++ compiler with shim.h and binding_shim.h in the place of CUDA."""

from __future__ import annotations

import hashlib
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import torch

from dcrnn_fast.ops.registry import SCHEMAS, Implementation, register
from dcrnn_fast.support.locks import locked

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAME, LIBRARY = "dcrnn_fast_cuda_on_host", "dcrnn_fast_on_host"
FLAGS = ("-std=c++20", "-O1", "-g1", "-fPIC", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unknown-pragmas")


def built() -> Path:
    """The extension, below build/cuda_on_host: compiled where tests began with other sources, by the first process that asks."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(repr((version, FLAGS, torch.__version__, sys.version)).encode())
    for file in sorted([*(ROOT / "csrc").glob("*.*"), *(ROOT / "csrc" / "cuda").glob("*.*"), *HERE.glob("*.*")]):
        digest.update(file.read_bytes())
    folder = ROOT / "build" / "cuda_on_host"
    target = folder / digest.hexdigest()[:16] / f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", wait=True):
        if not target.is_file():
            for earlier in folder.glob("*/"):
                shutil.rmtree(earlier)
            target.parent.mkdir()
            _build(compiler, target)
    return target


def _build(compiler: list[str], target: Path) -> None:
    import pybind11
    from torch.utils.cpp_extension import include_paths, library_paths

    folder = target.parent
    listed = runpy.run_path(str(ROOT / "scripts" / "sources.py"))["sources"]
    sources = [ROOT / path for path in listed("shared", "cuda")]
    options = [f"-I{path}" for path in (HERE, ROOT / "csrc" / "cuda", sysconfig.get_paths()["include"])]
    options += [word for path in (pybind11.get_include(), *include_paths()) for word in ("-isystem", path)]
    options += ["-DDCRNN_CUDA_ON_HOST", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-x", "c++", "-c"]

    def run(*command: str) -> None:
        done = subprocess.run([*compiler, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"the kernels do not compile for the host:\n{done.stderr[-4000:]}"

    def compiled(source: Path) -> str:
        out = str(folder / f"{source.stem}.o")
        run(*FLAGS, *options, str(source), "-o", out)
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*sources, HERE / "module.cpp"]))
    libraries = [word for path in library_paths() for word in (f"-L{path}", f"-Wl,-rpath,{path}")]
    beside = folder / "linking.tmp"
    run("-shared", "-pthread", *objects, *libraries, "-lc10", "-ltorch_cpu", "-ltorch", "-o", str(beside))
    beside.rename(target)


def load(extension: Path) -> tuple[Implementation, Callable[..., None]]:
    """The operators of the extension, and the function that chooses their kernels. Once a process."""
    for name, schema in SCHEMAS.items():  # first: the extension implements what is declared
        torch.library.define(f"{LIBRARY}::{name}", schema)
    implementation = register(LIBRARY, tf32_device="cpu")
    sys.path.insert(0, str(extension.parent))
    return implementation, import_module(NAME).override_kernels
