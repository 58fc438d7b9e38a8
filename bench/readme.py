"""Writes the README's tables from bench/results/: ``python -m bench.readme``. A test compares README and results."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Callable
from pathlib import Path

from .machine import RESULTS

README = Path(__file__).parents[1] / "README.md"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def quality(result: dict) -> str:
    """Mean test AUC of every variant, a column a task; the spread is the sample standard deviation over seeds."""
    rows = [row for row in result["rows"] if "_given_" not in row["task"]]
    columns = list(dict.fromkeys((row["data"], row["task"]) for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {(row["model"], row["data"], row["task"]): row for row in rows}
    sizes = {(row["model"], row["data"]): f"{row['parameters']:,}" for row in rows}
    data = list(dict.fromkeys(row["data"] for row in rows))
    lines = []
    for model in models:
        aucs = (cells[(model, *column)] for column in columns)
        lines.append([model, *(f"{row['auc']:.4f} ± {row['auc_std']:.4f}" for row in aucs), *(sizes[model, name] for name in data)])
    header = ["test AUC", *(f"{name}: {task}" for name, task in columns), *(f"parameters, {name}" for name in data)]
    seeds = rows[0]["seeds"]
    return f"{markdown(header, lines)}\n\nMean ± standard deviation over {seeds} seeds; `make quality`, `bench/results/quality.json`."


def machine_line(result: dict) -> str:
    """What the figures were measured on."""
    about = result["machine"]
    return f"{about['cpu']}, {about['isa']}, {about['threads']} threads, PyTorch {about['torch'].partition('+')[0]}"


def _spread(rows: list[dict], column: str) -> str:
    values = [row[column] for row in rows]
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def speed(result: dict) -> str:
    """Times over the peers' times, by D: the median over the cases of B and T, and their range."""
    passes, peers = ("forward", "forward+backward"), ("floor", "eager", "compile")
    lines = []
    for dtype, dim in sorted({(row["dtype"], row["D"]) for row in result["rows"]}, key=lambda case: (case[0] != "float32", case[1])):
        cases = [[row for row in result["rows"] if (row["dtype"], row["D"], row["pass"]) == (dtype, dim, name)] for name in passes]
        lines.append([f"{dtype}, D = {dim}", *(_spread(rows, f"fast/{peer}") if rows else "" for rows in cases for peer in peers)])
    names = ("GEMM floor", "eager", "torch.compile")
    header = ["time / time of", *(f"{name}: {peer}" for name in ("forward", "training") for peer in names)]
    rows = result["rows"]
    lost = sorted(f"{row['pass']}, {row['dtype']}, D={row['D']}, B={row['B']}, T={row['T']}" for row in rows if row["fast/compile"] > 1)
    losses = f"Slower than torch.compile in {len(lost)} of {len(rows)} cases" + (": " + "; ".join(lost) if lost else "")
    return (
        f"{markdown(header, lines)}\n\nBelow 1 is faster. Median (range) over the cases of B (64 to {max(row['B'] for row in rows)}) and T "
        f"(1 to {max(row['T'] for row in rows)}) that were measured; L = 3, share_ratio 0.5, gated cell. {losses}. {machine_line(result)}; "
        "`make bench`, `bench/results/cross_rnn_cpu.json`."
    )


SECTIONS: dict[str, tuple[str, Callable[[dict], str]]] = {
    "quality": ("quality.json", quality),
    "speed": ("cross_rnn_cpu.json", speed),
}


def render(text: str) -> str:
    """README text with every marked section filled from its result file."""
    for name, (file, table) in SECTIONS.items():
        content = table(json.loads((RESULTS / file).read_text(encoding="utf-8")))
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)"
        text, found = re.subn(pattern, lambda marks, content=content: f"{marks[1]}{content}\n{marks[2]}", text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"{README}: expected one section marked {name!r}, found {found}")
    return text


def main() -> None:
    beside = README.with_suffix(".tmp")
    beside.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")
    os.replace(beside, README)


if __name__ == "__main__":
    main()
