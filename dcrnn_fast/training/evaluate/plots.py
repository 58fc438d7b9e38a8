"""A run's curves and reliability plots as SVG: the same numbers give the same bytes, whatever style the process has set."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...support.files import writing_output
from ..folder.run_files import write_file

Array = NDArray[Any]

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


def write_curves(path: Path, title: str, loss: Sequence[tuple[int, float]], history: Sequence[Mapping[str, Any]]) -> None:
    """Plot the training loss by step, and each task's validation AUC and log loss by step.

    The same numbers give the same bytes.
    """

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 3)
        figure.suptitle(title)
        panels[0].plot([step for step, _ in loss], [value for _, value in loss])
        panels[0].set(title="training loss", xlabel="step")
        shown = [record for record in history if record["step"]] or history  # the start would squeeze the rest
        steps = [record["step"] for record in shown]
        for panel, metric, name in ((panels[1], "auc", "validation AUC"), (panels[2], "log_loss", "validation log loss")):
            for task in shown[0]["valid"]:
                values = [record["valid"][task][metric] for record in shown]
                panel.plot(steps, [float("nan") if value is None else value for value in values], marker="o", label=task)
            panel.set(title=name, xlabel="step")
            panel.legend()

    write_file(path, svg_bytes((13, 3.8), draw))


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


def write_reliability(path: Path, title: str, predictions: Mapping[str, Array], labels: Mapping[str, Array]) -> None:
    """Plot the :func:`reliability` of each prediction [N] that has labels [N] of its name, as one SVG.

    The bars are two standard errors of a bin's part. The same numbers give the same bytes. Raises DataError if the file cannot be written.
    """

    def draw(figure: Any) -> None:
        figure.suptitle(title)
        for panel, (name, observed) in zip(figure.subplots(1, len(labels), squeeze=False)[0], labels.items(), strict=True):
            x, y, rows = reliability(observed, predictions[name])
            panel.errorbar(x, y, yerr=2 * np.sqrt(y * (1 - y) / rows), marker="o", capsize=2)
            top = max([*x, *y, 1e-9])
            panel.plot([0, top], [0, top], color="grey", linestyle=":")
            panel.set(title=name, xlabel="mean prediction", ylabel="part that is positive")

    with writing_output("plot", path) as beside:
        beside.write_bytes(svg_bytes((4.3 * len(labels), 4.0), draw))
