"""Results and data reports as tables for a terminal or a pipe."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..errors import printable

PIPE = 160
"""Columns of a pipe, unless the variable COLUMNS says how many."""
HEADER, NAME = 6, 12
"""Characters of a line of a header and of a name, where a table is too wide for the console."""
LONGEST = 40
"""Characters of a value in a table by segment."""
BEST = 5
"""Features that the table of single features shows of each task."""


def output_console() -> Console:
    """Standard output."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=PIPE)


@dataclass
class Sheet:
    """A table: its title, its columns by name, each with whether it holds numbers, and the cells of its rows."""

    title: str
    columns: Mapping[str, bool]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(cells)


def print_sheet(console: Console, sheet: Sheet) -> None:
    """Print a whole table; nothing is cut off.

    Where it is too wide for the console, first its headers break into lines and then its names. Where that is not enough, its lines are
    longer than the console is wide, and a terminal breaks them.
    """
    layouts = ((None, None), (HEADER, None), (HEADER, NAME))
    for table in (_table(console, sheet, header, name) for header, name in layouts):
        width = Measurement.get(console, console.options.update(width=10**6), table).maximum
        if width <= console.width:
            break
    before, console.width = console.width, max(console.width, width)
    console.print(table)
    console.width = before


def _table(console: Console, sheet: Sheet, header: int | None, name: int | None) -> Table:
    style = box.SIMPLE_HEAD if console.is_terminal else box.ASCII2
    table = Table(title=sheet.title, title_justify="left", box=style, collapse_padding=True, show_edge=not header, pad_edge=not header)
    for column, numeric in sheet.columns.items():
        table.add_column(_broken(column, header), justify="right" if numeric else "left", no_wrap=True)
    for row in sheet.rows:
        table.add_row(*(_broken(cell, None if numeric else name) for cell, numeric in zip(row, sheet.columns.values(), strict=True)))
    return table


def _broken(text: str, width: int | None) -> Text:
    """``text`` in lines of at most ``width`` where spaces and underscores, after which it may break, allow it; None breaks nothing."""
    lines = [""]
    for part in [text] if width is None else re.findall(r"[^ _]+[ _]*|[ _]+", text):
        if lines[-1] and width is not None and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return Text(printable("\n".join(line.rstrip(" ") for line in lines)))


