"""The tables and the figure of the tasks whose relation is known (:mod:`bench.studies.synthetic_tasks`)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dcrnn_fast.support import files

from .. import machine
from ..drawing import NO_FRAME, drawn_with
from .study import Content, Rows, Table, grouped, standard_error

AGAINST = "dcrnn-rows"
TITLES = {
    "dcrnn-rows": "DCRNN, rows 0.5",
    "dcrnn-trunk": "DCRNN, trunk 0.5",
    "dcrnn-hard": "DCRNN, hard sharing",
    "dcrnn-none": "DCRNN, no sharing",
    "single-task": "a DCRNN for each task",
    "mmoe": "MMoE",
    "ple": "PLE",
    "linear": "logistic regression for each task",
    "best possible": "the score itself",
}
GATE = {"gate": "mean of g", "without the gate": "mean of abs(x0 a)", "update": "mean of abs(g x0 a)"}
COSTS = {"parameters": "parameters", "flops": "FLOPs a row"}


def aucs(rows: Rows, model: str, cosine: float, known: float, task: str | None) -> dict[int, float]:
    """Test AUC by seed: of one task, or the mean of all."""
    of_case = (row for row in rows if "auc" in row and (row["model"], row["cosine"], row["known"]) == (model, cosine, known))
    return {row["seed"]: row["auc"][task] if task else statistics.fmean(row["auc"].values()) for row in of_case}


def difference(rows: Rows, model: str, cosine: float, known: float, task: str | None) -> tuple[float, float]:
    """The mean over the seeds of the model's AUC minus that of ``AGAINST`` on the same draw, and its standard error (NaN for one seed)."""
    ours = aucs(rows, AGAINST, cosine, known, task)
    found = [auc - ours[seed] for seed, auc in aucs(rows, model, cosine, known, task).items()]
    return statistics.fmean(found), standard_error(found)


def present(rows: Rows) -> list[str]:
    """The models that were run, in the order of ``TITLES``."""
    return [model for model in TITLES if any(row["model"] == model for row in rows)]


def comparison(rows: Rows, conditions: Iterable[tuple[float, float]], task: str | None) -> list[list[str]]:
    """A line for each model: in each condition its AUC minus that of ``AGAINST``, whose own line has its AUC."""
    lines = []
    for model in present(rows):
        cells = []
        for condition in conditions:
            if model == AGAINST:
                cells.append(f"{statistics.fmean(aucs(rows, model, *condition, task).values()):.4f}")
            else:
                mean, error = difference(rows, model, *condition, task)
                mark = "**" if abs(mean) > 2 * error else ""
                cells.append(f"{mark}{mean:+.4f}{mark} ({error:.4f})")
        lines.append([TITLES[model], *cells])
    return lines


def gates(rows: Rows, model: str) -> Rows:
    """The rows of a model with the gate's values, in which every label is known."""
    return [row for row in rows if row["model"] == model and "gate" in row and row["known"] == 1]


def gate(rows: Rows) -> list[list[str]]:
    """A line for each DCRNN with all labels: means over all draws of the gate's quantities, for units of signal and of noise columns.

    The last cell is g's mean of noise columns minus that of signal columns, with its standard error over the seeds.
    """
    lines = []
    for model in present(rows):
        if found := gates(rows, model):
            kinds = ("signal", "noise")
            cells = [", ".join(f"{statistics.fmean(row['gate'][part][kind] for row in found):.3f}" for kind in kinds) for part in GATE]
            apart = [
                statistics.fmean(row["gate"]["gate"]["noise"] - row["gate"]["gate"]["signal"] for row in same)
                for same in grouped(found, "seed").values()
            ]
            lines.append([TITLES[model], *cells, f"{statistics.fmean(apart):+.3f} ({standard_error(apart):.3f})"])
    return lines


def growth(rows: Rows, column: str) -> list[list[str]]:
    """A line for each model: the column's value for each number of tasks."""
    return [[TITLES[model], *(f"{row[column]:,}" for row in rows if row["model"] == model)] for model in present(rows)]


def tables(content: Content) -> list[Table]:
    """Headers and lines: AUC by cosine, the second task's AUC by share of known labels, the gate, and costs by number of tasks."""
    study, rows = content["study"], content["rows"]
    columns = [f"cosine {cosine}" for cosine in study["cosines"]]
    made: list[Table] = [(["AUC, mean of both tasks", *columns], comparison(rows, [(cosine, 1.0) for cosine in study["cosines"]], None))]
    if few := _few(study):
        made.append(
            (["AUC, second task", *(f"cosine {cosine}, {known:.0%} known" for cosine, known in few)], comparison(rows, few, "second"))
        )
    made.append((["signal, noise", *GATE.values(), "g: noise minus signal"], gate(rows)))
    numbers = [f"T = {number}" for number in study["tasks"]]
    return made + [([title, *numbers], growth(content["growth"], column)) for column, title in COSTS.items()]


