"""Compiles every configuration of every Triton kernel, without a GPU, and checks what it takes of one. docs/triton.md explains the result.

    python scripts/triton_resources.py      # writes bench/results/triton_resources.json; exit code 1 with a list when a check fails

Triton keeps what it compiled, so that a second run is quick. float16 compiles to bfloat16's code but for the name of the dtype in its
instructions, and is compiled for sm_90 alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

from multiprocessor import MULTIPROCESSORS, programs
from report import aligned, write
from triton_compile import ELEMENT, HEAVIEST, KERNELS, SIZES, Job, arguments, compiled, job_of, load

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "triton_resources.json"

TILED = ("step", "all_steps", "backward", "context")
"""Those with a choice of tiles; the others have one for every size."""

CASES = {name: {"B": 8192, "D": 624} for name in TILED} | {"all_steps": {"B": 256, "D": 256}}
"""What the predicted times are for, each with two tasks, three steps and no context (its own kernel: as many columns as units)."""
TASKS, STEPS = 2, 3


def rows_to_compile(names: list[str], kinds: list[str], archs: list[int]) -> Iterator[Job]:
    """Every configuration of every kernel, where it fits."""
    tile_table = import_module("kernels.tile_table")
    for arch, kind, name in product(archs, kinds, names):
        if kind == "float16" and arch != 90:
            continue
        tiles = tile_table.candidates(name if name in TILED else "backward", kind, 2, tile_table.SHARED_MEMORY[arch])
        if name in TILED:
            for tile in tiles:
                constants = tile.constants()
                yield job_of(name, kind, arch, constants.pop("num_warps"), constants.pop("num_stages"), **constants)
        elif name == "start":
            for rows in sorted({tile.block_b for tile in tiles}):
                yield job_of(name, kind, arch, 8, BLOCK_B=rows, BLOCK_D=64)
        elif kind != "tf32":  # nothing is multiplied: float32 and tf32 are one
            rows, columns = (2, 1024) if name == "gather" else (256, 512)  # the largest that kernels/param_gather_op.py launches
            yield job_of(name, kind, arch, 4, BLOCK_R=rows, BLOCK_N=columns)


def tile_of(job: Job) -> Any:
    """The configuration that a job of a tiled kernel was made of."""
    blocks = dict(job.constants)
    return import_module("kernels.tile_table").Config(blocks["BLOCK_B"], blocks["BLOCK_D"], blocks["BLOCK_K"], job.warps, job.stages)


def row_of(job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the result."""
    tile_table, blocks = import_module("kernels.tile_table"), dict(job.constants)
    row: dict[str, Any] = {
        "kernel": job.kernel, "kind": job.kind, "arch": f"sm_{job.arch}",
        "tile": {name.removeprefix("BLOCK_").lower(): size for name, size in blocks.items() if name.startswith("BLOCK_")},
        "warps": job.warps, "stages": job.stages, **facts,
    }  # fmt: skip
    row.pop("rounded", None)
    if "error" not in facts:
        row["programs"] = programs(job.arch, job.warps, facts["registers"], facts["shared"], facts["tensor_memory"])
    if job.kernel in TILED:
        tile, case = tile_of(job), CASES[job.kernel]
        sizes = tile_table.Sizes(job.kind, TASKS * case["B"], case["D"], case["D"], blocks["G"], STEPS)
        row["shared_estimated"] = tile_table.shared_bytes(job.kernel, tile, job.kind, sizes.gates)
        row["tile_flops"], row["tile_bytes"] = tile_table.tile_work(job.kernel, tile, sizes)
        seconds = tile_table.predicted_seconds(job.kernel, tile, sizes)
        row["predicted_us_h100"] = round(1e6 * seconds, 2)
    row["failures"] = failures(job, facts)
    return row


def failures(job: Job, facts: Mapping[str, Any]) -> list[str]:
    """What is wrong with a kernel. Rows that begin anywhere are loaded value by value, and may spill."""
    if "error" in facts:
        return [f"does not compile: {facts['error']}"]
    tile_table, found = import_module("kernels.tile_table"), []
    if job.aligned and facts["stack"]:
        found.append(f"spills: {facts['stack']} bytes of stack, {facts.get('spills_in_loops', 0)} loads and stores in loops")
    limit = tile_table.SHARED_MEMORY[job.arch]
    if facts["shared"] > limit:
        found.append(f"takes {facts['shared']} bytes of shared memory, the limit is {limit}")
    if job.kernel not in TILED or not job.disassembled:
        return found
    tile = tile_of(job)
    estimated = tile_table.shared_bytes(job.kernel, tile, job.kind, dict(job.constants)["G"])
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
    return found


def wanted_loads(job: Job) -> Counter[int]:
    """Bytes a thread loads at a time, 16 where its share of a tile is no smaller, to how many such loads the pipeline must have."""
    tile, gates = tile_of(job), dict(job.constants)["G"]
    itemsize = import_module("kernels.tile_table").ITEMSIZE[job.kind]
    forward = job.kernel in ("step", "all_steps")
    operands = [tile.block_b, gates * tile.block_d if forward else tile.block_d]
    # Forward, the context's product and the state's, each with a copy a stage, before the loop or in it. Backward, loads follow the index:
    # a value takes two stages.
    repeats = 2 * job.stages if forward else (job.stages - 1) // 2 + 1
    if job.kind == "tf32" and not forward and job.arch in (90, 100) and tile.block_b >= 64:
        # these tensor cores take four-byte values along k alone, and the weights lie across it: they are turned while they are loaded
        operands.pop()
    found: Counter[int] = Counter()
    for rows in operands:
        share = rows * tile.block_k * itemsize // (32 * job.warps)
        width = min(16, share)
        found[width] += repeats * share // width
    return found


