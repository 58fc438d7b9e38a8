"""The constant: the model that predicts the base rate of the training rows for every row. A trained model should beat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...data.inspect.base_rates import constant_log_loss


def with_constant(metrics: Mapping[str, Mapping[str, Any]], rates: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The metrics of every task with ``constant_log_loss``: what the log loss of the same rows is if ``rates[task]`` is predicted for all.

    It is None where the rows or the rate are unknown. As in scikit-learn, a rate of 0 or 1 counts as the nearest number inside (0, 1).

    >>> with_constant({"click": {"rows": 4, "positives": 1}}, {"click": 0.25})["click"]["constant_log_loss"]
    0.5623351446188083
    """
    return {
        task: {**entry, "constant_log_loss": constant_log_loss(entry["rows"], entry["positives"], rates.get(task))}
        for task, entry in metrics.items()
    }


def unsampled_rates(rates: Mapping[str, float], tasks: Sequence[str], negative_rate: float) -> dict[str, float]:
    """The base rates of a log, from those after its sampling: it had 1 / ``negative_rate`` times as many rows without the first event.

    >>> unsampled_rates({"click": 0.5, "buy": 0.25, "buy_given_click": 0.5}, ["click", "buy"], 0.25)
    {'click': 0.2, 'buy': 0.1, 'buy_given_click': 0.5}
    """
    first = rates.get(tasks[0], 1.0)
    rows = first + (1 - first) / negative_rate  # of the log, for each sampled one
    return {name: rate / rows if name in tasks else rate for name, rate in rates.items()}


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
