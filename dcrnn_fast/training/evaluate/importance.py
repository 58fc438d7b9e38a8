"""How much a run's predictions rest on each input: by how much the AUC falls when the input is shuffled among the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...data import PackedSplit
from ..device import deterministic
from .evaluate import OpenRun
from .plots import plain, svg_bytes
from .predict import finite_predictions, metrics_of

ROWS = 20_000
"""Rows, drawn from the split, on which it is measured."""
MOST = 20
"""Inputs that the picture shows."""


def importance(run: OpenRun, split: str) -> tuple[dict[str, dict[str, float]], int]:
    """By input, the AUC of each task less that with the input shuffled; and the number of rows.

    An input is a column of the table or a derived one, which the model may read as a field and as a number. Inputs that say the same share
    what they bring: each may seem to bring nothing. The source is Breiman's permutation importance (Random Forests, 2001).
    """
    meta, rows, rng = run.dataset.meta, run.dataset.split(split), np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(rows))[:ROWS])
    dense = None if rows.dense is None else rows.dense[chosen]
    drawn = PackedSplit(split, ids=rows.ids[chosen], dense=dense, labels=rows.labels[chosen], weight=None, group=None)
    columns = list(meta.fields)
    fields = {name: meta.pooled[name]["columns"] if name in meta.pooled else [first] for name, first in meta.first_columns.items()}
    inputs: dict[str, tuple[list[int], list[int]]] = {
        name: ([columns.index(column) for column in of_field], []) for name, of_field in fields.items()
    }
    for at, name in enumerate(meta.dense):
        inputs.setdefault(name, ([], []))[1].append(at)

    def aucs(of: PackedSplit) -> dict[str, float | None]:
        with deterministic(run.config.threads):
            return {name: entry["auc"] for name, entry in metrics_of(finite_predictions(run.model, of, meta, run.device), of, meta).items()}

    whole, falls = aucs(drawn), {}
    for name, (of_ids, of_dense) in inputs.items():
        order, ids, numbers = rng.permutation(len(chosen)), np.array(drawn.ids), None if dense is None else np.array(dense)
        ids[:, of_ids] = ids[order][:, of_ids]
        if numbers is not None:
            numbers[:, of_dense] = numbers[order][:, of_dense]
        shuffled = aucs(replace(drawn, ids=ids, dense=numbers))
        falls[name] = {task: auc - (shuffled[task] or 0.0) for task, auc in whole.items() if auc is not None}
    return falls, len(chosen)


def importance_plot(falls: Mapping[str, Mapping[str, float]]) -> bytes:
    """The inputs that bring most to any task, as bars in an SVG."""
    tasks = list(next(iter(falls.values())))
    names = sorted(falls, key=lambda name: max(falls[name].values(), default=0.0))[-MOST:]

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, max(1, len(tasks)), squeeze=False, sharey=True)[0]
        for panel, task in zip(panels, tasks, strict=False):
            panel.barh(range(len(names)), [falls[name][task] for name in names])
            panel.set_yticks(range(len(names)), [plain(name) for name in names])
            panel.set(title=plain(task), xlabel="fall of the AUC")

    return svg_bytes((2.5 + 3.2 * max(1, len(tasks)), 1.4 + 0.28 * len(names)), draw)
