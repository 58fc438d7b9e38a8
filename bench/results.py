"""Files of results, and the table that a run ends with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dcrnn_fast.ops import backends
from dcrnn_fast.support import files

from . import machine
from .cases import COLUMNS

COMMITTED = Path(__file__).parent / "results"
MEASURES, BENCHMARKS = "measures.json", "benchmarks_cpu.json"
"""The files of ``make measure`` and of ``make bench``, which have a part for each measurement and each benchmark."""
PEERS = ("eager", "compile", "floor")


def write(path: Path, content: object) -> None:
    """Write ``content`` as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, as_json(content) + "\n")


def as_json(content: object, indent: str = "") -> str:
    """JSON that a person can read and compare: a mapping that is too long for a line has one line a key, and such a list one a row."""
    flat = json.dumps(content)
    if len(indent) + len(flat) <= 140 or not isinstance(content, dict | list):
        return flat
    deeper = indent + " "
    if isinstance(content, dict):
        lines = [f"{json.dumps(key)}: {as_json(value, deeper)}" for key, value in content.items()]
    else:
        lines = [json.dumps(row) for row in content]
    start, end = "{}" if isinstance(content, dict) else "[]"
    return start + "\n" + ",\n".join(deeper + line for line in lines) + "\n" + indent + end


def read(name: str) -> dict:
    """A committed result, by its file's name."""
    return json.loads((COMMITTED / name).read_text(encoding="utf-8"))


def parts(path: Path) -> dict:
    """The parts of a file, by the name of what measured them; empty without a file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_part(path: Path, name: str, content: dict) -> None:
    """Write ``content``, and the machine, into a file in place of the part of that name."""
    write(path, dict(sorted((parts(path) | {name: {"machine": machine.description(), **content}}).items())))


def source(result: dict, file: str = MEASURES) -> str:
    """What a result was measured on, and its file, for people."""
    return f"{machine.line(result['machine'])}; `bench/results/{file}`."


def case_of(row: dict) -> dict:
    """The columns that name a row's case."""
    return {column: row[column] for column in COLUMNS if column in row}


def rows_of_this_machine(path: Path, name: str) -> list[dict]:
    """The rows of a benchmark that this machine and these versions measured."""
    known = parts(path).get(name, {})
    return known["rows"] if known.get("machine") == machine.description() else []


def merge(path: Path, name: str, row: dict) -> None:
    """Write ``row`` of a benchmark into a file, in place of the row of the same case.

    Rows that another machine or version measured are dropped: the rows of a benchmark can be compared with one another.
    """
    kept = [known for known in rows_of_this_machine(path, name) if case_of(known) != case_of(row)]
    write_part(path, name, {"rows": sorted([*kept, row], key=lambda row: tuple(case_of(row).values()))})


def words(case: dict) -> str:
    """A case for people: "forward float32 D=128 B=64 T=2"."""
    return " ".join(value if isinstance(value, str) else f"{column}={value}" for column, value in case.items())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def ratio(row: dict, name: str) -> str:
    """The median and quartiles of a ratio of :func:`bench.interleave.figures`: "0.70 (0.68-0.72)"."""
    return "{:.2f} ({:.2f}-{:.2f})".format(*(row[f"{name}{quartile}"] for quartile in ("", ", low", ", high")))


def table(rows: Sequence[tuple[str, dict]]) -> list[str]:
    """Lines with the time (or memory) of ours over each peer's, with quartiles. What failed stands below.

    ``rows`` are pairs of a benchmark's name and a row of its results; each backend in a row gets a line.
    """
    lines, failed = [("benchmark", "case", "ours", *(f"/ {peer}" for peer in PEERS), "/ others")], []
    for name, row in rows:
        ratios: dict[str, dict[str, str]] = {}
        for column, value in row.items():
            own, slash, peer = column.partition("/")
            if slash and own.partition(",")[0] in backends.BACKENDS and not column.endswith((", low", ", high")):
                spread = f" ({row[f'{column}, low']:.2f}-{row[f'{column}, high']:.2f})" if f"{column}, low" in row else ""
                ratios.setdefault(own, {})[peer] = f"{value:.2f}{spread}"
        case = words(case_of(row))
        for own, cells in ratios.items():
            others = "; ".join(f"{peer} {cell}" for peer, cell in cells.items() if peer not in PEERS)
            lines.append((name, case, own, *(cells.get(peer, "-") for peer in PEERS), others))
        if "failed" in row:
            failed.append(f"failed: {name}, {case}: {row['failed']}")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines] + failed
