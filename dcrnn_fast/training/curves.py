"""The curves of a run as one SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .run_files import write_file


def write_curves(path: Path, title: str, loss: Sequence[tuple[int, float]], history: Sequence[Mapping[str, Any]]) -> None:
    """Plot the training loss by step, and each task's validation AUC and log loss by step.

    The same numbers give the same bytes, whatever style the process has set.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "dcrnn_fast"
        figure = Figure(figsize=(13, 3.8), layout="constrained")
        panels = figure.subplots(1, 3)
        figure.suptitle(title)
        panels[0].plot([step for step, _ in loss], [value for _, value in loss])
        panels[0].set(title="training loss", xlabel="step")
        history = [record for record in history if record["step"]] or history  # the start would squeeze the rest
        steps = [record["step"] for record in history]
        for panel, metric, name in ((panels[1], "auc", "validation AUC"), (panels[2], "log_loss", "validation log loss")):
            for task in history[0]["valid"]:
                values = [record["valid"][task][metric] for record in history]
                panel.plot(steps, [float("nan") if value is None else value for value in values], marker="o", label=task)
            panel.set(title=name, xlabel="step")
            panel.legend()
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    write_file(path, image.getvalue())
