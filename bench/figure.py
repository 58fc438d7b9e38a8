"""Draws bench/results/cross_rnn_cpu.svg from cross_rnn_cpu.json: ``python -m bench.figure``."""

from __future__ import annotations

import json
import os

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .machine import RESULTS

PEERS = {
    "eager": ("PyTorch, eager", "#1b6ca8", -0.22),
    "compile": ("torch.compile", "#c8553d", 0.0),
    "floor": ("GEMM floor", "#6b7280", 0.22),
}
TICKS = (0.25, 0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3)


def draw() -> None:
    """One panel a dtype and pass; a point is a case, its size the batch, beside the median over a D's cases."""
    result = json.loads((RESULTS / "cross_rnn_cpu.json").read_text(encoding="utf-8"))
    rows, machine = result["rows"], result["machine"]
    dtypes, passes = sorted({row["dtype"] for row in rows}, reverse=True), ("forward", "forward+backward")
    dims, batches = sorted({row["D"] for row in rows}), sorted({row["B"] for row in rows})
    pyplot.rcParams.update({"svg.hashsalt": "dcrnn_fast", "svg.fonttype": "none", "font.size": 9})
    pyplot.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    figure, axes = pyplot.subplots(len(dtypes), 2, figsize=(9, 3.1 * len(dtypes)), sharex=True, sharey=True, squeeze=False)
    for line, dtype in zip(axes, dtypes, strict=True):
        for panel, name in zip(line, passes, strict=True):
            panel.axhline(1, color="#111827", linewidth=0.8)
            for peer, (label, colour, offset) in PEERS.items():
                of_dim = {dim: [r for r in rows if (r["D"], r["dtype"], r["pass"]) == (dim, dtype, name)] for dim in dims}
                for x, dim in enumerate(dims):
                    values = sorted(row[f"fast/{peer}"] for row in of_dim[dim])
                    if not values:
                        continue
                    sizes = [12 + 12 * batches.index(row["B"]) for row in of_dim[dim]]
                    points = [row[f"fast/{peer}"] for row in of_dim[dim]]
                    style = {"color": colour, "alpha": 0.45, "linewidths": 0, "label": label if x == 0 else None}
                    panel.scatter([x + offset] * len(points), points, s=sizes, **style)
                    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
                    panel.plot([x + offset - 0.1, x + offset + 0.1], [middle] * 2, color=colour, linewidth=2)
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(FixedLocator(TICKS))
            panel.yaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.set_xticks(range(len(dims)), [str(dim) for dim in dims])
            panel.set_title(f"{name}, {dtype}", fontsize=9)
            panel.grid(axis="y", color="#e5e7eb", linewidth=0.6)
            panel.set_axisbelow(True)
    for panel in axes[-1]:
        panel.set_xlabel("D (a point a case of B and T; larger points, larger B)")
    for line in axes:
        line[0].set_ylabel("time / peer's time (below 1: faster)")
    axes[0][0].legend(frameon=False, fontsize=8, loc="upper right")
    figure.suptitle(f"CrossRNN, C++ kernels, {machine['cpu']}, {machine['threads']} threads, PyTorch {machine['torch']}", fontsize=10)
    figure.tight_layout()
    path = RESULTS / "cross_rnn_cpu.svg"
    beside = path.with_name(path.name + ".tmp")
    figure.savefig(beside, format="svg", metadata={"Date": None})
    os.replace(beside, path)


if __name__ == "__main__":
    draw()
