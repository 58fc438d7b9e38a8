"""Compiles every tile configuration of every Triton kernel.

Triton caches what it compiled, so a second run is quick. float16 is compiled for sm_90 alone: its code is bfloat16's, except that its
instructions name the other dtype.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..sources import KERNELS as KERNEL_FILES
from .multiprocessor import SHARED_MEMORY, programs
from .recorded import digest_of, recorded_result, with_differences
from .triton_compile import ELEMENT, HEAVIEST, KERNELS, LOW_RANK, SIZES, TILED, Job, arguments, compiled, job_of, load, run_tool
from .triton_costs import lines, predictions
from .triton_loops import loop_failures
from .triton_reemission import emit, reemission_of

CASES = {name: {"B": 8192, "D": 624} for name in TILED} | {"all_steps": {"B": 256, "D": 256}}
TASKS, STEPS = 2, 3
"""The sizes that the times are predicted for, with as many columns as units."""
RANKS, COMMON_RANK = (16, 32, 64, 128, 256), 64
"""The ranks that the low-rank kernels are compiled for; the common one for every architecture."""
FIXED = {
    "start": {"BLOCK_D": 32},
    "gather": {"BLOCK_R": 2, "BLOCK_N": 1024},
    "gather_low_rank": {"RANK": COMMON_RANK, "BLOCK_R": 16, "BLOCK_N": 128, "BLOCK_P": 2, "BLOCK_K": 1024},
    "gather_readers": {"BLOCK_S": 8, "BLOCK_R": 128},
    "gather_sum": {"BLOCK_S": 1, "BLOCK_N": 512},
}
"""The largest blocks with which the launches in kernels/ start the kernels that have one tile for every size."""
REREADS = ("all_steps", "low_rank_forward", "low_rank_backward")
"""The kernels that read what they wrote themselves."""
SECTIONS = ("rows", "variants", "fusion", "reemission")
"""What the result has: every configuration, other forms of the kernels, the comparisons of FP fusion and of Inductor's sources."""
COLUMNS = (
    "registers",
    "stack",
    "spill_stores",
    "spill_loads",
    "shared",
    "programs",
    "products",
    "loop_issue",
    "loop_wait",
    "predicted_us_h100",
)
"""What is printed of a row, after its names."""


def table() -> Any:
    """The module kernels/tile_table.py, of the folder that was loaded."""
    return import_module("kernels.tile_table")


def cost_model() -> Any:
    """The module kernels/cost_model.py, of the folder that was loaded."""
    return import_module("kernels.cost_model")


def low_rank_tiles() -> Any:
    """The module kernels/low_rank_tiles.py, of the folder that was loaded."""
    return import_module("kernels.low_rank_tiles")


