"""Results as tables for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..training.constant import not_better_than_constant


def output_console() -> Console:
    """Standard output; a pipe is wide enough that nothing is wrapped or cut."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def new_table(console: Console, title: str, columns: Mapping[str, bool]) -> Table:
    """An empty table; ``columns`` says of each column whether it holds numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII2)
    for name, numeric in columns.items():
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    return table


def print_metrics(console: Console, title: str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """The table of the metrics, and below it a warning for every task whose log loss is not below the constant's."""
    console.print(metrics_table(console, title, metrics))
    print_lines(console, not_better_than_constant(metrics))


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Lines as they are: neither coloured nor wrapped."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def metrics_table(console: Console, title: str, metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row a task: rows, positives, AUC, log loss, calibration, and the role and GAUC where there are any."""
    entries = metrics.values()
    role = any("role" in entry for entry in entries)
    gauc = any("gauc" in entry for entry in entries)
    columns = {"task": False, **({"role": False} if role else {}), "rows": True, "positives": True, "AUC": True, "log loss": True}
    table = new_table(console, title, columns | {"calibration": True} | ({"GAUC": True} if gauc else {}))
    for task, entry in metrics.items():
        counts = [f"{entry['rows']:,}", f"{entry['positives']:,}"]
        values = [number(entry[name]) for name in ("auc", "log_loss", "calibration", *(("gauc",) if gauc else ()))]
        table.add_row(task, *([entry["role"]] if role else []), *counts, *values)
    return table


def number(value: float | None) -> str:
    """Four decimals, or ``undefined``."""
    return "undefined" if value is None else f"{value:.4f}"
