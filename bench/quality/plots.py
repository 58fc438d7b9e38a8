"""Two figures, a panel for each data set: how far each model's AUC is from DCRNN's, and AUC against training rows a second."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import machine
from bench.drawing import NO_FRAME, drawn_with
from dcrnn_fast.support import files

from .models import AGAINST, MODELS, SHIPPED
from .report import by_seed, of_tuned_size

MARKERS = "osD^vP"
DIGITS = (1, 2, 5)
"""Of the ticks of the logarithmic axis."""


def points(result: Mapping[str, Any], data: str) -> dict[str, list[tuple[float, float, float]]]:
    """By model, for each of its sizes from fast to slow: the speed in float32, the mean test AUC of the tasks, and its mean spread."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for speed in result["speeds"]:
        x = speed.get("float32", {}).get("training_rows_per_second")
        rows = [row for row in result["rows"] if all(row[name] == speed[name] for name in ("data", "model", "size"))]
        aucs = [row["auc"] for row in rows if row["auc"] is not None]
        if speed["data"] == data and x is not None and aucs:
            spread = statistics.fmean(row["auc_std"] or 0.0 for row in rows)
            found.setdefault(speed["model"], []).append((x, statistics.fmean(aucs), spread))
    return {model: sorted(of_model) for model, of_model in found.items()}


@drawn_with(**NO_FRAME)
def draw_costs(result: Mapping[str, Any], path: Path) -> None:
    """AUC against training rows a second. A model with several sizes is a line, with one a point; ours are filled."""
    from matplotlib import pyplot, ticker

    names = list(dict.fromkeys(row["data"] for row in result["speeds"]))
    colours = pyplot.get_cmap("tab20").colors
    figure, axes = pyplot.subplots(1, len(names), figsize=(1.8 + 3.6 * len(names), 3.8), squeeze=False)
    for panel, data in zip(axes[0], names, strict=True):
        for model, of_model in points(result, data).items():
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
        panel.set_xlabel("training rows/s")
        panel.grid(color="#e5e7eb", linewidth=0.6)
    axes[0][0].set_ylabel("mean test AUC of the tasks (bar: std over seeds)")
    named = {label: handle for panel in axes[0] for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), frameon=False, fontsize=7, loc="center right")
    figure.suptitle(machine.line(result["machine"]), fontsize=8)
    figure.tight_layout(rect=(0, 0, 1 - 1.7 / figure.get_figwidth(), 1))
    _save(figure, path)


def distances(result: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, tuple[float, float]]]]:
    """The title of the DCRNN that is compared, the one of ``dcrnn-fast train`` where it has runs; and by data set and title, the mean over
    the seeds of a model's AUC (mean of the tasks) minus DCRNN's, and half of its 95% interval (Student's t). The constant is left out.
    """
    from scipy.stats import t

    shown = of_tuned_size(result)["rows"]
    ours = SHIPPED if any(row["model"] == SHIPPED for row in shown) else AGAINST
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for data, model, size in dict.fromkeys((row["data"], row["model"], row["size"]) for row in shown if row["model"] != "constant"):
        peer = next((row["size"] for row in shown if (row["data"], row["model"]) == (data, ours)), None)
        own, theirs = by_seed(result["runs"], data, model, size), by_seed(result["runs"], data, ours, str(peer))
        apart = [own[seed] - theirs[seed] for seed in own.keys() & theirs.keys()]
        if model != ours and len(apart) > 1:
            half = float(t.ppf(0.975, len(apart) - 1)) * statistics.stdev(apart) / len(apart) ** 0.5
            found.setdefault(data, {})[MODELS[model].title] = statistics.fmean(apart), half
    return MODELS[ours].title, found


@drawn_with(**NO_FRAME)
def draw_distances(result: Mapping[str, Any], path: Path) -> None:
    """A dot for each model: its AUC minus DCRNN's, with a bar for the interval; models right of the line are ahead."""
    from matplotlib import pyplot

    title, found = distances(result)
    names = list(dict.fromkeys(name for of_data in found.values() for name in of_data))[::-1]
    if not names:
        return
    figure, axes = pyplot.subplots(1, len(found), figsize=(2.6 + 2.2 * len(found), 1.1 + 0.22 * len(names)), sharey=True, squeeze=False)
    for panel, (data, of_data) in zip(axes[0], found.items(), strict=True):
        for at, name in enumerate(names):
            if name in of_data:
                mean, half = of_data[name]
                ahead = "#b91c1c" if mean > half else "#15803d" if mean < -half else "#6b7280"
                panel.errorbar(mean, at, xerr=half, color=ahead, marker="o", markersize=4, elinewidth=1)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.set_title(data, fontsize=9)
        panel.tick_params(axis="x", labelsize=7)
        panel.locator_params(axis="x", nbins=4)
        panel.grid(color="#e5e7eb", linewidth=0.6)
    figure.supxlabel(f"test AUC minus that of {title.replace('`', '')} (bar: 95% over seeds; red: ahead of it, green: behind)", fontsize=8)
    figure.tight_layout()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    with files.replacing(path) as beside:
        figure.savefig(beside, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
