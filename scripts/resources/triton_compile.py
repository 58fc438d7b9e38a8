"""Compiles one Triton kernel without a GPU, and reads registers, spills, widths of loads and instructions from the result."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from .machine_code import PRODUCTS, Code, code_of, inner_loops, widths
from .triton_loops import MAY_BE_STALE_IN_PTX, loop_facts

KERNELS = {
    "step": ("cross_rnn_forward", "cross_rnn_step"),
    "all_steps": ("cross_rnn_all_steps", "cross_rnn_all_steps"),
    "backward": ("cross_rnn_backward", "cross_rnn_backward_step"),
    "x0": ("cross_rnn_backward_inputs", "cross_rnn_backward_x0"),
    "context": ("cross_rnn_backward_inputs", "cross_rnn_backward_context"),
    "start": ("cross_rnn_backward", "cross_rnn_backward_start"),
    "low_rank_forward": ("low_rank_forward", "low_rank_forward"),
    "low_rank_states": ("low_rank_forward", "low_rank_states"),
    "low_rank_backward": ("low_rank_backward", "low_rank_backward"),
    "low_rank_inputs": ("low_rank_backward", "low_rank_inputs"),
    "gather": ("param_gather", "param_gather_rows"),
    "gather_low_rank": ("param_gather", "param_gather_low_rank"),
    "gather_readers": ("param_gather", "param_gather_readers"),
    "gather_sum": ("param_gather", "param_gather_sum"),
}
TILED = {"step": "step", "all_steps": "all_steps", "backward": "backward", "x0": "inputs", "context": "inputs"}
"""The kernels with a choice of tiles, by their tiles' name in the table; each of the others has one tile for every size."""
LOW_RANK = {
    "low_rank_forward": "low_rank_forward",
    "low_rank_states": "low_rank_forward",
    "low_rank_backward": "low_rank_backward",
    "low_rank_inputs": "low_rank_forward",
}
"""The kernels of the low-rank cell, by their tiles' name in kernels/low_rank_tiles.py."""
ELEMENT = {"bfloat16": "bf16", "float16": "fp16", "tf32": "fp32", "float32": "fp32", "float64": "fp64"}
BANKS = ("shared_weight", "shared_bias", "private_weight", "private_bias", "shared_projection", "private_projection")
GATHERED = ("shared", "private", "weight", "bias", "projection", "first_part", "bias_rows")
STATES = ("x0", "states", "context", "out", "activations")
GRADIENTS = ("grad", "d", "dx0", "terms", "gradients", "bias_sums", "dcontext", "z_gradients", "result")
PLACES = {"index": "*i32", "projection_index": "*i32", "readers": "*i64", "ranges": "*i64"}
POINTERS = (*PLACES, *BANKS, *GATHERED, *STATES, *GRADIENTS)
ACCUMULATED = ("terms", "bias_sums", "bias_rows")
OF_PROJECTIONS = ("projection_places", "projection_rows", "projection_shared", "projection_private")
ODD = ("B", "T", "places", "bank_rows", "num_shared", "num_private", "parts", "steps", "slots", "first_slot", *OF_PROJECTIONS)
"""Integers that need not be multiples of 16 where D and C are."""
SIZES = (*ODD, *"DCRNK", "first_row", "rows_a_step")
"""Integers that always fit in 32 bits. The others are distances in memory, which exceed them for a large batch."""

HEAVIEST: dict[str, dict[str, Any]] = {
    "step": {"HAS_CONTEXT": True, "FIRST": False, "LAST": False, "SAVE": True, "STORE": True},
    "all_steps": {"HAS_CONTEXT": True, "TO_OUT": True, "SAVE": True},
    "start": {"ADD": True},
    "backward": {"LAST": False, "STATES": True, "ADD": True},
    "x0": {"ONE": False, "STATES": True, "ADDED": False},
    "low_rank_forward": {"HAS_CONTEXT": True, "SAVE": True, "TIED": False},
    "low_rank_states": {"TIED": False},
    "low_rank_backward": {"STATES": True, "X0": True, "BANKS": True, "TIED": False},
    "low_rank_inputs": {"X0": True, "STATES": True, "TIED": False},
    "gather_sum": {"FIRST": True, "BIAS": 2},
}
"""The flags with which a kernel takes most of a GPU: gated, with a context, saving, with gradients of all states."""

ROUNDED = re.compile(r"[FD](FMA|ADD|MUL)2?")


@dataclass(frozen=True)
class Job:
    """A kernel to compile.

    ``ones`` names the integers that are 1, which Triton makes constants. With ``wide``, distances in memory have 64 bits. Without
    ``divisible``, integers need not be multiples of 16; without ``aligned``, neither need the addresses of rows.
    """

    kernel: str
    kind: str
    arch: int
    constants: tuple[tuple[str, Any], ...]
    warps: int
    stages: int = 3
    ones: tuple[str, ...] = ()
    wide: bool = False
    aligned: bool = True
    divisible: bool = True
    fusion: bool = False
    disassembled: bool = True

    def of(self, **constants: Any) -> Job:
        """The same job with other constants."""
        return replace(self, constants=tuple({**dict(self.constants), **constants}.items()))


