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
from collections import Counter
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
from .recorded import digest_of, recorded_result, with_differences

KINDS = ("bfloat16", "tf32", "float32", "float64")
"""What is compiled; float16 has the code of bfloat16 but for the dtype in the instructions' names."""
RANKS, COMMON_RANK = (16, 32, 64, 128, 256), 32
HEAVIEST = {"context": True, "states": True, "tied": False}
"""The call whose kernels take most: gated, with a context, keeping all for the backward, with gradients of all states."""
VARIANTS: dict[str, dict[str, Any]] = {
    "tied, without a context": {},
    "nothing kept": {"keep": 0},
    "without a gate": {"cell": "cross", "context": True},
    "one step": {"L": 1},
    "one row, task and unit": {"B": 1, "T": 1, "D": 1},
    "rows that are not aligned": {"D": 33, "B": 70},
    "distances of 64 bits": {"B": 2**24, "context": True},
}
"""Other calls, compiled once for sm_90 in bfloat16, with the first tile."""
STACK = {"low_rank_inputs": 48}
"""The most bytes of stack by kernel, else none: what spills is stored and loaded again."""
REREADS = ("low_rank_forward", "low_rank_backward")
"""The kernels that read what they wrote themselves: their loads must see it."""
TENSOR_CORES = re.compile(r"wgmma\.mma_async|mma\.sync|tcgen05\.mma")
COLUMNS = ("registers", "stack", "shared")
"""What is printed of a row, after its names."""
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
    warps: int
    stages: int
    fusion: bool = False
    emitted: str = ""
    """A folder with the kernel as PyTorch's compiler writes it."""

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


