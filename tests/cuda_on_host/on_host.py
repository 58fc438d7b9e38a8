"""The CUDA kernels and their bindings for CPU tensors: compiled by the C++ compiler, with shim.h and binding_shim.h in the place of CUDA.

The operators are of a namespace of their own. What stands around them in Python is dcrnn_fast/ops.py itself, with that namespace.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import torch

import dcrnn_fast.ops

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "csrc"
NAME, LIBRARY = "dcrnn_fast_cuda_on_host", "dcrnn_fast_on_host"
OPERATORS = ("param_gather", "param_gather_backward", "cross_rnn", "cross_rnn_backward")
FLAGS = ("-std=c++20", "-O1", "-g1", "-fPIC", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unknown-pragmas")


def build(folder: Path) -> Path:
    """The extension, compiled in ``folder`` unless it is there."""
    import pybind11
    from torch.utils.cpp_extension import include_paths, library_paths

    target = folder / f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if target.is_file():
        return target
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    lines = [line.split() for line in (SOURCES / "sources.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    sources = [SOURCES.parent / path for group, path in lines if group in ("shared", "cuda")]
    options = [f"-I{path}" for path in (HERE, SOURCES / "cuda", sysconfig.get_paths()["include"])]
    options += [word for path in (pybind11.get_include(), *include_paths()) for word in ("-isystem", path)]
    options += ["-DDCRNN_CUDA_ON_HOST", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-x", "c++", "-c"]

    def compiled(source: Path) -> str:
        out = str(folder / f"{source.stem}.o")
        done = subprocess.run([*compiler, *FLAGS, *options, str(source), "-o", out], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{source.name} does not compile for the host:\n{done.stderr[-4000:]}"
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*sources, HERE / "module.cpp"]))
    libraries = [word for path in library_paths() for word in (f"-L{path}", f"-Wl,-rpath,{path}")]
    beside = folder / "linking.tmp"
    command = [*compiler, "-shared", "-pthread", *objects, *libraries, "-lc10", "-ltorch_cpu", "-ltorch", "-o", str(beside)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    beside.rename(target)
    return target


def load(extension: Path) -> tuple[ModuleType, ModuleType]:
    """The extension, and dcrnn_fast/ops.py over its operators. Once a process."""
    schemas = torch.library.Library(LIBRARY, "DEF")
    for name in OPERATORS:
        schemas.define(str(getattr(torch.ops.dcrnn_fast, name).default._schema).removeprefix("dcrnn_fast::"))
    _kept.append(schemas)
    spec = spec_from_file_location(NAME, extension)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    operators = ModuleType("dcrnn_fast.ops_on_host")
    operators.__package__, operators.__file__ = "dcrnn_fast", dcrnn_fast.ops.__file__
    text = Path(str(dcrnn_fast.ops.__file__)).read_text(encoding="utf-8")
    for right, wrong in (("dcrnn_fast::", f"{LIBRARY}::"), ("torch.ops.dcrnn_fast.", f"torch.ops.{LIBRARY}."), ("x0.is_cuda and ", "")):
        assert right in text, f"ops.py no longer has {right}"
        text = text.replace(right, wrong)
    sys.modules[operators.__name__] = operators
    exec(compile(text, operators.__file__, "exec"), operators.__dict__)
    return module, operators


_kept: list[torch.library.Library] = []
