"""Runs as one page of HTML, which opens without a network, :func:`write_report`; and how they differ, in numbers: :func:`compare`."""

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
from .evaluate import OpenRun, importance_of, open_run, predictions_of
from .metrics import NAMES, Array, bootstrap_intervals, not_better_than_constant, paired_intervals, with_constant
from .plots import plain, reliability_plot, svg_bytes
from .predict import metrics_of

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


class _Seen(NamedTuple):
    """A run, what it predicts for the rows of a split, and their labels by name."""

    name: str
    opened: OpenRun
    results: dict[str, Any]
    predicted: dict[str, Array]
    labels: dict[str, Array]
    metrics: dict[str, dict[str, Any]]


def write_report(
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    data: Any = None,
    split: str = "test",
    device: str | None = None,
    backend: str | None = None,
    as_served: bool = False,
    progress: Progress = no_progress,
) -> None:
    """Write what the first run is and how good it is, and how the others compare, as one HTML file without scripts.

    Args:
        runs: the folders of finished runs.
        output: the .html file to write.
        data, split, device, backend, as_served, progress: as :func:`.evaluate.evaluate` takes them, for each run. A run of a table in
            memory needs ``data``.

    The page has the metrics beside the constant's with 95% intervals (:mod:`.metrics`), learning curves, reliability plots, and by how
    much a task's AUC falls when one input is shuffled among the rows. Raises DcrnnFastError as :func:`.evaluate.evaluate` does, and
    ConfigError for runs whose rows have other labels.
    """
    path = output_path("output", output, ".html")
    first, *others = _see_all(runs, split, as_served=as_served, data=data, device=device, backend=backend, progress=progress)
    title = f"{first.results['data']['name']}: {first.name}"
    reliability = reliability_plot("", first.predicted, first.labels)
    falls, counted = importance_of(first.opened, split)
    parts = [
        *_about(first, split, as_served=as_served),
        "<h2>Metrics</h2>",
        _metrics_table(first),
        *_comparison(first, others),
        *_curves(first.opened.folder.curves),
        "<h2>Calibration</h2>",
        _picture(reliability, "reliability plots and counts of predictions"),
        "<h2>What the predictions rest on</h2>",
        f"<p>By how much the AUC falls when one input is shuffled among {counted:,} rows. Inputs that say the same share it.</p>",
        _picture(importance_plot(falls), "importance of inputs"),
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
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The metrics of runs on the same rows, and how they differ from the first run's. Arguments and errors are those of a report.

    Returns ``data``, its name; ``split``; and ``runs``: of each the ``name``, the ``metrics``, by task and metric the ``differences`` from
    the first, each with its ``value`` and 95% ``interval``, and the ``warnings``, such as a field that is lost in these rows.
    """
    first, *others = seen = _see_all(
        runs, split, least=2, as_served=as_served, data=data, device=device, backend=backend, progress=progress
    )
    differences = [{}, *(_differences(first, run) for run in others)]
    found = [
        {"name": run.name, "metrics": run.metrics, "differences": of_run, "warnings": _warnings(run, split)}
        for run, of_run in zip(seen, differences, strict=True)
    ]
    return {"data": first.opened.dataset.meta.name, "split": split, "runs": found}


def _see_all(runs: Sequence[str | Path], split: str, *, least: int = 1, as_served: bool = False, **options: Any) -> list[_Seen]:
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
    first, *others = seen = [_see(name, run, split, as_served=as_served) for name, run in zip(names, opened, strict=True)]
    for other in others:
        common = first.labels.keys() & other.labels.keys()
        if not common or not all(np.array_equal(first.labels[name], other.labels[name], equal_nan=True) for name in common):
            raise ConfigError(f"{other.name} and {first.name} have other {split} rows or no task in common; compare runs of the same rows")
    return seen


def _see(name: str, opened: OpenRun, split: str, *, as_served: bool) -> _Seen:
    results, meta, rows = opened.folder.read_metrics(), opened.dataset.meta, opened.dataset.split(split)
    predicted, rates = predictions_of(opened, split, as_served=as_served)
    metrics = metrics_of(predicted, rows, meta, weighted=opened.config.loss.sample_weight)
    events = event_labels(np.asarray(rows.labels), meta.tasks, funnel=meta.funnel)
    return _Seen(name, opened, results, predicted, {task: events[task] for task in metrics}, with_constant(metrics, rates))


def _about(seen: _Seen, split: str, *, as_served: bool) -> Iterable[str]:
    results, meta = seen.results, seen.opened.dataset.meta
    train, model, rows = results["train"], results["model"], len(seen.opened.dataset.split(split))
    counts = ", ".join(f"{count:,} {name}" for name, count in results["data"]["rows"].items() if count)
    yield f"<p>DCRNN for {escape(', '.join(meta.tasks))}, {model['parameters']:,} parameters, relation {escape(model['relation'])}. "
    yield f"{counts} rows; this page is of {rows:,} {split} rows. "
    yield f"Trained for {train['steps']:,} steps in {train['seconds']:,.0f} s on {escape(model['device'])}. "
    yield f"The run ended, as {escape(train['stopped'])}. "
    yield f"It keeps the weights evaluated at step {train['best_step']:,}. The probabilities are "
    yield (
        "those that <code>predict</code> gives.</p>"
        if as_served
        else "the model's own, on rows sampled like the run's, not calibrated.</p>"
    )
    warnings = [line.removeprefix("warning: ") for line in not_better_than_constant(seen.metrics)]
    yield from (f"<p><strong>Warning:</strong> {escape(line)}.</p>" for line in [*warnings, *_warnings(seen, split)])


def _warnings(seen: _Seen, split: str) -> list[str]:
    return evaluation_warnings(seen.opened.about, seen.opened.dataset, split, seen.metrics)


def _metrics_table(seen: _Seen) -> str:
    heads = ["", "rows", "positives", "AUC", "log loss", "the constant's log loss", "calibration"]
    gauc = any("gauc" in entry for entry in seen.metrics.values())
    rows = []
    for name, entry in seen.metrics.items():
        intervals = bootstrap_intervals(seen.labels[name], seen.predicted[name], RESAMPLES, progress=seen.opened.progress)
        cells = [escape(name), f"{entry['rows']:,}", f"{entry['positives']:,}", _number(entry["auc"], intervals["auc"])]
        cells += [_number(entry["log_loss"], intervals["log_loss"]), _number(entry["constant_log_loss"])]
        rows.append([*cells, _number(entry["calibration"], intervals["calibration"]), *([_number(entry["gauc"])] if gauc else [])])
    note = "<p>Small: 95% intervals, of rows that count as independent. Calibration is the mean prediction over the mean label.</p>"
    return _table([*heads, *(["GAUC"] if gauc else [])], rows) + note


def _curves(path: Path) -> Iterable[str]:
    if path.is_file():  # no result needs it
        yield "<h2>Learning curves</h2>"
        yield _picture(path.read_bytes(), "learning curves")


def _comparison(first: _Seen, others: Sequence[_Seen]) -> Iterable[str]:
    if not others:
        return
    yield f"<h2>Other runs, less {escape(first.name)}</h2>"
    rows = []
    for other in others:
        for name, found in _differences(first, other).items():
            cells = [_number(found[metric]["value"], found[metric]["interval"], "+") for metric in ("auc", "log_loss")]
            rows.append([escape(f"{other.name}: {name}"), *cells])
    yield _table(["", "AUC", "log loss"], rows)
    yield "<p>Small: 95% intervals of the differences, in the same resamples of the rows. One that holds 0 does not show a difference.</p>"


def _differences(first: _Seen, other: _Seen) -> dict[str, dict[str, dict[str, Any]]]:
    """By task that both have and metric, the value of ``other`` less that of ``first``, and its interval."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task in (task for task in first.metrics if task in other.metrics):
        predicted = other.predicted[task], first.predicted[task]
        intervals = paired_intervals(first.labels[task], *predicted, RESAMPLES, progress=first.opened.progress)
        both = {name: (other.metrics[task][name], first.metrics[task][name]) for name in NAMES}
        found[task] = {key: {"value": None if None in two else two[0] - two[1], "interval": intervals[key]} for key, two in both.items()}
    return found


def _picture(svg: bytes, what: str) -> str:
    """As data: two pictures in one page may use the same names inside."""
    return f'<img alt="{what}" src="data:image/svg+xml;base64,{b64encode(svg).decode()}">'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        f"<tr>{''.join(f'<th>{cell}</th>' for cell in heads)}</tr>",
        *(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows),
    ]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _number(value: float | None, interval: Sequence[float] | None = None, sign: str = "") -> str:
    small = f"<small>{interval[0]:{sign}.4f} to {interval[1]:{sign}.4f}</small>" if interval else ""
    return ("-" if value is None else f"{value:{sign}.4f}") + small


def importance_plot(falls: Mapping[str, Mapping[str, float]]) -> bytes:
    """The inputs that bring most to any task, as bars in an SVG."""
    tasks = list(next(iter(falls.values())))
    names = sorted(falls, key=lambda name: max(falls[name].values(), default=0.0))[-MOST:]

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, max(1, len(tasks)), squeeze=False, sharey=True)[0]
        for panel, task in zip(panels, tasks, strict=False):
            panel.barh(range(len(names)), [falls[name][task] for name in names])
            panel.set_yticks(range(len(names)), [plain(name) for name in names])
            panel.set(title=plain(task), xlabel="fall of the AUC")

    return svg_bytes((2.5 + 3.2 * max(1, len(tasks)), 1.4 + 0.28 * len(names)), draw)
