"""Compiles every Triton kernel as the operators launch it, with every tile that a card has room for, and checks what it takes.

The operators run on tensors without memory, and their launches are recorded instead of made. Triton caches what it compiled, so a second
run is quick. Other kinds than bfloat16, and other ranks than 32, are compiled for sm_90 alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from ..sources import KERNELS
from . import SHARED_MEMORY

ONLY = 'only kernels whose names match this, such as "low_rank_forward float32 sm_90 rank=32"'
SOURCES = KERNELS
KINDS = ("bfloat16", "tf32", "float32", "float64")
"""What is compiled; float16 has the code of bfloat16 but for the dtype in the instructions' names."""
RANKS, COMMON_RANK = (16, 32, 64, 128, 256), 32
CALL = {"B": 8192, "D": 624, "T": 2, "L": 3, "saved": True, "cell": "gated", "tied": True, "context": False, "states": False}
HEAVIEST: dict[str, Any] = {"context": True, "states": True, "tied": False}
"""The call whose kernels take most: gated, with a context, saving all for the backward, with gradients of all states."""
VARIANTS: dict[str, dict[str, Any]] = {
    "tied, without a context": {},
    "nothing saved": {"saved": False},
    "without a gate": {"cell": "cross", "context": True},
    "one step": {"L": 1},
    "one row, task and unit": {"B": 1, "T": 1, "D": 1},
    "rows that are not aligned": {"D": 33, "B": 70},
    "distances of 64 bits": {"B": 2**24, "context": True},
}
"""Other calls, compiled once for sm_90 in bfloat16, with the last tile. They need only compile: rows that are not aligned may spill."""
REREADS = ("low_rank_forward", "low_rank_backward")
"""The kernels that read what they wrote themselves: their loads must see it."""
TENSOR_CORES = re.compile(r"wgmma\.mma_async|mma\.sync|tcgen05\.mma")
COLUMNS = ("registers", "stack", "shared")
"""What a row says of a kernel, after its names."""
ELEMENTS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64", "int32": "i32", "int64": "i64"}


class Job(NamedTuple):
    """A kernel to compile: by its module and name, the types of its arguments, its constants, and which arguments are multiples of 16."""

    module: str
    kernel: str
    kind: str
    arch: int
    rank: int
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    divisible: tuple[int, ...]
    warps: int = 4
    stages: int = 3
    emitted: str = ""
    """A folder with the kernel as PyTorch's compiler writes it."""

    @property
    def name(self) -> str:
        """By which it is chosen."""
        return f"{self.kernel} {self.kind} sm_{self.arch} rank={self.rank}"

    @property
    def tile(self) -> dict[str, int]:
        """Its blocks."""
        return {name.removeprefix("BLOCK_").lower(): size for name, size in self.constants if name.startswith("BLOCK_")}


def load(folder: Path) -> str:
    """Import a folder of kernels as a package of its own, and return its name."""
    os.environ.pop("TRITON_INTERPRET", None)  # interpreted functions cannot be compiled
    name = f"kernels_{abs(hash(str(folder.resolve())))}" if folder != KERNELS else "dcrnn_fast.kernels"
    if name not in sys.modules and folder != KERNELS:
        spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return name


