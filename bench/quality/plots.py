"""Two figures, a panel for each data set: AUC against training rows a second, and AUC against the latency of a request of one row."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import machine
from bench.drawing import NO_FRAME, drawn_with
from dcrnn_fast.support import files

from .models import MODELS

FIGURES = {
    "quality_training.svg": ("training_rows_per_second", "training rows/s"),
    "quality_request.svg": ("request_microseconds", "latency of a request of one row, µs"),
}
MARKERS = "osD^vP"
DIGITS = (1, 2, 5)
"""Of the ticks of the logarithmic axis."""


def points(result: Mapping[str, Any], data: str, column: str) -> dict[str, list[tuple[float, float, float]]]:
    """By model, for each of its sizes from fast to slow: the speed in float32, the mean test AUC of the tasks, and its mean spread."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for speed in result["speeds"]:
        x = speed.get("float32", {}).get(column)
        rows = [row for row in result["rows"] if all(row[name] == speed[name] for name in ("data", "model", "size"))]
        aucs = [row["auc"] for row in rows if row["auc"] is not None]
        if speed["data"] == data and x is not None and aucs:
            spread = statistics.fmean(row["auc_std"] or 0.0 for row in rows)
            found.setdefault(speed["model"], []).append((x, statistics.fmean(aucs), spread))
    return {model: sorted(of_model) for model, of_model in found.items()}


@drawn_with(**NO_FRAME)
def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Write both figures. A model with several sizes is a line, with one a point; ours are filled."""
    from matplotlib import pyplot, ticker

    names = list(dict.fromkeys(row["data"] for row in result["speeds"]))
    colours = pyplot.get_cmap("tab20").colors
    for file, (column, label) in FIGURES.items():
        figure, axes = pyplot.subplots(1, len(names), figsize=(1.8 + 3.6 * len(names), 3.8), squeeze=False)
        for panel, data in zip(axes[0], names, strict=True):
            for model, of_model in points(result, data, column).items():
                number = list(MODELS).index(model)
                xs, ys, spreads = zip(*of_model, strict=True)
                ours = model.startswith("dcrnn")
                style = {"color": colours[number % len(colours)], "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
                style |= {"markerfacecolor": style["color"] if ours else "white", "linewidth": 1.6 if ours else 0.8}
                panel.errorbar(xs, ys, yerr=spreads, elinewidth=0.6, label=MODELS[model].title, **style)
            panel.set_xscale("log")
            panel.minorticks_off()
            panel.xaxis.set_major_locator(ticker.FixedLocator([digit * 10**power for power in range(1, 8) for digit in DIGITS]))
            panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
            panel.set_title(data, fontsize=9)
            panel.set_xlabel(label)
            panel.grid(color="#e5e7eb", linewidth=0.6)
        axes[0][0].set_ylabel("mean test AUC of the tasks (bar: std over seeds)")
        named = {label: handle for panel in axes[0] for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        figure.legend(named.values(), named.keys(), frameon=False, fontsize=7, loc="center right")
        figure.suptitle(machine.line(result["machine"]), fontsize=8)
        figure.tight_layout(rect=(0, 0, 1 - 1.7 / figure.get_figwidth(), 1))
        with files.replacing(folder / file) as beside:
            figure.savefig(beside, format="svg", metadata={"Date": None})
        pyplot.close(figure)
