"""What the product loops of a Triton kernel cost, and how much they may.

A product loop is a loop around instructions that multiply, with no such loop inside. A multiprocessor has four schedulers. Each issues one
instruction a cycle and has one tensor core. A program's warps are spread over them evenly, so one warp stands for all: the instructions
that it issues in the loop, beside the cycles that its products take on a tensor core.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .machine_code import PRODUCTS, Code, inner_loops, widths

RATE = {80: 256, 90: 512}
"""16-bit products, each with an addition, that a tensor core computes in a cycle; tf32 takes twice as long. They follow from NVIDIA's data
sheets: 312 TFLOPS = 2 x 256 x 4 tensor cores x 108 multiprocessors x 1.41 GHz (A100); 989.4 = 2 x 512 x 4 x 132 x 1.83 GHz (H100 SXM). On
sm_100 a product does not name its shape, and the cards of sm_120 differ: there, no cycles are counted."""

MAY_BE_STALE = re.compile(r"LDG\S*\.CONSTANT|TLD|TEX|UTMALDG|UBLKCP")
"""Loads that need not see what their own program wrote before: through the read-only cache, of textures, and bulk copies."""
MAY_BE_STALE_IN_PTX = re.compile(r"\bld\.global\S*\.nc\b|\btex\.|\bcp\.async\.bulk")


@dataclass(frozen=True)
class Limit:
    """The most that each product loop of a kernel may have."""

    issue: float
    """Instructions of a warp for each cycle of its products, with tiles of 64 rows and more."""
    narrow: float
    """The same with tiles of fewer rows. They have no ``wgmma``, and serve batches that are too small to keep the tensor cores busy."""
    divisions: int = 0
    """Integer divisions of a tile by a number that is no constant. One takes about twenty instructions a value."""
    index_loads: int = 0
    """Loads of integers. What they point to waits for them: that takes a stage of the pipeline and a barrier."""


LIMITS = {
    # Half of the slots to issue an instruction stay free, so the products set the pace.
    "step": Limit(0.5, narrow=0.8),
    "all_steps": Limit(0.5, narrow=1.3),
    # 0.2 to 0.5 but for tiles of 64 x 64, whose products are too short for the instructions around them.
    "backward": Limit(0.8, narrow=1.6),
    "inputs": Limit(0.9, narrow=1.8),
}
TF32_LIMITS = {
    # The left operand is rounded to tf32 in registers, an instruction a value.
    "step": Limit(0.7, narrow=1.5),
    "all_steps": Limit(0.7, narrow=1.8),
    "backward": Limit(1.4, narrow=2.7),
    "inputs": Limit(2.5, narrow=2.8),
}
"""The same for tf32, in place of LIMITS."""

WAIT = 1
"""Products of ``wgmma`` that a loop must leave running when it waits, so that a warp prepares the next one meanwhile."""
SERIAL = {("backward", "tf32")}
"""Kernels and kinds after whose every product ptxas waits, for every tile."""


def loop_facts(code: Code, ttgir: str, arch: int) -> dict[str, Any]:
    """The loop that has most instructions for each of its cycles; the most divisions and index loads of any; stale loads anywhere."""
    loops = [_loop(body, arch) for body in inner_loops(code) if any(PRODUCTS.fullmatch(one.name) for one in body)]
    worst = max(loops, key=lambda loop: (loop["loop_issue"] or 0, loop["loop_instructions"]), default={})
    return {**worst, **_integers_in_loops(ttgir), "stale_loads": sum(bool(MAY_BE_STALE.match(".".join(one.words))) for one in code)}


def loop_failures(kernel: str, kind: str, rows: int, facts: Mapping[str, Any]) -> list[str]:
    """What exceeds the limits, of a kernel by its name in the table of tiles."""
    limits = TF32_LIMITS if kind == "tf32" else LIMITS
    if kernel not in limits:
        return ["has no limits in LIMITS of scripts/resources/triton_loops.py"]
    found, limit = [], limits[kernel]
    for name, most in (("divisions", limit.divisions), ("index_loads", limit.index_loads)):
        if facts[f"loop_{name}"] > most:
            found.append(f"has {facts[f'loop_{name}']} {name.replace('_', ' ')} in a product loop, the limit is {most}")
    most_issued = limit.issue if rows >= 64 else limit.narrow
    if (facts.get("loop_issue") or 0) > most_issued:
        found.append(f"issues {facts['loop_issue']} instructions for each cycle of the products, the limit is {most_issued}")
    if facts.get("loop_wait") is not None and facts["loop_wait"] < WAIT and (kernel, kind) not in SERIAL:
        found.append(f"waits until {facts['loop_wait']} products run, the limit is {WAIT}")
    return found


def _loop(body: Code, arch: int) -> dict[str, Any]:
    instructions, cycles = sum(one.name != "NOP" for one in body), _tensor_cycles(body, arch)
    waits = [int(one.operands.rpartition("0x")[2], 16) for one in body if one.words[:2] == ["WARPGROUP", "DEPBAR"]]
    return {
        "loop_instructions": instructions,
        "loop_cycles": cycles,
        "loop_issue": cycles and round(instructions / cycles, 2),
        "loop_wait": min(waits, default=None),
        "loop_loads": widths(body, "LDG"),
        "loop_async_loads": widths(body, "LDGSTS"),
    }


def _tensor_cycles(body: Code, arch: int) -> float | None:
    """Cycles that the products of one warp take on its tensor core, at the data sheet's rate; None where that is not known."""
    total = 0.0
    for one in body:
        if one.name not in ("HGMMA", "HMMA"):
            continue
        shape = re.fullmatch(r"64x(\d+)x(\d+)|16(8)(16|8|4)", one.words[1])
        if shape is None or arch not in RATE:
            return None
        # 16 rows each: four warps share a product of HGMMA, which has 64
        columns, depth = (int(size) for size in shape.groups() if size)
        total += 16 * columns * depth / RATE[arch] * (2 if "TF32" in one.words else 1)
    return total or None


