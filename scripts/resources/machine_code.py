"""A kernel's machine code as cuobjdump prints it: its instructions, its loops, and how wide its loads are."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*)")
PRODUCTS = re.compile(r"HGMMA|HMMA|DMMA|UTC\w*MMA\w*|FFMA2?|DFMA")


class Instruction(NamedTuple):
    """An instruction: its address, its name split at the dots, its operands, and whether a predicate decides if it runs."""

    at: int
    words: list[str]
    operands: str
    conditional: bool

    @property
    def name(self) -> str:
        """The first word of the name."""
        return self.words[0]


Code = list[Instruction]


def code_of(text: str) -> Code:
    """The instructions, in the order of their addresses."""
    return [Instruction(int(at, 16), name.split("."), operands, bool(when)) for at, when, name, operands in LINE.findall(text)]


def widths(code: Code, name: str) -> dict[str, int]:
    """How many instructions of that name move how many bytes of a thread, by the number of bytes."""
    bits = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}
    found = Counter(next((bits[word] for word in one.words if word in bits), 32) // 8 for one in code if one.name == name)
    return {str(width): found[width] for width in sorted(found)}


def inner_loops(code: Code) -> list[Code]:
    """The loops around products that have no such loop inside; where nothing is multiplied, every loop."""
    tensor_cores = [place for place, one in enumerate(code) if one.name.endswith("MMA")]
    products = tensor_cores or [place for place, one in enumerate(code) if PRODUCTS.fullmatch(one.name)]
    loops = _loops(code)
    if products:
        loops = [loop for loop in loops if not loop.isdisjoint(products)]
        loops = [loop for loop in loops if not any(inner < loop for inner in loops)]
    return [[code[place] for place in sorted(loop)] for loop in sorted(loops, key=min)]


def _loops(code: Code) -> list[frozenset[int]]:
    """The places of each loop's instructions.

    A jump back alone makes no loop: code that waits stands at the end of a kernel, and jumps back to where it was needed. A loop is what
    leads back to a place through which every way to the jump leads.
    """
    after = _successors(code)
    before: list[list[int]] = [[] for _ in code]
    for place, places in enumerate(after):
        for one in places:
            before[one].append(place)
    loops: dict[int, set[int]] = {}
    for end, places in enumerate(after):
        for first in places:
            if first <= end and end not in _reached(after, 0, without=first):
                loops.setdefault(first, {first}).update(_reached(before, end, without=first))
    return [frozenset(loop) for loop in loops.values()]


def _successors(code: Code) -> list[list[int]]:
    """The places that can follow each instruction. A call returns."""
    places = {one.at: place for place, one in enumerate(code)}
    found = []
    for place, one in enumerate(code):
        ends = one.name in ("BRA", "EXIT", "RET", "JMP", "BRX") and not one.conditional and not re.match(r"\s*!?U?P\d", one.operands)
        following = [] if ends or place + 1 == len(code) else [place + 1]
        target = re.search(r"0x([0-9a-f]+)\s*$", one.operands) if one.name in ("BRA", "JMP") else None
        if target and int(target[1], 16) in places:
            following.append(places[int(target[1], 16)])
        found.append(following)
    return found


def _reached(edges: list[list[int]], start: int, *, without: int) -> set[int]:
    """The places that edges lead to from ``start``, not through ``without``."""
    seen, waiting = {without}, [start]
    while waiting:
        place = waiting.pop()
        if place not in seen:
            seen.add(place)
            waiting += edges[place]
    return seen - {without}