def launches(package: str, kind: str, card: Any, rank: int, **call: Any) -> list[tuple[Any, dict[str, Any]]]:
    """The kernels that a forward and a backward launch on a card, with their arguments; without a rank, those of param_gather too."""
    import torch

    from dcrnn_fast.ops.cross_rnn import GradMask
    from dcrnn_fast.ops.triton import functions

    operators, common, made = functions(package), import_module(f"{package}.common"), list[tuple[Any, dict[str, Any]]]()
    size: dict[str, Any] = CALL | call
    B, D, T, L, saved, cell, tied, context, states = size.values()
    G, K, W = 2 if cell == "gated" else 1, D * (2 if context else 1), 1 if tied else L

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=getattr(torch, "float32" if kind == "tf32" else kind), device="meta")

    def banks(rows: int, *trailing: int) -> list[torch.Tensor]:
        return [empty(W, rows - rows // 2, *trailing), empty(T, W, rows // 2, *trailing)]

    (weight, own_weight), (bias, own_bias) = banks(D, G, rank or K), banks(D, G)
    tensors = [empty(B, D), weight, bias, own_weight, own_bias, *(banks(rank, G, K) if rank else [])]
    arguments = [*tensors, L, cell, empty(L, B, D) if context else None, states, kind == "tf32"]
    mask = GradMask.X0 | GradMask.WEIGHTS | (GradMask.CONTEXT if context else 0) | (GradMask.PROJECTIONS if rank else 0)
    record = mock.patch.object(common, "launch", lambda kernel, grid, **given: made.append((kernel, given)))
    with record, mock.patch.object(common, "card_of", return_value=card):
        operator = "low_rank_cross_rnn" if rank else "cross_rnn"
        out, activations = operators[operator](*arguments, saved)
        operators[f"{operator}_backward"](torch.empty_like(out), activations, int(mask), *arguments)
        if not rank:
            index = torch.empty(T, D, dtype=torch.int32, device="meta")
            gathered = operators["param_gather"](weight[0], own_weight[:, 0], index)
            operators["param_gather_backward"](gathered, index, weight.shape[1], own_weight.shape[2])
    return made


def jobs_of(package: str, kind: str, arch: int, rank: int, *, tiles: slice = slice(None), **call: Any) -> Iterator[Job]:
    """What a forward and a backward compile; of kernels with a choice of tiles all that the card has room for, or ``tiles`` of them."""
    import torch

    card = import_module(f"{package}.common").Card(132, SHARED_MEMORY[arch])
    for kernel, arguments in launches(package, kind, card, rank, **call):
        function = jit_function(kernel)
        signature, constants, divisible = dict[str, str](), dict[str, Any](), []
        for place, parameter in enumerate(function.params):
            name, value, open_to_all = parameter.name, arguments.get(parameter.name), parameter.do_not_specialize
            if parameter.is_constexpr or value is None or (type(value) is int and value == 1 and not open_to_all):
                signature[name], constants[name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[name] = "*" + ELEMENTS[str(value.dtype).removeprefix("torch.")]
                divisible.append(place)
            else:
                signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
                divisible += [place] if value % 16 == 0 and not open_to_all else []
        names = function.fn.__module__.removeprefix(f"{package}."), function.fn.__name__
        made = Job(*names, kind, arch, arguments.get("RANK", 0), tuple(signature.items()), tuple(constants.items()), tuple(divisible))
        if not hasattr(kernel, "tiles"):
            yield made
            continue
        for tile in kernel.tiles.fitting(kind, arguments["G"], made.rank, card)[tiles]:
            blocks = {"BLOCK_B": tile.rows, "BLOCK_D": tile.columns, "BLOCK_K": tile.products}
            yield made._replace(constants=tuple((constants | blocks).items()), warps=tile.warps, stages=tile.stages)


def kernel_of(package: str, job: Job) -> Any:
    """A job's kernel; a test's own stands in a module of another package."""
    return getattr(import_module(job.module if "." in job.module else f"{package}.{job.module}"), job.kernel)


def jit_function(kernel: Any) -> Any:
    """What Triton compiles: the kernel, or the one below the tuner."""
    return kernel.fn if hasattr(kernel, "tiles") else kernel


def compiled(package: str, job: Job) -> dict[str, Any]:
    """What a kernel takes of a GPU, or ``{"error": ...}`` where it does not compile."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if job.emitted:
        sys.path.insert(0, job.emitted)
    kernel = getattr(import_module(f"emitted_{job.module}"), job.kernel) if job.emitted else kernel_of(package, job)
    attributes: dict[Any, Any] = {(place,): [["tt.divisibility", 16]] for place in job.divisible}
    try:
        made = triton.compile(
            ASTSource(fn=jit_function(kernel), signature=dict(job.signature), constexprs=dict(job.constants), attrs=attributes),
            target=GPUTarget("cuda", job.arch, 32),
            options={"num_warps": job.warps, "num_stages": job.stages, "enable_fp_fusion": False},
        )
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".strip()[:2000]}
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if usage is None:
        raise RuntimeError(f"cuobjdump's output is not understood: {text[:400]}")
    return {
        "registers": int(usage[1]), "stack": int(usage[2]), "shared": made.metadata.shared,
        "tensor_cores": bool(TENSOR_CORES.search(made.asm["ptx"])), "stale_loads": made.asm["ptx"].count("ld.global.nc"),
    }  # fmt: skip


def row_of(package: str, job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the result."""
    row: dict[str, Any] = {"kernel": job.kernel, "kind": job.kind, "arch": f"sm_{job.arch}", **({"rank": job.rank} if job.rank else {})}
    row |= {"tile": job.tile, "warps": job.warps, "stages": job.stages}
    if "error" in facts:
        return row | {"failures": [f"does not compile: {facts['error']}"]}
    found = [f"takes {facts['stack']} bytes of stack: it spills"] if facts["stack"] else []
    if tiles := getattr(kernel_of(package, job), "tiles", None):
        tile = import_module(f"{package}.common").Tile(*list(job.tile.values())[:3], job.warps, job.stages)
        estimated = tiles.shared_bytes(tile, job.kind, dict(job.constants)["G"], job.rank)
        if facts["shared"] > estimated:
            found.append(f"takes {facts['shared']} bytes of shared memory, the kernel's tiles expect at most {estimated}")
        if job.kind in ("bfloat16", "tf32") and not facts["tensor_cores"]:
            found.append("uses no tensor cores")
    if facts["shared"] > SHARED_MEMORY[job.arch]:
        found.append(f"takes {facts['shared']} bytes of shared memory, a block is granted {SHARED_MEMORY[job.arch]}")
    if job.kernel in REREADS and facts["stale_loads"]:
        found.append(f"has {facts['stale_loads']} loads that may miss what the program wrote in the step before")
    return row | {name: facts[name] for name in COLUMNS} | {"failures": found}


def compared(job: Job, one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a kernel that was compiled once more, as PyTorch writes it: nothing may differ."""
    wrong = [
        f"as PyTorch writes it: {name} {other.get(name)} instead of {one.get(name)}" for name in COLUMNS if one.get(name) != other.get(name)
    ]
    return {"kernel": job.kernel, "kind": job.kind, "failures": wrong + ([other["error"]] if "error" in other else [])}


def emit(package: str, jobs: Iterable[Job], folder: Path) -> None:
    """Write kernels as PyTorch's compiler does for a compiled graph: it collects what a kernel calls by a walk of its own."""
    from torch._inductor.codegen.wrapper import user_defined_triton_kernel_transitive_closure_source_code as closure

    for job in jobs:
        file = folder / f"emitted_{job.module}.py"
        before = file.read_text(encoding="utf-8") if file.exists() else "import triton\nimport triton.language as tl\n"
        file.write_text(f"{before}\n\n@triton.jit\n{closure(jit_function(kernel_of(package, job)))}", encoding="utf-8")


def versions() -> dict[str, str]:
    """Those of PyTorch and Triton."""
    return {name: version(name).partition("+")[0] for name in ("torch", "triton")}


def files_of(options: argparse.Namespace) -> list[Path]:
    """The files that the result depends on."""
    return list(options.sources.glob("*.py"))


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Compile the kernels, and return the sections of the result."""
    package = load(options.sources)
    rows, variants = dict[Job, None](), dict[Job, str]()
    for arch in options.archs:
        for kind in KINDS if arch == 90 else KINDS[:1]:
            for rank in (0, *RANKS) if (arch, kind) == (90, KINDS[0]) else (0, COMMON_RANK):
                rows |= dict.fromkeys(jobs_of(package, kind, arch, rank, **HEAVIEST))
    for words, call in VARIANTS.items() if 90 in options.archs else ():
        for rank in (0, COMMON_RANK):
            variants |= {job: words for job in jobs_of(package, KINDS[0], 90, rank, tiles=slice(-1, None), **call) if job not in rows}
    wanted = [job for job in {**rows, **variants} if re.search(options.only, job.name)]
    hopper = {job.kernel: job for job in wanted if job.arch == 90 and job in rows}
    with tempfile.TemporaryDirectory() as folder:
        again = {job: job._replace(emitted=folder) for job in hopper.values()}
        emit(package, again, Path(folder))
        every = [*wanted, *again.values()]
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
            facts = dict(zip(every, pool.map(compiled, [package] * len(every), every), strict=True))
    result = {job: row_of(package, job, facts[job]) for job in wanted}
    for job in variants.keys() & result.keys():
        result[job]["failures"] = [failure for failure in result[job]["failures"] if "compile" in failure or "may miss" in failure]
    return {
        "rows": [result[job] for job in wanted if job in rows],
        "variants": [{"variant": variants[job], **result[job]} for job in wanted if job in variants],
        "reemission": [compared(job, facts[job], facts[other]) for job, other in again.items()],
    }
