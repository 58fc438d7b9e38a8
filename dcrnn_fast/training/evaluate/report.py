"""Runs as one page of HTML, which opens without a network, :func:`write_report`; how they differ, in numbers: :func:`compare`; and what a
run gives back, which a notebook shows as a table: :class:`Result`."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...data.encoder.memory import arrow_table
from ...data.inspect.base_rates import event_labels
from ...data.packed.arrays import Progress, no_progress
from ...errors import ConfigError, shown
from ...support.files import output_path, writing_output
from ..data import evaluation_warnings, is_table
from .calibration_file import read_calibration
from .evaluate import ROWS, OpenRun, importance_of, open_run, predictions_of
from .metrics import Array, bootstrap_intervals, not_better_than_constant, with_constant
from .plots import plain, reliability_plot, svg_bytes
from .predict import metrics_of
from .ranking import K, check_k, names_of, ranking_intervals, title_of

RESAMPLES = 500
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } div.wide { overflow-x: auto }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top }
th:first-child, td:first-child { text-align: left }
small { color: #666; display: block; white-space: nowrap } img { max-width: 100%; height: auto }
"""
MOST = 20
"""Inputs that the picture of their importance shows."""


class Result(dict[str, Any]):
    """What ``metrics.json`` holds but its digest: ``test`` and ``valid`` (metrics by task), ``train``, ``model``, ``data``, ``config``.

    >>> metrics = {"click": {"auc": 0.75, "log_loss": 0.5, "constant_log_loss": None}}
    >>> about = {"best_step": 9, "steps": 20, "stopped": "all epochs are trained"}
    >>> print(Result(valid=metrics, test={}, train=about, data={"name": "shop"})._repr_html_())  # doctest: +ELLIPSIS
    <div class="wide"><table>...<tr><td>click</td><td>0.7500</td><td>0.5000</td><td>-</td></tr></table></div>
    """

    def _repr_html_(self) -> str:
        splits = [split for split in ("valid", "test") if self[split]]
        heads = [f"{split}: {name}" for split in splits for name in ("AUC (the constant has 0.5)", "log loss", "the constant's log loss")]
        rows = []
        for task in self["valid"]:
            found = [self[split].get(task, {}).get(name) for split in splits for name in ("auc", "log_loss", "constant_log_loss")]
            rows.append([escape(task), *("-" if value is None else f"{value:.4f}" for value in found)])
        at = self["train"]
        about = f"{self['data']['name']}: the weights of step {at['best_step']} of {at['steps']} are kept; "
        about += f"the run ended, as {at['stopped']}"
        return _table(["task", *heads], rows, escape(about))


class _Seen(NamedTuple):
    """A run, what it predicts for the rows of a split, and their labels by name."""

    name: str
    opened: OpenRun
    results: dict[str, Any]
    predicted: dict[str, Array]
    labels: dict[str, Array]
    group: Any
    metrics: dict[str, dict[str, Any]]
    served: bool
    """Whether the predictions are those that ``predict`` gives."""


def write_report(
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    data: Any = None,
    split: str = "test",
    device: str | None = None,
    backend: str | None = None,
    as_served: bool | None = None,
    k: int = K,
    progress: Progress = no_progress,
) -> None:
    """Write what the first run is and how good it is, and how the others compare, as one HTML file without scripts.

    Args:
        runs: the folders of finished runs.
        output: the .html file to write.
        data, split, device, backend, k, progress: as :func:`.evaluate.evaluate` takes them, for each run. A run of a table in memory needs
            ``data``.
        as_served: likewise; None shows what ``predict`` gives if a run is calibrated, and the first run's own probabilities too.

    The page has the metrics next to the constant's with 95% intervals (:mod:`.metrics`, :mod:`.ranking`), learning curves, reliability
    plots, and by how much a task's AUC falls when one input is shuffled among the rows. Raises DcrnnFastError as
    :func:`.evaluate.evaluate` does, and ConfigError for runs whose rows have other labels.
    """
    path = output_path("output", output, ".html")
    first, *others = _see_all(runs, split, k=k, as_served=as_served, data=data, device=device, backend=backend, progress=progress)
    own = [_see(first.name, first.opened, split, k=k, as_served=False)] if as_served is None and first.served else []
    title = f"{first.results['data']['name']}: {first.name}"
    pictures = [
        _picture(reliability_plot("", seen.predicted, seen.labels), "reliability plots and counts of predictions") for seen in (first, *own)
    ]
    run, rows, curves = first.opened, first.opened.dataset.split(split), first.opened.folder.curves
    falls, intervals = importance_of(run.model, rows, run.dataset.meta, run.device, run.config.threads, progress)
    parts = [
        *_about(first, split),
        "<h2>Metrics</h2>",
        _metrics_table([first, *own], k),
        *_comparison(first, others, k),
        *(["<h2>Learning curves</h2>", _picture(curves.read_bytes(), "learning curves")] if curves.is_file() else []),  # no result needs it
        "<h2>Calibration</h2>",
        "<p>Before calibration:</p>".join(pictures),
        "<h2>What the predictions rest on</h2>",
        f"<p>By how much the AUC falls when one input is shuffled among {min(ROWS, len(rows)):,} rows. Inputs that say the same share it. "
        "Lines: 95% intervals, of rows that count as independent.</p>",
        _picture(importance_plot(falls, intervals), "importance of inputs"),
    ]
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head>'
    page = f"{head}<body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    with writing_output("output", path) as beside:
        beside.write_text(page, encoding="utf-8")


