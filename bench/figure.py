"""Draws two figures from the files of bench/results/: ``python -m bench.figure``."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from dcrnn_fast.support import files

from . import machine
from .cases import PASSES
from .quality.models import MODELS, ONE_SIZE, SHIPPED, TUNED_SIZE
from .quality.report import by_seed, sets_of
from .results import BENCHMARKS, COMMITTED, read

PEERS = {"eager": ("PyTorch, eager", "#1b6ca8"), "compile": ("torch.compile", "#c8553d"), "floor": ("product floor", "#6b7280")}
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3)
STYLE = {
    "svg.hashsalt": "dcrnn_fast", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def speeds() -> Any:
    """One panel for each dtype and pass. For each D, a line from the fastest to the slowest case, and a point at their median."""
    from matplotlib import pyplot

    result = read(BENCHMARKS)["cross_rnn"]
    rows = result["rows"]
    dtypes, dims = sorted({row["dtype"] for row in rows}, reverse=True), sorted({row["D"] for row in rows})
    figure, axes = pyplot.subplots(len(dtypes), 2, figsize=(9, 3.1 * len(dtypes)), sharex=True, sharey=True, squeeze=False)
    for line, dtype in zip(axes, dtypes, strict=True):
        line[0].set_ylabel("our time / peer's time (below 1: faster)")
        for panel, name in zip(line, PASSES, strict=True):
            panel.axhline(1, color="#111827", linewidth=0.8)
            for offset, (peer, (label, colour)) in zip((-0.22, 0, 0.22), PEERS.items(), strict=True):
                ratios = [[r[f"cpp/{peer}"] for r in rows if (r["D"], r["dtype"], r["pass"]) == (dim, dtype, name)] for dim in dims]
                found = [(x + offset, min(group), statistics.median(group), max(group)) for x, group in enumerate(ratios) if group]
                xs, lows, medians, highs = zip(*found, strict=True) if found else [()] * 4
                panel.vlines(xs, lows, highs, color=colour, linewidth=2, alpha=0.5)
                panel.plot(xs, medians, "o", color=colour, markersize=5, label=label)
            panel.set_yscale("log")
            panel.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
            panel.set_xticks(range(len(dims)), [str(dim) for dim in dims])
            panel.tick_params(length=0)
            panel.minorticks_off()
            panel.set_title(f"{name}, {dtype}", fontsize=9)
            panel.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    for panel in axes[-1]:
        panel.set_xlabel("D (line: all cases of B and T; point: their median)")
    axes[0][0].legend(frameon=False, fontsize=8, loc="upper right")
    figure.suptitle(f"CrossRNN, C++ kernels. {machine.line(result['machine'])}", fontsize=9)
    return figure


def distances(result: dict[str, Any]) -> dict[str, dict[str, tuple[float, float]]]:
    """By data set and title, the mean over the seeds of a model's AUC (mean of the tasks) minus that of DCRNN by `dcrnn-fast train`, and
    half of its 95% interval (Student's t).
    """
    from scipy.stats import t

    rows = {(row["data"], row["model"]): row for row in result["rows"] if row["size"] in (ONE_SIZE, TUNED_SIZE)}
    found: dict[str, dict[str, tuple[float, float]]] = {data: {} for data in sets_of(result["rows"])}
    for data, model in rows:
        apart = [own - ours for own, ours in zip(by_seed(rows[data, model]), by_seed(rows.get((data, SHIPPED))), strict=False)]
        if model != SHIPPED and len(apart) > 1:
            half = float(t.ppf(0.975, len(apart) - 1)) * statistics.stdev(apart) / len(apart) ** 0.5
            found[data][MODELS[model].title] = statistics.fmean(apart), half
    return found


def models() -> Any:
    """A dot for each model: its AUC minus DCRNN's, with a bar for the interval; models right of the line are ahead."""
    from matplotlib import pyplot

    found = distances(read("quality.json"))
    names = list(dict.fromkeys(name for of_data in found.values() for name in of_data))[::-1]
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
    ours = MODELS[SHIPPED].title.replace("`", "")
    figure.supxlabel(f"test AUC minus that of {ours} (bar: 95% over seeds; red: ahead of it, green: behind)", fontsize=8)
    return figure


def draw(folder: Path = COMMITTED) -> None:
    """Write both figures."""
    import matplotlib

    matplotlib.use("svg")
    with matplotlib.rc_context(STYLE):
        for name, make in {"cross_rnn_cpu": speeds, "quality_auc": models}.items():
            figure = make()
            figure.tight_layout()
            with files.replacing(folder / f"{name}.svg") as beside:
                figure.savefig(beside, format="svg", metadata={"Date": None}, **({"bbox_inches": "tight"} if make is models else {}))


if __name__ == "__main__":
    draw()