def variants_to_compile(names: list[str]) -> Iterator[tuple[str, Job]]:
    """What a launch may ask for besides the rows: other flags, integers that are 1 or beyond 32 bits, rows that begin anywhere."""
    flags: dict[str, list[dict[str, bool]]] = {name: [] if name in HEAVIEST else [{}] for name in KERNELS}
    both = (False, True)
    for first, context in product(both, both):
        common = {"FIRST": first, "HAS_CONTEXT": context}
        flags["step"] += [{**common, "LAST": last, "SAVE": save, "STORE": True} for last, save in product(both, both)]
        flags["step"].append({**common, "LAST": False, "SAVE": True, "STORE": False})
    flags["all_steps"] += [dict(zip(HEAVIEST["all_steps"], values, strict=True)) for values in product(both, both, both)]
    flags["backward"] += [dict(zip(HEAVIEST["backward"], values, strict=True)) for values in product(both, both, both)]
    for name in names:
        integers, constants = arguments(name)
        job = job_of(name, "bfloat16", 90, 4, BLOCK_B=64, BLOCK_D=64, BLOCK_K=64, BLOCK_R=16, BLOCK_N=128)
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


def fusions_to_compile(jobs: list[Job]) -> list[Job]:
    """One job for every kernel in bfloat16, float32 and float64."""
    kinds = ("bfloat16", "float32", "float64")
    return list({(job.kernel, job.kind): job for job in jobs if job.arch == 90 and job.kind in kinds}.values())


def compile_all(jobs: set[Job], folder: Path) -> dict[Job, dict[str, Any]]:
    """In as many processes as there are cores. A job that ends its process has that as its error, and so have those that waited for it."""
    facts: dict[Job, dict[str, Any]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=load, initargs=(folder,)) as pool:
        pending = {pool.submit(compiled, job): job for job in jobs}
        for done in as_completed(pending):
            error = done.exception()
            facts[pending[done]] = done.result() if error is None else {"error": f"{type(error).__name__}: {error}"}
            if sys.stderr.isatty() or len(facts) % 50 == 0 or len(facts) == len(jobs):
                print(f"\rtriton_resources: {len(facts)} of {len(jobs)} compiled", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return facts


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in short."""
    lines = [("kernel", "kind", "arch", "tile", "warps", "stages", "regs", "spills", "shared", "programs", "products", "us on H100")]
    for row in rows:
        tile = "x".join(str(size) for size in row["tile"].values())
        start = (row["kernel"], row["kind"], row["arch"], tile, str(row["warps"]), str(row["stages"]))
        if "error" in row:
            lines.append((*start, "does not compile", *[""] * 5))
            continue
        numbers = row["registers"], row["spill_stores"] + row["spill_loads"], row["shared"], row["programs"]
        tensor_cores = " ".join(name for name in row["products"] if name.endswith("MMA")) or " ".join(row["products"])
        lines.append((*start, *map(str, numbers), tensor_cores, f"{row.get('predicted_us_h100', '')}"))
    return aligned(lines)


@cache
def versions() -> dict[str, str]:
    """Of what the result depends on."""
    import triton

    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    tools = {}
    for name in ("ptxas", "ptxas-blackwell"):
        text = subprocess.run([str(folder / name), "--version"], capture_output=True, text=True, check=False).stdout
        tools[name] = text.splitlines()[-1] if text else "not there"
    return {"triton": triton.__version__, **tools}


def main() -> None:
    """Exit code 0 if every check passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default: bench/results/triton_resources.json)")
    parser.add_argument("--kernels", type=Path, default=ROOT / "kernels", metavar="FOLDER", help="the kernels' sources")
    parser.add_argument("--names", nargs="+", choices=KERNELS, default=list(KERNELS), help="only these kernels")
    parser.add_argument("--kinds", nargs="+", choices=ELEMENT, default=list(ELEMENT), help="only these dtypes and precisions")
    parser.add_argument("--archs", nargs="+", type=int, choices=MULTIPROCESSORS, default=list(MULTIPROCESSORS), help="only these GPUs")
    parser.add_argument("--rows-only", action="store_true", help="leave the variants and the comparison of FP fusion out")
    options = parser.parse_args()
    load(options.kernels)

    jobs = list(rows_to_compile(options.names, options.kinds, options.archs))
    variants = [] if options.rows_only else list(variants_to_compile(options.names))
    fused = [] if options.rows_only else fusions_to_compile(jobs)
    every = {*jobs, *(job for _, job in variants), *(replace(job, fusion=True) for job in fused)}
    facts = compile_all(every, options.kernels)

    rows = [row_of(job, facts[job]) for job in jobs]
    variant_rows = [{"variant": name, **row_of(job, facts[job])} for name, job in variants]
    fusion_rows = []
    for job in fused:
        without, with_fusion = (facts[one].get("rounded") for one in (job, replace(job, fusion=True)))
        shown = {"kernel": job.kernel, "kind": job.kind, "same": without == with_fusion, "without": without, "with": with_fusion}
        fusion_rows.append(shown)
    content = {"versions": versions(), "case": {"tasks": TASKS, "steps": STEPS, "sizes": CASES}}
    write(options.output, {**content, "rows": rows, "variants": variant_rows, "fusion": fusion_rows})

    print(table(rows))
    failed = [row for row in rows + variant_rows if row["failures"]]
    for row in failed:
        where = f"{row['kernel']} {row['kind']} {row['arch']} {row['tile']} {row['warps']} warps {row['stages']} stages"
        print(f"FAILED: {where} {row.get('variant', '')}: {'; '.join(row['failures'])}")
    print(f"{len(rows)} configurations, {len(variant_rows)} variants, {len(failed)} failed; written to {options.output}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