def compare(
    runs: Sequence[str | Path],
    *,
    data: Any = None,
    split: str = "test",
    device: str | None = None,
    backend: str | None = None,
    as_served: bool = False,
    k: int = K,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The metrics of runs on the same rows, and how they differ from the first run's. Arguments and errors are those of a report.

    Returns ``data``, its name; ``split``; and ``runs``: of each the ``name``, the ``metrics``, by task and metric the ``differences`` from
    the first, each with its ``value`` and 95% ``interval``, and the ``warnings``, such as a field that is lost in these rows.
    """
    first, *others = seen = _see_all(
        runs, split, least=2, k=k, as_served=as_served, data=data, device=device, backend=backend, progress=progress
    )
    differences = [{}, *(_differences(first, run, k) for run in others)]
    found = [
        {"name": run.name, "metrics": run.metrics, "differences": of_run, "warnings": _warnings(run, split)}
        for run, of_run in zip(seen, differences, strict=True)
    ]
    return {"data": first.opened.dataset.meta.name, "split": first.opened.dataset.split(split).name, "runs": found}


def _see_all(runs: Sequence[str | Path], split: str, *, k: int, as_served: bool | None, least: int = 1, **options: Any) -> list[_Seen]:
    check_k(k)
    if isinstance(runs, (str, bytes)) or not isinstance(runs, Sequence):
        raise ConfigError(f"runs={shown(runs)}: expected a sequence of run folders")
    if len(runs) < least:
        raise ConfigError(f"runs: got {len(runs)}, expected at least {least} run folders{'; `evaluate` is for one' if runs else ''}")
    if is_table(data := options["data"]) and not isinstance(data, (str, os.PathLike)):
        options["data"] = arrow_table(data, "data")  # a stream could be read for the first run alone
    opened = [open_run(run, split=split, **options) for run in runs]
    names = [run.folder.root.resolve().name for run in opened]
    if len(set(names)) < len(names):
        names = [str(run.folder.root) for run in opened]
    if as_served is None:
        as_served = any(read_calibration(run.folder.calibration, run.about, run.weights) for run in opened)
    first, *others = seen = [_see(name, run, split, k=k, as_served=as_served) for name, run in zip(names, opened, strict=True)]
    for other in others:
        common = first.labels.keys() & other.labels.keys()
        if not common or not all(np.array_equal(first.labels[name], other.labels[name], equal_nan=True) for name in common):
            raise ConfigError(f"{other.name} and {first.name} have other {split} rows or no task in common; compare runs of the same rows")
    return seen


def _see(name: str, opened: OpenRun, split: str, *, k: int, as_served: bool) -> _Seen:
    results, meta, rows = opened.folder.read_metrics(), opened.dataset.meta, opened.dataset.split(split)
    predicted, rates = predictions_of(opened, split, as_served=as_served)
    metrics = metrics_of(predicted, rows, meta, weighted=opened.config.loss.sample_weight, k=k)
    events = event_labels(np.asarray(rows.labels), meta.tasks, funnel=meta.funnel)
    labels = {task: events[task] for task in metrics}
    return _Seen(name, opened, results, predicted, labels, rows.group, with_constant(metrics, rates), as_served)


def _about(seen: _Seen, split: str) -> Iterable[str]:
    results, meta = seen.results, seen.opened.dataset.meta
    train, model, rows = results["train"], results["model"], seen.opened.dataset.split(split)
    counts = ", ".join(f"{count:,} {name}" for name, count in results["data"]["rows"].items() if count)
    yield f"<p>DCRNN for {escape(', '.join(meta.tasks))}, {model['parameters']:,} parameters, relation {escape(model['relation'])}. "
    yield f"{counts} rows; this page is of {len(rows):,} {rows.name} rows. "
    yield f"Trained for {train['steps']:,} steps in {train['seconds']:,.0f} s on {escape(model['device'])}. "
    yield f"The run ended, as {escape(train['stopped'])}. "
    yield f"It keeps the weights evaluated at step {train['best_step']:,}. The probabilities are "
    yield (
        "those that <code>predict</code> gives.</p>"
        if seen.served
        else "the model's own, on rows sampled like the run's, not calibrated.</p>"
    )
    warnings = [line.removeprefix("warning: ") for line in not_better_than_constant(seen.metrics)]
    yield from (f"<p><strong>Warning:</strong> {escape(line)}.</p>" for line in [*warnings, *_warnings(seen, split)])


def _warnings(seen: _Seen, split: str) -> list[str]:
    return evaluation_warnings(seen.opened.about, seen.opened.dataset, split, seen.metrics)


def _metrics_table(several: Sequence[_Seen], k: int) -> str:
    """The metrics of a run, and of the same run before its calibration."""
    heads = ["", "rows", "positives", "AUC", "log loss", "the constant's log loss", "calibration"]
    grouped = () if several[0].group is None else names_of(k)
    rows = []
    for seen, name in ((one, name) for one in several for name in one.metrics):
        entry = seen.metrics[name]
        intervals = bootstrap_intervals(seen.labels[name], seen.predicted[name], RESAMPLES, progress=seen.opened.progress)
        intervals |= ranking_intervals(seen.labels[name], seen.predicted[name], seen.group, k, RESAMPLES)
        shown = name if seen.served or len(several) == 1 else f"{name}, before calibration"
        cells = [escape(shown), f"{entry['rows']:,}", f"{entry['positives']:,}", _number(entry["auc"], intervals["auc"])]
        cells += [_number(entry["log_loss"], intervals["log_loss"]), _number(entry["constant_log_loss"])]
        rows.append([*cells, *(_number(entry[at], intervals[at]) for at in ("calibration", *grouped))])
    note = "<p>Small: 95% intervals, of rows that count as independent. Calibration is the mean prediction over the mean label."
    for name, entry in several[0].metrics.items() if grouped else ():
        note += f" {escape(name)}: {entry['groups_undefined']:,} of {entry['groups']:,} groups hold one class alone and do not count."
    return _table([*heads, *(title_of(name) or "" for name in grouped)], rows) + note + "</p>"


def _comparison(first: _Seen, others: Sequence[_Seen], k: int) -> Iterable[str]:
    if not others:
        return
    yield f"<h2>Other runs, less {escape(first.name)}</h2>"
    rows, grouped = [], () if first.group is None else names_of(k)
    for other in others:
        for name, found in _differences(first, other, k).items():
            cells = [_number(found[metric]["value"], found[metric]["interval"], "+") for metric in ("auc", "log_loss", *grouped)]
            rows.append([escape(f"{other.name}: {name}"), *cells])
    yield _table(["", "AUC", "log loss", *(title_of(name) or "" for name in grouped)], rows)
    yield "<p>Small: 95% intervals of the differences, in the same resamples. One that holds 0 does not show a difference.</p>"


def _differences(first: _Seen, other: _Seen, k: int) -> dict[str, dict[str, dict[str, Any]]]:
    """By task that both have and metric, the value of ``other`` less that of ``first``, and its interval."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task in (task for task in first.metrics if task in other.metrics):
        labels, predicted, before = first.labels[task], other.predicted[task], first.predicted[task]
        intervals = bootstrap_intervals(labels, predicted, RESAMPLES, other=before, progress=first.opened.progress)
        intervals |= ranking_intervals(labels, predicted, first.group, k, RESAMPLES, other=before)
        both = {name: (other.metrics[task][name], first.metrics[task][name]) for name in intervals}
        found[task] = {key: {"value": None if None in two else two[0] - two[1], "interval": intervals[key]} for key, two in both.items()}
    return found


def _picture(svg: bytes, what: str) -> str:
    """As data: two pictures in one page may use the same names inside."""
    return f'<img alt="{what}" src="data:image/svg+xml;base64,{b64encode(svg).decode()}">'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    lines = [
        f"<caption>{caption}</caption>" if caption else "",
        f"<tr>{''.join(f'<th>{cell}</th>' for cell in heads)}</tr>",
        *(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows),
    ]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _number(value: float | None, interval: Sequence[float] | None = None, sign: str = "") -> str:
    small = f"<small>{interval[0]:{sign}.4f} to {interval[1]:{sign}.4f}</small>" if interval else ""
    return ("-" if value is None else f"{value:{sign}.4f}") + small


def importance_plot(falls: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The inputs that bring most to any task, as bars in an SVG, with the intervals as lines."""
    tasks = list(next(iter(falls.values())))
    names = sorted(falls, key=lambda name: max(falls[name].values(), default=0.0))[-MOST:]

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, max(1, len(tasks)), squeeze=False, sharey=True)[0]
        for panel, task in zip(panels, tasks, strict=False):
            panel.barh(range(len(names)), [falls[name][task] for name in names])
            panel.hlines(
                range(len(names)), *zip(*(intervals[name][task] or (np.nan, np.nan) for name in names), strict=True), color="black"
            )
            panel.set_yticks(range(len(names)), [plain(name) for name in names])
            panel.locator_params(axis="x", nbins=4)
            panel.set(title=plain(task), xlabel="fall of the AUC")

    return svg_bytes((2.5 + 3.2 * max(1, len(tasks)), 1.4 + 0.28 * len(names)), draw)