def launches(package: str, kind: str, arch: int, rank: int, **call: Any) -> list[tuple[Any, dict[str, Any]]]:
    """The kernels that a forward and a backward launch on a card, with their arguments."""
    import torch

    from dcrnn_fast.ops import cross_rnn, low_rank_cross_rnn
    from dcrnn_fast.ops.registry import Needs
    from dcrnn_fast.ops.triton import functions

    common, made = import_module(f"{package}.common"), list[tuple[Any, dict[str, Any]]]()
    operators = functions(package)
    size: dict[str, Any] = {"B": 8192, "D": 624, "T": 2, "L": 3, "keep": 3, "cell": "gated", "tied": True, **call}
    size = {"context": False, "states": False} | size
    T, D, L, steps = size["T"], size["D"], size["L"], 1 if size["tied"] else size["L"]
    gates, columns = 2 if size["cell"] == "gated" else 1, D * (2 if size["context"] else 1)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=getattr(torch, "float32" if kind == "tf32" else kind), device="meta")

    def index(rows: int) -> torch.Tensor:
        return torch.empty(T, rows, dtype=torch.int32, device="meta")

    def banks(rows: int, *trailing: int) -> list[torch.Tensor]:
        return [empty(rows - rows // 2, *trailing), empty(T, rows // 2, *trailing)]

    (weight, own_weight), (bias, own_bias) = banks(steps * D, gates, rank or columns), banks(steps * D, gates)
    tensors: Any = empty(size["B"], D), weight, bias, own_weight, own_bias, index(steps * D)
    needs = int(Needs.X0 | Needs.BANKS | (Needs.CONTEXT if size["context"] else 0) | (Needs.PROJECTIONS if rank else 0))
    options: dict[str, Any] = {"cell": size["cell"], "context": empty(L, size["B"], D) if size["context"] else None}
    options |= {"return_states": size["states"], "allow_tf32": kind == "tf32"}

    def record(kernel: Any, grid: Any, **arguments: Any) -> None:
        made.append((kernel, arguments))

    card = common.Card(132, SHARED_MEMORY[arch])
    with mock.patch.object(common, "launch", record), mock.patch.object(common, "card_of", return_value=card):
        if rank:
            projection = *banks(steps * rank, gates, columns), index(steps * rank)
            given: Any = low_rank_cross_rnn.Arguments(*[*tensors, *projection, L], **options | {"keep": bool(size["keep"])})
        else:
            given = cross_rnn.Arguments(*[*tensors, L], **options | {"keep": size["keep"]})
        out, *kept = operators[given.operator()](*given)
        if size["states"] and size["keep"] and not rank:
            kept[0] = out[:, 1:L]
        operators[f"{given.operator()}_backward"](torch.empty_like(out), *kept, needs, *given[:-1])
    return made


def jobs_of(package: str, kind: str, arch: int, rank: int, *, tiles: slice = slice(None), **call: Any) -> Iterator[Job]:
    """What a forward and a backward compile; of kernels with a choice of tiles all that the card has room for, or ``tiles`` of them."""
    import torch

    for kernel, arguments in launches(package, kind, arch, rank, **call):
        function = getattr(kernel, "fn", kernel) if hasattr(kernel, "tiles") else kernel
        signature, constants, divisible = dict[str, str](), dict[str, Any](), []
        for place, parameter in enumerate(function.params):
            value = arguments.get(parameter.name)
            if parameter.is_constexpr or (type(value) is int and value == 1):
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = "*" + ELEMENTS[str(value.dtype).removeprefix("torch.")]
                divisible += [place] if value.storage_offset() * value.element_size() % 16 == 0 else []
            else:
                assert isinstance(value, int), (parameter.name, value)
                signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
                divisible += [place] if value % 16 == 0 else []
        made = Job(
            function.fn.__module__.removeprefix(f"{package}."), function.fn.__name__, kind, arch, arguments.get("RANK", 0),
            tuple(signature.items()), (), tuple(divisible), arguments.get("num_warps", 4), arguments.get("num_stages", 3),
        )  # fmt: skip
        if not hasattr(kernel, "tiles"):
            yield made._replace(constants=tuple(constants.items()))
            continue
        common = import_module(f"{package}.common")
        fitting = kernel.tiles.fitting(kind, arguments["G"], made.rank, common.Card(132, SHARED_MEMORY[arch]))
        for tile in fitting[tiles]:
            blocks = {"BLOCK_B": tile.rows, "BLOCK_D": tile.columns, "BLOCK_K": tile.products}
            blocks |= {"SLICES": -(-made.rank // tile.products)} if "SLICES" in constants else {}
            yield made._replace(constants=tuple((constants | blocks).items()), warps=tile.warps, stages=tile.stages)


def kernel_of(package: str, job: Job) -> Any:
    """A job's kernel; a test's own stands in a module of another package."""
    return getattr(import_module(job.module if "." in job.module else f"{package}.{job.module}"), job.kernel)


def compiled(package: str, job: Job) -> dict[str, Any]:
    """What a kernel takes of a GPU, or ``{"error": ...}`` where it does not compile."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if job.emitted:
        sys.path.insert(0, job.emitted)
        function = getattr(import_module(f"emitted_{job.module}"), job.kernel)
    else:
        function = kernel_of(package, job)
    function = function.fn if hasattr(function, "tiles") else function
    attributes: dict[Any, Any] = {(place,): [["tt.divisibility", 16]] for place in job.divisible}
    try:
        kernel = triton.compile(
            ASTSource(fn=function, signature=dict(job.signature), constexprs=dict(job.constants), attrs=attributes),
            target=GPUTarget("cuda", job.arch, 32),
            options={"num_warps": job.warps, "num_stages": job.stages, "enable_fp_fusion": job.fusion},
        )
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".strip()[:2000]}
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [tool, "-res-usage", *(["-sass"] if job.arch == 90 else []), file.name], capture_output=True, text=True, check=True
        ).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if usage is None:
        raise RuntimeError(f"cuobjdump's output is not understood: {text[:400]}")
    return {
        "registers": int(usage[1]), "stack": int(usage[2]), "shared": kernel.metadata.shared,
        "tensor_cores": bool(TENSOR_CORES.search(kernel.asm["ptx"])), "stale_loads": kernel.asm["ptx"].count("ld.global.nc"),
        "additions": dict(sorted(Counter(re.findall(r"\b([FD]ADD|[FD]FMA)\b", text)).items())),
    }  # fmt: skip


def row_of(package: str, job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the result."""
    row: dict[str, Any] = {"kernel": job.kernel, "kind": job.kind, "arch": f"sm_{job.arch}", **({"rank": job.rank} if job.rank else {})}
    row |= {"tile": job.tile, "warps": job.warps, "stages": job.stages}
    if "error" in facts:
        return row | {"failures": [f"does not compile: {facts['error']}"]}
    row |= {name: facts[name] for name in ("registers", "stack", "shared")}
    most = STACK.get(job.kernel, 0)
    found = [f"takes {facts['stack']} bytes of stack, the limit is {most}"] if facts["stack"] > most else []
    kernel = kernel_of(package, job)
    if hasattr(kernel, "tiles"):
        constants = dict(job.constants)
        tile = import_module(f"{package}.common").Tile(*list(job.tile.values())[:3], job.warps, job.stages)
        estimated = kernel.tiles.shared_bytes(tile, job.kind, constants["G"], job.rank)
        if facts["shared"] > estimated:
            found.append(f"takes {facts['shared']} bytes of shared memory, the kernel's tiles expect at most {estimated}")
        if job.kind in ("bfloat16", "tf32") and not facts["tensor_cores"]:
            found.append("uses no tensor cores")
    if facts["shared"] > SHARED_MEMORY[job.arch]:
        found.append(f"takes {facts['shared']} bytes of shared memory, a block is granted {SHARED_MEMORY[job.arch]}")
    if job.kernel in REREADS and facts["stale_loads"]:
        found.append(f"has {facts['stale_loads']} loads that may miss what the program wrote in the step before")
    return row | {"failures": found}


def compared(what: str, job: Job, one: Mapping[str, Any], other: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The row of a kernel that was compiled in two ways: they must not differ."""
    wrong = [f"{what}: {name} {other.get(name)} instead of {one.get(name)}" for name in names if one.get(name) != other.get(name)]
    return {"kernel": job.kernel, "kind": job.kind, "failures": wrong + ([other["error"]] if "error" in other else [])}


def emit(package: str, jobs: Iterable[Job], folder: Path) -> None:
    """Write kernels as PyTorch's compiler does for a compiled graph: it collects what a kernel calls by a walk of its own."""
    from torch._inductor.codegen.wrapper import user_defined_triton_kernel_transitive_closure_source_code as closure

    for module, name in dict.fromkeys((job.module, job.kernel) for job in jobs):
        kernel, file = getattr(import_module(f"{package}.{module}"), name), folder / f"emitted_{module}.py"
        before = file.read_text(encoding="utf-8") if file.exists() else "import triton\nimport triton.language as tl\n"
        source = closure(kernel.fn if hasattr(kernel, "tiles") else kernel)
        file.write_text(f"{before}\n\n@triton.jit\n{source}", encoding="utf-8")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this report alone."""
    parser.add_argument("--kernels", type=Path, default=KERNELS, metavar="FOLDER", help="the kernels' sources")
    parser.add_argument("--names", nargs="+", metavar="KERNEL", help="only these kernels")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="only these dtypes and precisions")
    parser.add_argument("--ranks", nargs="+", type=int, choices=(0, *RANKS), default=[0, *RANKS], help="only these ranks; 0: the full cell")
    parser.add_argument("--tile", type=int, metavar="PLACE", help="only one tile of each kernel; -1: the last")


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Compile the kernels, and return the result; or the recorded one, once each kernel's last tile for every GPU has been compared."""
    versions = {name: version(name).partition("+")[0] for name in ("torch", "triton")}
    digest = digest_of("triton", options.kernels.glob("*.py"), versions, options)
    recorded = recorded_result(options, digest)
    if recorded is None:
        return compiled_report(options, versions, digest)
    part = argparse.Namespace(
        **vars(options) | {"kinds": options.kinds[:1], "ranks": [rank for rank in options.ranks if rank in (0, COMMON_RANK)], "tile": -1}
    )
    return with_differences(recorded, compiled_report(part, versions, digest))


def compiled_report(options: argparse.Namespace, versions: dict[str, str], digest: str) -> dict[str, Any]:
    """Compile the kernels, and return the result."""
    package = load(options.kernels)
    rows, variants = dict[Job, None](), dict[Job, str]()
    tiles = slice(None) if options.tile is None else slice(options.tile, options.tile + 1 or None)
    for arch in options.archs:
        for kind in options.kinds if arch == 90 else [kind for kind in options.kinds if kind == "bfloat16"]:
            for rank in [rank for rank in options.ranks if rank in (0, COMMON_RANK) or (arch, kind) == (90, "bfloat16")]:
                rows |= dict.fromkeys(jobs_of(package, kind, arch, rank, tiles=tiles, **HEAVIEST))
    if options.tile is None and 90 in options.archs and "bfloat16" in options.kinds:
        for words, call in VARIANTS.items():
            for rank in [rank for rank in options.ranks if rank in (0, COMMON_RANK)]:
                variants |= {job: words for job in jobs_of(package, "bfloat16", 90, rank, tiles=slice(-1, None), **call) if job not in rows}
    wanted = [job for job in {**rows, **variants} if not options.names or job.kernel in options.names]
    hopper = {(job.kernel, job.kind): job for job in wanted if job.arch == 90 and job in rows and options.tile is None}
    fused = {job: job._replace(fusion=True) for job in hopper.values()}
    with tempfile.TemporaryDirectory() as folder:
        emit(package, hopper.values(), Path(folder))
        again = {job: job._replace(emitted=folder) for job in {job.kernel: job for job in hopper.values()}.values()}
        every = [*wanted, *fused.values(), *again.values()]
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
            facts = dict(zip(every, pool.map(compiled, [package] * len(every), every), strict=True))
    usage = ("registers", "stack", "shared")
    return {
        "digest": digest,
        "versions": versions,
        "rows": [row_of(package, job, facts[job]) for job in wanted if job in rows],
        "variants": [{"variant": variants[job], **_compiles(row_of(package, job, facts[job]))} for job in wanted if job in variants],
        "fusion": [compared("with fusion", job, facts[job], facts[other], ["additions"]) for job, other in fused.items()],
        "reemission": [compared("as PyTorch writes it", job, facts[job], facts[other], usage) for job, other in again.items()],
    }


def _compiles(row: dict[str, Any]) -> dict[str, Any]:
    """A variant need only compile: rows that are not aligned use scalar loads, and may spill."""
    return row | {"failures": [failure for failure in row["failures"] if "compile" in failure or "may miss" in failure]}
