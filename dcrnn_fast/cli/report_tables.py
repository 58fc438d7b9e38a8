"""The data report of ``dcrnn-fast inspect`` as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from .result_tables import Sheet, print_lines, print_sheet

BEST = 5
"""Features that the table of single features shows of each task."""


def print_report(console: Console, report: Mapping[str, Any]) -> None:
    """The tables of a report of :func:`dcrnn_fast.data.data_report`, and below them its warnings."""
    rows = ", ".join(f"{count:,} {split}" for split, count in report["rows"].items())
    print_lines(console, [f"{report['name']}: {rows} rows"])
    for make in (labels_sheet, fields_sheet, dense_sheet, groups_sheet, features_sheet):
        if sheet := make(report):
            print_lines(console, [""])
            print_sheet(console, sheet)
    print_lines(console, ["", *([f"warning: {line}" for line in report["warnings"]] or ["No warnings."])])


def labels_sheet(report: Mapping[str, Any]) -> Sheet:
    """One row a task and split."""
    numbers = dict.fromkeys(("rows", "positives", "base rate", "constant log loss"), True)
    sheet = Sheet("Labels", {"task": False, "split": False} | numbers)
    for task, by_split in report["tasks"].items():
        for split, of in by_split.items():
            sheet.add(task, split, f"{of['rows']:,}", f"{of['positives']:,}", _number(of["base_rate"]), _number(of["constant_log_loss"]))
    return sheet


def fields_sheet(report: Mapping[str, Any]) -> Sheet:
    """One row a field: its ids, and the shares that are out of vocabulary and missing in each split."""
    columns = [(kind, split) for kind in ("oov", "missing") for split in report["rows"]]
    numbers = {f"{'OOV' if kind == 'oov' else kind} {split}": True for kind, split in columns}
    title = "Fields: embeddings, and shares of the rows that are out of vocabulary (OOV) and missing; -: cannot be told"
    sheet = Sheet(title, {"field": False, "kind": False, "ids": True} | numbers)
    for field, of in report["fields"].items():
        sheet.add(field, of["kind"], f"{of['ids']:,}", *(_share(of[kind][split]) for kind, split in columns))
    return sheet


def dense_sheet(report: Mapping[str, Any]) -> Sheet | None:
    """One row a dense column and split; None without dense columns."""
    names = ("mean", "std", "min", "max")
    sheet = Sheet("Dense columns, scaled", {"column": False, "split": False} | dict.fromkeys(names, True))
    for column, by_split in report["dense"].items():
        for split, of in by_split.items():
            sheet.add(column, split, *(_number(of[name]) for name in names))
    return sheet if report["dense"] else None


def groups_sheet(report: Mapping[str, Any]) -> Sheet | None:
    """One row a split: its groups, and the share of them that hold both classes of each task; None without a group column."""
    if report["groups"] is None:
        return None
    tasks = list(report["tasks"])
    numbers = dict.fromkeys(("groups", "mean rows", "rows without", *tasks), True)
    sheet = Sheet("GAUC groups, and the share of them that hold both classes of a task", {"split": False} | numbers)
    for split, of in report["groups"].items():
        mean = "-" if of["mean_rows"] is None else f"{of['mean_rows']:.1f}"
        shares = (_share(of["both_classes"][task]) for task in tasks)
        sheet.add(split, f"{of['groups']:,}", mean, f"{of['rows_without_group']:,}", *shares)
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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 4) + 0.0:.4f}"  # The sum makes a zero of a negative zero.


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
