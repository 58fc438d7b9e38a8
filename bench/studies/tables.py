"""The tables of the studies, from the rows of their files in bench/results/. Differences are paired by seed with the first setting's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import results

Row = Mapping[str, Any]
Table = tuple[Sequence[str], list[list[str]]]
"""A header and lines."""


def grouped(rows: Iterable[Row], *columns: str) -> dict[Any, list[Row]]:
    """The rows by the values of some columns (of one column: by its value), in the order in which the values come; sorted by seed."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[column] for column in columns)
        found.setdefault(key if len(columns) > 1 else key[0], []).append(row)
    return {key: sorted(own, key=lambda row: row["seed"]) for key, own in found.items()}


def standard_error(values: Sequence[float]) -> float:
    """That of the mean; NaN of one value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def beside(own: Mapping[int, float], others: Mapping[int, float]) -> str:
    """The mean of the values on the seeds that both have; in brackets mean and standard error of the differences from the others."""
    seeds = sorted(own.keys() & others.keys())
    if not seeds:
        return "not measured"
    mean, apart = statistics.fmean(own[seed] for seed in seeds), [own[seed] - others[seed] for seed in seeds]
    if not any(apart):
        return f"{mean:.4f}"
    around = f" ± {standard_error(apart):.4f}" if len(apart) > 1 else ""
    return f"{mean:.4f} ({statistics.fmean(apart):+.4f}{around})"


def by_set(rows: Sequence[Row], first: str) -> Table:
    """A line for each setting: test AUC on each set, mean of the tasks."""
    by_case, sets, lines = grouped(rows, "setting", "data"), list(grouped(rows, "data")), []
    aucs = {
        case: {row["seed"]: statistics.fmean(found["auc"] for found in row["test"].values()) for row in own}
        for case, own in by_case.items()
    }
    for setting in grouped(rows, "setting"):
        lines.append([setting, *(beside(aucs.get((setting, data), {}), aucs.get((first, data), {})) for data in sets)])
    return ["setting", *sets], lines


def by_task(rows: Sequence[Row], first: str) -> Table:
    """A line for each task of each set: test AUC with each setting. And a line for the seconds."""
    settings, lines = list(grouped(rows, "setting")), []
    for data, of_data in grouped(rows, "data").items():
        own = grouped(of_data, "setting")
        for task in of_data[0]["test"]:
            aucs = {setting: {row["seed"]: row["test"][task]["auc"] for row in own.get(setting, [])} for setting in settings}
            lines.append([f"{data}: {task}", *(beside(aucs[setting], aucs[first]) for setting in settings)])
        spent = [[row["seconds"] for row in own.get(setting, [])] for setting in settings]
        lines.append([f"{data}: seconds", *(f"{statistics.median(found):.0f}" if found else "not measured" for found in spent)])
    return ["log", *settings], lines


def relative(row: Row) -> list[float]:
    """Each task's log loss over the constant's."""
    return [scores["log_loss"] / scores["constant_log_loss"] for scores in row["valid"].values()]


def over_constant(rows: Sequence[Row], first: str) -> Table:
    """A line for each setting: on each set log loss over the constant's (AUC), means over tasks and seeds; the mean of the sets; how far
    that is above the first setting's, with the standard error over the seeds; and the runs of which a task is above the constant.
    """
    sets, lines = list(grouped(rows, "data")), []
    whole = {
        case: statistics.fmean(statistics.fmean(relative(row)) for row in own)
        for case, own in grouped(rows, "setting", "seed").items()
        if len(own) == len(sets)
    }
    for setting, own in grouped(rows, "setting").items():
        by_data, cells, losses = grouped(own, "data"), [], []
        for data in sets:
            found = by_data.get(data, [])
            if found:
                losses.append(statistics.fmean(statistics.fmean(relative(row)) for row in found))
                auc = statistics.fmean(scores["auc"] for row in found for scores in row["valid"].values())
            cells.append(f"{losses[-1]:.4f} ({auc:.4f})" if found else "not measured")
        mean = f"{statistics.fmean(losses):.4f}" if len(losses) == len(sets) else "not measured"
        apart = [value - whole[first, seed] for (name, seed), value in whole.items() if name == setting and (first, seed) in whole]
        error = f" ± {standard_error(apart):.4f}" if len(apart) > 1 else ""
        difference = f"{statistics.fmean(apart):+.4f}{error}" if apart and setting != first else ""
        lines.append([setting, *cells, mean, difference, f"{sum(max(relative(row)) >= 1 for row in own)} of {len(own)}"])
    return ["setting", *sets, "mean of the sets", "above the defaults", "runs above the constant"], lines


NOTES = {
    by_set: "Test AUC, mean of the tasks and of {seeds} seeds; in brackets the mean difference from {first}, ± its standard error.",
    by_task: "Test AUC, mean of {seeds} seeds; in brackets the mean difference from {first}, ± its standard error over the seeds.",
    over_constant: "Log loss over the constant's, mean of the tasks (in brackets: mean AUC) on validation rows, mean of {seeds} seeds. "
    "± is the standard error over the seeds. A run is above the constant if the log loss of any task is.",
}
TABLES = {make.__name__: make for make in NOTES}


def section(name: str, study: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """The table of a study as Markdown; below it what it shows."""
    make, rows, first = TABLES[study["table"]], content["rows"], next(iter(study["settings"]))
    note = NOTES[make].format(seeds=len({row["seed"] for row in rows}), first=first)
    return f"{results.markdown(*make(rows, first))}\n\n{note} One thread a run. {results.source(content, f'{name}.json')}"