def load(folder: Path) -> None:
    """Make ``kernels`` a package of that folder's files. It does not run their __init__, which imports PyTorch."""
    os.environ.pop("TRITON_INTERPRET", None)  # interpreted functions cannot be compiled
    package = ModuleType("kernels")
    package.__path__ = [str(folder)]
    for name in [name for name in sys.modules if name.startswith("kernels.")]:
        del sys.modules[name]
    sys.modules["kernels"] = package


def arguments(name: str) -> tuple[list[str], list[str]]:
    """The names of a kernel's integers, and of its constants."""
    module, function = KERNELS[name]
    parameters = getattr(import_module(f"kernels.{module}"), function).params
    integers = [p.name for p in parameters if not p.is_constexpr and p.name not in POINTERS]
    return integers, [p.name for p in parameters if p.is_constexpr]


def job_of(name: str, kind: str, arch: int, warps: int, stages: int = 3, **constants: Any) -> Job:
    """The heaviest variant of a kernel. Of ``constants`` it takes those that the kernel has."""
    of_kind = {"PRECISION": "tf32" if kind == "tf32" else "ieee", "GATHERED": kind == "tf32"}
    every = {"G": 2, "ALIGN": 16, "TF32": False, **of_kind, **HEAVIEST.get(name, {}), **constants}
    known = arguments(name)[1]
    return Job(name, kind, arch, tuple((key, every[key]) for key in known if key in every), warps, stages)


def compiled(job: Job) -> dict[str, Any]:
    """What a kernel takes of a GPU, or ``{"error": ...}`` where it does not compile."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, function_name = KERNELS[job.kernel]
    function = getattr(import_module(f"kernels.{module}"), function_name)
    constants = {**dict(job.constants), **dict.fromkeys(job.ones, 1)}
    signature, divisible = {}, {}
    for position, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        if name in POINTERS:
            element = "fp32" if name in ACCUMULATED and job.kind != "float64" else ELEMENT[job.kind]
            signature[name] = PLACES.get(name, f"*{element}")
        else:
            signature[name] = "i64" if job.wide and name not in SIZES else "i32"
        if job.aligned if name in POINTERS else job.divisible and name not in ODD:
            divisible[(position,)] = [["tt.divisibility", 16]]
    try:
        kernel = triton.compile(
            ASTSource(fn=function, signature=signature, constexprs=constants, attrs=divisible),
            target=GPUTarget("cuda", job.arch, 32),
            options={"num_warps": job.warps, "num_stages": job.stages, "enable_fp_fusion": job.fusion},
        )
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".strip()}
    found, code = _from_cubin(kernel.asm["cubin"], job.disassembled)
    found["stale_loads"] = len(MAY_BE_STALE_IN_PTX.findall(kernel.asm["ptx"]))
    if code:
        found |= {**_instructions(code), **loop_facts(code, kernel.asm["ttgir"], job.arch)}
    return {**found, "shared": kernel.metadata.shared, "tensor_memory": kernel.metadata.tmem_size}


def run_tool(name: str, *options: str) -> str:
    """What one of the CUDA tools that Triton brings prints."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([tool, *options], capture_output=True, text=True, check=True).stdout


def _from_cubin(cubin: bytes, disassembled: bool) -> tuple[dict[str, Any], Code]:
    """Registers and stack, and the instructions or none."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = run_tool("cuobjdump", "-res-usage", *(["-sass"] if disassembled else []), file.name)
    usage, code = re.search(r"REG:(\d+) STACK:(\d+)", text), code_of(text)
    if usage is None or (disassembled and not code):
        raise RuntimeError(f"cuobjdump's output is not understood: {text[:400]}")
    return {"registers": int(usage[1]), "stack": int(usage[2])}, code


def _instructions(code: Code) -> dict[str, Any]:
    names = Counter(one.name for one in code)

    def counts(pattern: re.Pattern[str]) -> dict[str, int]:
        return {name: count for name, count in sorted(names.items()) if pattern.fullmatch(name)}

    in_loops = {one.at: one.name for loop in inner_loops(code) for one in loop}
    return {
        "spill_stores": names["STL"],
        "spill_loads": names["LDL"],
        "spills_in_loops": sum(name in ("STL", "LDL") for name in in_loops.values()),
        "products": counts(PRODUCTS),
        "rounded": counts(ROUNDED),
        "loads": widths(code, "LDG"),
        "async_loads": widths(code, "LDGSTS"),
        "stores": widths(code, "STG"),
    }
