"""The constant: the model that predicts the base rate of the training rows for every row. Whoever trains a model wants to beat it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .metrics import Array


def base_rates(labels: Array, tasks: Sequence[str], *, funnel: bool) -> dict[str, float]:
    """The part of positive labels among the known ones, of each task and, in a funnel, of each ``{task}_given_{previous}``.

    ``labels`` [N, T] are 0, 1 or NaN, in the order of ``tasks``. A rate over no rows is left out.

    >>> base_rates(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, np.nan]]), ("click", "buy"), funnel=True)
    {'click': 0.5, 'buy': 0.3333333333333333, 'buy_given_click': 0.5}
    """
    columns = dict(zip(tasks, labels.T, strict=True))
    for position, task in enumerate(tasks[1:] if funnel else (), start=1):
        columns[f"{task}_given_{tasks[position - 1]}"] = labels[labels[:, position - 1] == 1, position]
    return {name: float(np.nanmean(column)) for name, column in columns.items() if not np.isnan(column).all()}


def with_constant(metrics: Mapping[str, Mapping[str, Any]], rates: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The metrics of every task with ``constant_log_loss``: what the log loss of the same rows is if ``rates[task]`` is predicted for all.

    It is None where the rows or the rate are unknown. As in scikit-learn, a rate of 0 or 1 counts as the nearest number inside (0, 1).

    >>> with_constant({"click": {"rows": 4, "positives": 1}}, {"click": 0.25})["click"]["constant_log_loss"]
    0.5623351446188083
    """
    return {
        task: {**entry, "constant_log_loss": _log_loss(entry["rows"], entry["positives"], rates.get(task))}
        for task, entry in metrics.items()
    }


def not_better_than_constant(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A warning of one line for every task whose log loss is not below the constant's, as :func:`with_constant` gives it.

    >>> not_better_than_constant({"click": {"log_loss": 0.5, "constant_log_loss": 0.6}})
    []
    """
    lines = []
    for task, entry in metrics.items():
        own, constant = entry["log_loss"], entry.get("constant_log_loss")
        if own is not None and constant is not None and own >= constant:
            lines.append(
                f"warning: {task}: log loss {own:.4f} is not below {constant:.4f}, the log loss of predicting the training rows' base rate "
                "for every row: as probabilities, these predictions are no better than no model"
            )
    return lines


def _log_loss(rows: int, positives: int, rate: float | None) -> float | None:
    if not rows or rate is None:
        return None
    rate = min(max(rate, sys.float_info.epsilon), 1 - sys.float_info.epsilon)
    return -(positives * math.log(rate) + (rows - positives) * math.log1p(-rate)) / rows