def note(content: Content) -> str:
    draws = len({row["seed"] for row in content["rows"] if "auc" in row})
    return (
        f"First two tables: the line of rows 0.5 has its mean test AUC over {draws} draws. The others have their AUC minus it, paired by "
        "draw, with the standard error in brackets; bold: more than two standard errors from 0. Third table: means over all draws in which "
        "every label is known; first number: signal columns, second: noise columns. Cost tables: the whole model; FLOPs as plain PyTorch "
        "computes the forward pass. Times: not measured."
    )


def _few(study: Content) -> list[tuple[float, float]]:
    """The conditions of the second axis, each cosine's first with all labels."""
    few = [tuple(pair) for pair in study["few"]]
    return [pair for cosine in dict.fromkeys(cosine for cosine, _ in few) for pair in [(cosine, 1.0), *(p for p in few if p[0] == cosine)]]


@drawn_with(**NO_FRAME)
def figure(content: Content, path: Path) -> None:
    """Four panels: AUC against DCRNN with half of its rows shared, by cosine and, at two cosines, by known labels; and the gate."""
    from matplotlib import pyplot

    rows, study = content["rows"], content["study"]
    few = _few(study)
    cosines = list(dict.fromkeys(cosine for cosine, _ in few))
    panels: list[tuple[str, str | None, list[tuple[float, float]], list[str]]] = [
        ("all labels, mean of both tasks", None, [(c, 1.0) for c in study["cosines"]], [f"{c:g}" for c in study["cosines"]])
    ]
    for cosine in cosines:
        of_cosine = [pair for pair in few if pair[0] == cosine]
        panels.append((f"second task, cosine {cosine:g}", "second", of_cosine, [f"{known:.0%}" for _, known in of_cosine]))
    drawn, axes = pyplot.subplots(1, len(panels) + 1, figsize=(3.4 * (len(panels) + 1), 3.9), squeeze=False)
    models = [model for model in present(rows) if model not in ("linear", "best possible")]
    colours = dict(zip(TITLES, pyplot.get_cmap("tab10").colors, strict=False))
    for panel, (title, task, conditions, ticks) in zip(axes[0], panels, strict=False):
        for number, model in enumerate(models):
            found = [difference(rows, model, *condition, task) for condition in conditions]
            xs = [x + (number - len(models) / 2) * 0.05 for x in range(len(found))]
            style = {"color": colours[model], "marker": "o", "markersize": 4, "linewidth": 1, "elinewidth": 1}
            panel.errorbar(xs, [mean for mean, _ in found], yerr=[error for _, error in found], label=TITLES[model], **style)
        panel.set_xticks(range(len(ticks)), ticks)
        panel.set_xlabel("train rows with a known second label" if task else "cosine of the tasks")
        panel.set_title(title, fontsize=9)
        panel.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axes[0][0].set_ylabel("test AUC minus that of rows 0.5")
    _gate_panel(axes[0][-1], rows)
    handles, labels = axes[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, frameon=False, fontsize=8, loc="lower center", ncols=len(models))
    drawn.suptitle(f"Tasks of known relation. {machine.line(content['machine'])}", fontsize=8)
    drawn.tight_layout(rect=(0, 0.07, 1, 1))
    with files.replacing(path) as beside:
        drawn.savefig(beside, format="svg", metadata={"Date": None})
    pyplot.close(drawn)


def _gate_panel(panel: Any, rows: Rows) -> None:
    """A pair of points for each DCRNN: the mean gate of signal and of noise units."""
    models = [model for model in present(rows) if gates(rows, model)]
    for kind, colour in (("signal", "#1b6ca8"), ("noise", "#c8553d")):
        for x, model in enumerate(models):
            found = [row["gate"]["gate"][kind] for row in gates(rows, model)]
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            style = {"fmt": "o", "color": colour, "markersize": 5, "elinewidth": 1}
            panel.errorbar(x, statistics.fmean(found), yerr=spread, label=f"{kind} columns" if x == 0 else None, **style)
    panel.set_xticks(range(len(models)), [model.removeprefix("dcrnn-") for model in models], rotation=20)
    panel.set_title("mean gate after training (bar: std over draws)", fontsize=9)
    panel.legend(frameon=False, fontsize=8)
    panel.grid(axis="y", color="#e5e7eb", linewidth=0.6)