def low_rank_jobs(name: str, kind: str, arch: int, ranks: list[int], place: int | None) -> Iterator[Job]:
    """The tiles of a kernel of the low-rank cell. Other ranks than COMMON_RANK, and other kinds than bfloat16, are compiled for sm_90
    alone, because a compilation takes seconds. The two small kernels have the forward's tiles, of which one stands for all."""
    tiles, table_name = low_rank_tiles(), LOW_RANK[name]
    if kind == "float16" or (kind != "bfloat16" and arch != 90):
        return
    small = name != table_name
    common = kind != "bfloat16" or arch != 90 or small
    for rank in [tiles.limit(table_name, kind, COMMON_RANK)] if common else tiles.limits(table_name, kind):
        rank = min(rank, COMMON_RANK) if common else rank
        if rank not in ranks:
            continue
        found = tiles.candidates(table_name, kind, 2, rank, table().Card("", 0, SHARED_MEMORY[arch], arch // 10))
        for tile in chosen(found, 0 if small else place):
            constants = {"RANK": rank, "SLICES": -(-rank // tile.block_k), **tile.constants()}
            yield job_of(name, kind, arch, constants.pop("num_warps"), constants.pop("num_stages"), **constants)


def chosen(tiles: list[Any], place: int | None) -> list[Any]:
    """All of a kernel's tiles, or the one at a place, counted around."""
    return tiles if place is None or not tiles else [tiles[place % len(tiles)]]


def rows_to_compile(names: list[str], kinds: list[str], archs: list[int], ranks: list[int], place: int | None) -> Iterator[Job]:
    """Every configuration of every kernel, where it fits; with ``place``, one tile of each kernel."""
    for arch, kind, name in product(archs, kinds, names):
        if name in LOW_RANK:
            yield from low_rank_jobs(name, kind, arch, ranks, place)
            continue
        if kind == "float16" and arch != 90:
            continue
        card = table().Card("", 0, SHARED_MEMORY[arch], arch // 10)
        tiles = chosen(table().candidates(TILED.get(name, "backward"), kind, 2, card), place)
        if name in TILED:
            for tile in tiles:
                constants = tile.constants()
                yield job_of(name, kind, arch, constants.pop("num_warps"), constants.pop("num_stages"), **constants)
        elif name == "start":
            for rows in sorted({tile.block_b for tile in tiles}):
                yield job_of(name, kind, arch, 8, BLOCK_B=rows, **FIXED[name])
        elif kind != "tf32":  # nothing is multiplied, so float32 and tf32 are the same
            yield job_of(name, kind, arch, 4, **FIXED[name])


def tile_of(job: Job) -> Any:
    """The tile configuration that a job was made of."""
    blocks = dict(job.constants)
    return table().Config(blocks["BLOCK_B"], blocks["BLOCK_D"], blocks["BLOCK_K"], job.warps, job.stages)


def row_of(job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the result."""
    blocks = dict(job.constants)
    row: dict[str, Any] = {
        "kernel": job.kernel, "kind": job.kind, "arch": f"sm_{job.arch}", **({"rank": blocks["RANK"]} if "RANK" in blocks else {}),
        "tile": {name.removeprefix("BLOCK_").lower(): size for name, size in blocks.items() if name.startswith("BLOCK_")},
        "warps": job.warps, "stages": job.stages, **facts,
    }  # fmt: skip
    row.pop("rounded", None)
    if "error" not in facts:
        row["programs"] = programs(job.arch, job.warps, facts["registers"], facts["shared"], facts["tensor_memory"])
    if job.kernel in TILED:
        tile, case = tile_of(job), CASES[job.kernel]
        sizes = table().Sizes(job.kind, TASKS * case["B"], case["D"], case["D"], blocks["G"], STEPS, TASKS)
        row["shared_estimated"] = table().shared_bytes(TILED[job.kernel], tile, job.kind, sizes.gates)
        row["tile_flops"], row["tile_bytes"] = cost_model().tile_work(TILED[job.kernel], tile, sizes)
        row["predicted_us_h100"] = round(1e6 * cost_model().predicted_seconds(TILED[job.kernel], tile, sizes), 2)
    row["failures"] = failures(job, facts)
    return row


def failures(job: Job, facts: Mapping[str, Any]) -> list[str]:
    """What is wrong with a kernel. Where rows are not aligned, it uses scalar loads and may spill."""
    if "error" in facts:
        return [f"does not compile: {facts['error']}"]
    found, limit = [], SHARED_MEMORY[job.arch]
    # the low-rank kernels go through two loops: what spills outside of the inner one is stored and loaded once a step
    if job.aligned and (facts.get("spills_in_loops") if job.kernel in LOW_RANK else facts["stack"]):
        found.append(f"spills: {facts['stack']} bytes of stack, {facts.get('spills_in_loops', 0)} loads and stores in loops")
    if facts["shared"] > limit:
        found.append(f"takes {facts['shared']} bytes of shared memory, the limit is {limit}")
    if job.kernel in REREADS and facts["stale_loads"]:
        found.append(f"has {facts['stale_loads']} loads that may miss what the program wrote in the step before")
    if job.kernel in LOW_RANK and job.disassembled:
        return found + low_rank_failures(job, facts)
    if job.kernel not in TILED or not job.disassembled:
        return found
    tile = tile_of(job)
    estimated = table().shared_bytes(TILED[job.kernel], tile, job.kind, dict(job.constants)["G"])
    if facts["shared"] > estimated + 2048:
        found.append(f"takes {facts['shared']} bytes of shared memory, tile_table.shared_bytes estimates {estimated}")
    if job.kind in ("bfloat16", "float16", "tf32"):
        hopper = "HGMMA" if tile.block_b >= 64 and job.kernel != "all_steps" else "HG?MMA"
        wanted = {90: hopper, 100: "HMMA|UTC.*MMA"}.get(job.arch, "HMMA")
        if not any(re.fullmatch(wanted, name) for name in facts["products"]):
            found.append(f"has no {wanted}, but {facts['products']}")
    for width, count in wanted_loads(job).items():
        if facts["async_loads"].get(str(width), 0) < count:
            found.append(f"has fewer than {count} asynchronous loads of {width} bytes, but {facts['async_loads']}")
    return found + loop_failures(TILED[job.kernel], job.kind, tile.block_b, facts)


def low_rank_failures(job: Job, facts: Mapping[str, Any]) -> list[str]:
    """What is wrong with a kernel of the low-rank cell beside what is wrong with any."""
    blocks, table_name = dict(job.constants), LOW_RANK[job.kernel]
    estimated = low_rank_tiles().shared_bytes(table_name, tile_of(job), job.kind, blocks["G"], blocks["RANK"])
    found = []
    if job.kernel == table_name and facts["shared"] > estimated:
        found.append(f"takes {facts['shared']} bytes of shared memory, low_rank_tiles.shared_bytes estimates {estimated}")
    if job.kind in ("bfloat16", "tf32") and not any(re.fullmatch("HG?MMA|UTC.*MMA", name) for name in facts["products"]):
        found.append(f"uses no tensor cores, but {facts['products']}")
    for name in ("loop_divisions", "loop_index_loads"):
        if facts[name]:
            found.append(f"has {facts[name]} {name.removeprefix('loop_').replace('_', ' ')} in a product loop")
    return found


def wanted_loads(job: Job) -> Counter[int]:
    """How many asynchronous loads of how many bytes a thread must have: 16 bytes, or its share of a tile where that is smaller."""
    tile, forward = tile_of(job), job.kernel in table().SCHEDULES
    operands = [tile.block_b, table().product_columns(TILED[job.kernel], tile, dict(job.constants)["G"])]
    # Each buffer of the pipeline is filled once, before the loop or in it. Forward, there are two products: the context's and the state's.
    repeats = tile.num_stages * (2 if forward else 1)
    found: Counter[int] = Counter()
    for rows in operands:
        share = rows * tile.block_k * table().ITEMSIZE[job.kind] // (32 * job.warps)
        width = min(16, share)
        found[width] += repeats * share // width
    return found


def fusion_of(job: Job, without: Mapping[str, int] | None, fused: Mapping[str, int] | None) -> dict[str, Any]:
    """The rounding instructions of a kernel, compiled so that multiplications and additions may not be fused, and so that they may be.

    The kernels write a multiplication that feeds an addition as ``fma``, or keep it apart. So the additions must be the same.
    """
    additions = [{name: (counts or {}).get(name) for name in ("FFMA", "FADD", "DFMA", "DADD")} for counts in (without, fused)]
    wrong = [] if additions[0] == additions[1] else [f"fusion changes the additions: {additions[0]}, with fusion {additions[1]}"]
    row = {"kernel": job.kernel, "kind": job.kind, "same": without == fused, "without": without, "with": fused}
    return {**row, "failures": wrong}


def variants_to_compile(names: list[str]) -> Iterator[tuple[str, Job]]:
    """The other forms that a launch may ask for: other flags, integers that are 1 or exceed 32 bits, rows that are not aligned."""
    flags: dict[str, list[dict[str, bool]]] = {name: [] if name in HEAVIEST else [{}] for name in KERNELS}
    both = (False, True)
    for first, context in product(both, both):
        common = {"FIRST": first, "HAS_CONTEXT": context}
        flags["step"] += [{**common, "LAST": last, "SAVE": save, "STORE": True} for last, save in product(both, both)]
        flags["step"].append({**common, "LAST": False, "SAVE": True, "STORE": False})
    for name in ("all_steps", "backward", "x0", "start"):
        flags[name] = [dict(zip(HEAVIEST[name], values, strict=True)) for values in product(both, repeat=len(HEAVIEST[name]))]
    for name in names:
        integers, constants = arguments(name)
        if name in LOW_RANK:
            yield from low_rank_variants(name, integers)
            continue
        blocks = {"BLOCK_B": 64, "BLOCK_D": 64, "BLOCK_K": 64, "BLOCK_R": 16, "BLOCK_S": 8, "BLOCK_N": 128, "BLOCK_P": 8}
        job = job_of(name, "bfloat16", 90, 4, RANK=24, **blocks)
        job = replace(job, disassembled=False)
        for gates, chosen in product((2, 1) if "G" in constants else (None,), flags[name]):
            known = {**chosen, "G": gates} if gates else chosen
            yield " ".join(f"{flag}={value:d}" for flag, value in known.items()) or "as it is", job.of(**known)
        for one in (name for name in integers if name in SIZES):
            yield f"{one}=1", replace(job, ones=(one,))
        yield "every integer is 1", replace(job, ones=tuple(integers))
        yield "64 bits", replace(job, wide=True)
        yield "unaligned", replace(job.of(ALIGN=2) if "ALIGN" in constants else job, aligned=False, divisible=False)
        if "ALIGN" in constants and name in HEAVIEST:
            yield "rows of 8 values", replace(job, divisible=False)


def low_rank_variants(name: str, integers: list[str]) -> Iterator[tuple[str, Job]]:
    """Other forms of a kernel of the low-rank cell: few, because a compilation takes seconds."""
    job = job_of(name, "bfloat16", 90, 4, BLOCK_B=32, BLOCK_D=32, BLOCK_K=16, RANK=24, SLICES=2)
    job = replace(job, disassembled=False)
    for gates in (2, 1):
        flags = {**dict.fromkeys(HEAVIEST[name], False), "TIED": True, "G": gates}
        yield f"no flags, tied, G={gates}", job.of(**flags)
    yield "every integer is 1", replace(job, ones=tuple(integers))
    yield "64 bits", replace(job, wide=True)
    yield "unaligned", replace(job.of(ALIGN=2, RANK=3, SLICES=1), aligned=False, divisible=False)


def compile_all(jobs: set[Job], folder: Path) -> dict[Job, dict[str, Any]]:
    """Compile in as many processes as there are cores. A job that ends its process fails, and so do those that waited for it."""
    facts: dict[Job, dict[str, Any]] = {}
    context = multiprocessing.get_context("fork")  # which has imported Triton already
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=load, initargs=(folder,)) as pool:
        pending = {pool.submit(compiled, job): job for job in jobs}
        for done in as_completed(pending):
            error = done.exception()
            facts[pending[done]] = done.result() if error is None else {"error": f"{type(error).__name__}: {error}"}
            if sys.stderr.isatty() or len(facts) % 50 == 0 or len(facts) == len(jobs):
                print(f"\rresources: {len(facts)} of {len(jobs)} compiled", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return facts


def versions() -> dict[str, str]:
    """The versions that the result depends on."""
    import triton

    tools = {name: run_tool(name, "--version").splitlines()[-1] for name in ("ptxas", "ptxas-blackwell")}
    return {"triton": triton.__version__, **tools}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this report alone."""
    parser.add_argument("--kernels", type=Path, default=KERNEL_FILES, metavar="FOLDER", help="the kernels' sources")
    parser.add_argument("--names", nargs="+", choices=KERNELS, default=list(KERNELS), help="only these kernels")
    parser.add_argument("--kinds", nargs="+", choices=ELEMENT, default=list(ELEMENT), help="only these dtypes and precisions")
    parser.add_argument("--ranks", nargs="+", type=int, choices=RANKS, default=list(RANKS), help="only these ranks of the low-rank kernels")
    parser.add_argument("--tile", type=int, metavar="PLACE", help="only one tile of each kernel; 0: its first, -1: its last, the smallest")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="only these sections of the result")


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Compile the kernels, and return the result; or the recorded one, once each kernel's last tile for every GPU has been compared."""
    pytorch = version("torch") if find_spec("torch") else "none"  # it writes what "reemission" compiles
    digest = digest_of("triton", options.kernels.glob("*.py"), versions() | {"torch": pytorch.partition("+")[0]}, options)
    recorded = recorded_result(options, digest)
    if recorded is None:
        return compiled_report(options, digest)
    part = argparse.Namespace(**vars(options) | {"kinds": options.kinds[:1], "tile": -1, "sections": ["rows"]})
    return with_differences(recorded, compiled_report(part, digest))


def compiled_report(options: argparse.Namespace, digest: str) -> dict[str, Any]:
    """Compile the kernels, and return the result."""
    load(options.kernels)
    jobs = list(rows_to_compile(options.names, options.kinds, options.archs, options.ranks, options.tile))
    variants = list(variants_to_compile(options.names)) if "variants" in options.sections else []
    hopper = [job for job in jobs if job.arch == 90]
    fused = {
        (job.kernel, job.kind): job for job in hopper if job.kind in ("bfloat16", "float32", "float64") and "fusion" in options.sections
    }
    first = {job.kernel: job for job in reversed(hopper)} if "reemission" in options.sections else {}
    again = [first[name] for name in options.names if name in first]
    rows = jobs if "rows" in options.sections else []
    wanted = {*rows, *(job for _, job in variants), *fused.values(), *(replace(job, fusion=True) for job in fused.values()), *again}
    facts, emitted = compile_all(wanted, options.kernels), {}
    if again:
        with TemporaryDirectory() as folder:
            emit((job.kernel for job in again), Path(folder))
            emitted = compile_all(set(again), Path(folder))
    fusion = [fusion_of(job, *(facts[one].get("rounded") for one in (job, replace(job, fusion=True)))) for job in fused.values()]
    predicted = predictions()
    print("\n".join(lines(predicted)))
    return {
        "digest": digest,
        "versions": versions(),
        "case": {"tasks": TASKS, "steps": STEPS, "sizes": CASES},
        "rows": [row_of(job, facts[job]) for job in rows],
        "variants": [{"variant": name, **row_of(job, facts[job])} for name, job in variants],
        "fusion": fusion,
        "predictions": predicted,
        "reemission": [reemission_of(job, facts[job], emitted[job]) for job in again],
    }