def print_metrics(console: Console, title: str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """The tables of the metrics, and below them a warning for every task whose log loss is not below the constant's."""
    for sheet in (metrics_sheet(title, metrics), ranking_sheet(metrics)):
        if sheet is not None:
            print_sheet(console, sheet)
    from ..training.evaluate.metrics import not_better_than_constant  # here, as below: that imports PyTorch, which takes a second

    print_lines(console, not_better_than_constant(metrics))


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Lines as they are, without control characters: neither coloured nor wrapped."""
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def metrics_sheet(title: str, metrics: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """One row a task: its metrics, role, GAUC and weighted ones where there are any; intervals below the numbers."""
    entries = metrics.values()
    role = any("role" in entry for entry in entries)
    more = {"gauc": "GAUC", "weighted_auc": "weighted AUC", "weighted_log_loss": "weighted log loss"}
    more = {name: title for name, title in more.items() if any(name in entry for entry in entries)}
    columns = {"task": False, **({"role": False} if role else {}), "rows": True, "positives": True, "AUC": True, "log loss": True}
    sheet = Sheet(title, columns | {"calibration": True} | dict.fromkeys(more.values(), True))
    for task, entry in metrics.items():
        counts = [f"{entry['rows']:,}", f"{entry['positives']:,}"]
        values = [_with_interval(entry, name) for name in ("auc", "log_loss", "calibration", *more)]
        sheet.add(task, *([entry["role"]] if role else []), *counts, *values)
    return sheet


def ranking_sheet(metrics: Mapping[str, Mapping[str, Any]]) -> Sheet | None:
    """One row a task: how its groups are ranked, and how many hold both classes; None without groups."""
    from ..training.evaluate.ranking import title_of

    names = {name: title for entry in metrics.values() for name in entry if (title := title_of(name)) and name != "gauc"}
    if not names:
        return None
    sheet = Sheet("Within groups that hold both classes", {"task": False, "groups": True, "of": True} | dict.fromkeys(names.values(), True))
    for task, entry in metrics.items():
        counts = f"{entry['groups'] - entry['groups_undefined']:,}", f"{entry['groups']:,}"
        sheet.add(task, *counts, *(_with_interval(entry, name) for name in names))
    return sheet


def segments_sheet(field: str, entries: Sequence[Mapping[str, Any]]) -> Sheet:
    """One row for each segment of a field and task, see :func:`dcrnn_fast.training.evaluate.segments.metrics_by`."""
    means = {"label_mean": "label mean", "prediction_mean": "predicted"}
    numbers = means | {"calibration": "calibration", "log_loss": "log loss", "auc": "AUC"}
    sheet = Sheet(f"By {field}", {field: False, "task": False, "rows": True} | dict.fromkeys(numbers.values(), True))
    for entry in entries:
        value = f"({entry['values']:,} others)" if entry["value"] is None else _short(entry["value"])
        for task, metrics in entry["metrics"].items():
            sheet.add(value, task, f"{metrics['rows']:,}", *(_with_interval(metrics, name) for name in numbers))
            value = ""
    return sheet


def importance_sheet(falls: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """One row for each input, those that bring most to a task first; intervals below the numbers."""
    tasks = list(next(iter(falls.values())))
    sheet = Sheet("Fall of the AUC when an input is shuffled among the rows", {"input": False, **dict.fromkeys(tasks, True)})
    for name, of_tasks in sorted(falls.items(), key=lambda item: -max(item[1].values(), default=0.0)):
        sheet.add(name, *(_with_interval({task: of_tasks[task], "intervals": intervals[name]}, task) for task in tasks))
    return sheet


def _short(value: str) -> str:
    """A category as a table shows it: in one line, and no more than fits."""
    value = printable(value).replace("\n", "\\n")
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 3]}..."


def _with_interval(entry: Mapping[str, Any], name: str) -> str:
    interval = entry.get("intervals", {}).get(name)
    return number(entry[name]) + (f"\n{number(interval[0])}-{number(interval[1])}" if interval else "")


def number(value: float | None) -> str:
    """Four decimals, or ``undefined``."""
    return "undefined" if value is None else f"{value:.4f}"


def print_report(console: Console, report: Mapping[str, Any]) -> None:
    """The tables of a report of :func:`dcrnn_fast.data.data_report`, and below them its warnings."""
    print_lines(console, [rows_line(report["name"], report["rows"])])
    for make in (labels_sheet, fields_sheet, dense_sheet, groups_sheet, features_sheet):
        if sheet := make(report):
            print_lines(console, [""])
            print_sheet(console, sheet)
    print_lines(console, ["", *([f"warning: {line}" for line in report["warnings"]] or ["No warnings."])])


def rows_line(name: str, rows: Mapping[str, int]) -> str:
    """How many rows each split of a data set has."""
    return f"{name}: {', '.join(f'{count:,} {split}' for split, count in rows.items())} rows"


def labels_sheet(report: Mapping[str, Any]) -> Sheet:
    """One row a task and split."""
    numbers = dict.fromkeys(("rows", "positives", "base rate", "constant log loss"), True)
    sheet = Sheet("Labels", {"task": False, "split": False} | numbers)
    for task, by_split in report["tasks"].items():
        for split, found in by_split.items():
            counts = (f"{found['rows']:,}", f"{found['positives']:,}")
            sheet.add(task, split, *counts, _value_or_dash(found["base_rate"]), _value_or_dash(found["constant_log_loss"]))
    return sheet


def fields_sheet(report: Mapping[str, Any]) -> Sheet:
    """One row a field: its ids, the shares that are out of vocabulary and missing in each split, and the strength of OOV dropout."""
    columns = [(kind, split) for kind in ("oov", "missing") for split in report["rows"]]
    numbers = {f"{'OOV' if kind == 'oov' else kind} {split}": True for kind, split in columns}
    title = "Fields: embeddings, and shares of the rows that are out of vocabulary (OOV) and missing; -: cannot be told"
    sheet = Sheet(title, {"field": False, "kind": False, "ids": True} | numbers | {"OOV dropout": True})
    for name, found in report["fields"].items():
        shares = [_share(found[kind][split]) for kind, split in columns]
        sheet.add(name, found["kind"], f"{found['ids']:,}", *shares, f"{found['oov_dropout']:.3g}" if "oov_dropout" in found else "-")
    return sheet


def dense_sheet(report: Mapping[str, Any]) -> Sheet | None:
    """One row a dense column and split; None without dense columns."""
    names = ("mean", "std", "min", "max")
    sheet = Sheet("Dense columns, scaled", {"column": False, "split": False} | dict.fromkeys(names, True))
    for column, by_split in report["dense"].items():
        for split, found in by_split.items():
            sheet.add(column, split, *(_value_or_dash(found[name]) for name in names))
    return sheet if report["dense"] else None


def groups_sheet(report: Mapping[str, Any]) -> Sheet | None:
    """One row a split: its groups, and the share of them that hold both classes of each task; None without a group column."""
    if report["groups"] is None:
        return None
    tasks = list(report["tasks"])
    numbers = dict.fromkeys(("groups", "mean rows", "rows without", *tasks), True)
    sheet = Sheet("GAUC groups, and the share of them that hold both classes of a task", {"split": False} | numbers)
    for split, found in report["groups"].items():
        mean = "-" if found["mean_rows"] is None else f"{found['mean_rows']:.1f}"
        shares = (_share(found["both_classes"][task]) for task in tasks)
        sheet.add(split, f"{found['groups']:,}", mean, f"{found['rows_without_group']:,}", *shares)
    return sheet


def features_sheet(report: Mapping[str, Any]) -> Sheet | None:
    """The features that alone rank each task best; None if no task has enough labels."""
    columns = {"task": False, "column": False, "as": False, "split": False, "AUC": True}
    sheet = Sheet("Best single features on held-out rows", columns)
    for task, found in report["single_feature_auc"].items():
        features = [(auc, name, kind) for kind in ("fields", "dense") for name, auc in (found or {kind: {}})[kind].items()]
        for auc, name, kind in sorted(features, reverse=True)[:BEST]:
            sheet.add(task, name, kind.removesuffix("s"), found["split"], f"{auc:.4f}")
    return sheet if sheet.rows else None


def _value_or_dash(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 4) + 0.0:.4f}"  # The sum makes a zero of a negative zero.


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