def _integers_in_loops(ttgir: str) -> dict[str, int]:
    """Operations on integers in loops that multiply, from the form of the kernel that Triton lowers last. It still tells them apart."""
    constants = set(re.findall(r"(%\S+) = arith\.constant", ttgir))
    divisions, loads = [0], [0]
    for body in _product_loops(ttgir.splitlines()):
        divisors = re.findall(r"arith\.(?:div|rem)[su]i \S+, (\S+)", body)
        divisions.append(sum(divisor not in constants for divisor in divisors))
        loads.append(len(re.findall(r"(?:tt\.load|async_copy_global_to_local) .*!tt\.ptr<i\d+>", body)))
    return {"loop_divisions": max(divisions), "loop_index_loads": max(loads)}


def _product_loops(lines: list[str]) -> list[str]:
    """The bodies of the loops around products that have no such loop inside. The text is indented as its blocks are nested."""
    indents = [len(line) - len(line.lstrip()) for line in lines]
    opened: list[int] = []
    around = set()
    for at, line in enumerate(lines):
        while opened and indents[at] <= indents[opened[-1]] and "} do {" not in line:
            opened.pop()
        if re.search(r"\bscf\.(?:for|while)\b", line):
            opened.append(at)
        elif opened and re.search(r"\b(?:tt\.dot|ttng\.warp_group_dot|ttng\.tc_gen5_mma)\s", line):
            around.add(tuple(opened))
    inner = {loops[-1] for loops in around} - {outer for loops in around for outer in loops[:-1]}
    ends = {first: next(at for at in range(first + 1, len(lines)) if indents[at] <= indents[first]) for first in inner}
    return ["\n".join(lines[first:end]) for first, end in ends.items()]
