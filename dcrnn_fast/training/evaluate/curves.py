"""The curves of a run as one SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..folder.run_files import write_file
from .svg import svg_bytes


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
