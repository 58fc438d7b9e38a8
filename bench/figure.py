"""Draws bench/results/cross_rnn_cpu.svg from cross_rnn_cpu.json: ``python -m bench.figure``."""

from __future__ import annotations

import statistics

from dcrnn_fast.support import files

from . import machine
from .cases import PASSES
from .drawing import NO_FRAME, drawn_with
from .results import COMMITTED, read

PEERS = {"eager": ("PyTorch, eager", "#1b6ca8"), "compile": ("torch.compile", "#c8553d"), "floor": ("product floor", "#6b7280")}
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3)


@drawn_with(**NO_FRAME)
def draw() -> None:
    """One panel for each dtype and pass. For each D, a line from the fastest to the slowest case, and a point at their median."""
    from matplotlib import pyplot

    result = read("cross_rnn_cpu.json")
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
    figure.tight_layout()
    with files.replacing(COMMITTED / "cross_rnn_cpu.svg") as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw()
