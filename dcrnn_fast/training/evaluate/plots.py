"""A run's curves and reliability plots as SVG: the same numbers give the same bytes, whatever style the process has set."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..folder.run_files import write_file
from .metrics import Array

BINS = 10


def svg_bytes(size: tuple[float, float], draw: Callable[[Any], None]) -> bytes:
    """The SVG of what ``draw`` draws into a matplotlib figure of a size in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "dcrnn_fast"
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()


def plain(name: str, most: int = 40) -> str:
    """A name as a picture shows it: no formula between dollar signs, no control character, at most so many characters."""
    name = "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
    return (name if len(name) <= most else f"{name[: most - 3]}...").replace("$", "\\$")


def write_curves(
    path: Path,
    title: str,
    loss: Sequence[tuple[int, float]],
    history: Sequence[Mapping[str, Any]],
    kept: int,
    constants: Mapping[str, float | None],
) -> None:
    """Plot the training loss by step, and each task's validation AUC and log loss by step, each on a scale of its own.

    A line marks the step whose weights are ``kept``; another, where it is near, the log loss of predicting the base rate, ``constants``.
    """
    shown = [record for record in history if record["step"]] or history  # the start would squeeze the rest
    steps, tasks = [record["step"] for record in shown], list(shown[0]["valid"])

    def draw(figure: Any) -> None:
        panels = figure.subplots(2, 1 + len(tasks), squeeze=False)
        figure.suptitle(plain(title, 100))
        panels[0, 0].plot([step for step, _ in loss], [value for _, value in loss])
        panels[0, 0].set(title="training loss", xlabel="step")
        panels[1, 0].axis("off")
        panels[1, 0].text(0, 0.9, f"dotted: step {kept}, whose weights are kept\ndashed: log loss of the base rate alone", va="top")
        for column, task in enumerate(tasks, start=1):
            for panel, metric, name in ((panels[0, column], "auc", "AUC"), (panels[1, column], "log_loss", "log loss")):
                values = [record["valid"][task][metric] for record in shown]
                panel.plot(steps, [float("nan") if value is None else value for value in values], marker="o", markersize=3)
                panel.axvline(kept, color="grey", linestyle=":")
                panel.set(title=f"{plain(task)}: validation {name}", xlabel="step")
            low, high = panels[1, column].get_ylim()
            constant = constants.get(task)
            if constant is not None and low - (high - low) < constant < high + (high - low):
                panels[1, column].axhline(constant, color="grey", linestyle="--")

    write_file(path, svg_bytes((4.3 * (1 + len(tasks)), 6.4), draw))


def reliability(labels: Array, probabilities: Array, bins: int = BINS) -> tuple[Array, Array, Array]:
    """The mean prediction and the part of positive labels in bins of equal counts of rows, and the counts, which differ by one at most.

    ``labels`` [N] are 0, 1 or NaN; ``probabilities`` [N] lie in [0, 1]. Rows with an unknown label are left out; fewer than ``bins`` have
    a bin each.

    >>> predicted, observed, rows = reliability(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.6, 0.9]), bins=2)
    >>> predicted.round(3).tolist(), observed.tolist(), rows.tolist()
    ([0.15, 0.75], [0.5, 0.5], [2, 2])
    """
    known = ~np.isnan(labels)
    p, y = probabilities[known].astype(np.float64), labels[known].astype(np.float64)
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    means = [(p[part].mean(), y[part].mean(), len(part)) for part in parts]
    predicted, observed, rows = np.array(means).reshape(-1, 3).T
    return predicted, observed, rows.astype(np.int64)


def reliability_plot(title: str, predictions: Mapping[str, Array], labels: Mapping[str, Array]) -> bytes:
    """The :func:`reliability` of each prediction [N] that has labels [N] of its name, as one SVG; below it the rows by prediction.

    The bars are two standard errors of a bin's part.
    """

    def draw(figure: Any) -> None:
        figure.suptitle(plain(title, 100))
        panels = figure.subplots(2, len(labels), squeeze=False, height_ratios=(3, 1))
        for (panel, counts), (name, observed) in zip(panels.T, labels.items(), strict=True):
            x, y, rows = reliability(observed, predictions[name])
            panel.errorbar(x, y, yerr=2 * np.sqrt(y * (1 - y) / rows), marker="o", capsize=2)
            top = max([*x, *y, 1e-9])
            panel.plot([0, top], [0, top], color="grey", linestyle=":")
            panel.set(title=plain(name), xlabel="mean prediction", ylabel="part that is positive")
            known = predictions[name][~np.isnan(observed)]
            counts.hist(known, bins=40)
            counts.set(xlabel="prediction", ylabel="rows", yscale="log" if len(known) else "linear")
            counts.tick_params(axis="y", which="minor", labelleft=False)  # they overlap

    return svg_bytes((4.3 * len(labels), 5.2), draw)
