"""The log loss after the best intercept of each task: it chooses a run's weights, whatever base rate the validation rows have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ...data.inspect.base_rates import Array, event_labels
from .calibration_file import logits, sigmoid

SHIFTED = "shifted_log_loss"
STEPS, TOLERANCE, PULL = 50, 1e-9, 0.01
FAR, STANDARD_ERRORS = 0.25, 4.0
"""An intercept that is further from 0, in logits and in standard errors, is told to the user, if the base rates differ as
much: the odds then differ by 28%."""


def best_intercept(z: Array, labels: Array, weight: Array) -> tuple[float, float]:
    """The number to add to logits z [N] that gives labels [N] in {0, 1} the least log loss, by Newton's method, and its standard error.

    ``weight`` [N] is at least 0. A weak pull to 0 keeps it finite where the rows are of one class.

    >>> intercept, error = best_intercept(np.zeros(400), np.repeat([1.0, 0.0], [100, 300]), np.ones(400))
    >>> round(intercept, 2) == round(math.log(1 / 3), 2), round(error, 2)
    (True, 0.12)
    """
    wanted, shift, information = float(weight @ labels), 0.0, PULL
    for _ in range(STEPS):
        p = sigmoid(z + shift)
        information = PULL + float(weight @ (p * (1 - p)))
        step = (wanted - float(weight @ p) - PULL * shift) / information
        shift += min(max(step, -2.0), 2.0)
        if abs(step) < TOLERANCE:
            break
    return shift, 1 / math.sqrt(information)


def with_intercepts(
    metrics: dict[str, dict[str, Any]], predictions: Mapping[str, Array], labels: Array, tasks: Sequence[str], weight: Array | None
) -> dict[str, dict[str, Any]]:
    """The metrics of every task with its ``shifted_log_loss``, ``intercept`` and ``intercept_error``.

    In a chain the intercepts are those of each event given the one before, so that P(consume) <= P(click) still holds; other tasks have
    their own. The loss of a task is that of its event over all rows, after the intercepts. See :func:`shifted` for the arguments.
    """
    for task, losses, each, shift, error in shifted(predictions, labels, tasks, weight):
        metrics[task] |= {SHIFTED: float(losses.sum() / each) if each else None, "intercept": shift, "intercept_error": error}
    return metrics


def shifted(
    predictions: Mapping[str, Array], labels: Array, tasks: Sequence[str], weight: Array | None
) -> Iterator[tuple[str, Array, float, float, float]]:
    """Of each task its name, the weighted losses [N], 0 where unknown, the sum of the known rows' weights, the intercept and its error.

    ``predictions`` are those of ``DCRNN.predict`` for the rows, [N], and ``labels`` [N, T] are 0, 1 or NaN for unknown. Of ``weight`` None,
    each row counts 1.
    """
    each = np.ones(len(labels)) if weight is None else weight.astype(np.float64)
    conditional = [f"{task}_given_{before}" for before, task in pairwise(tasks)]
    chain = bool(conditional) and conditional[0] in predictions
    events = event_labels(labels, tasks, funnel=chain)
    log_p = np.zeros(len(labels))
    for position, task in enumerate(tasks):
        name = conditional[position - 1] if chain and position else task
        z, known = logits(predictions[name]), ~np.isnan(events[name])
        shift, error = best_intercept(z[known], events[name][known].astype(np.float64), each[known])
        own = -np.logaddexp(0.0, -(z + shift))
        log_p = log_p + own if chain else own
        y, log_of = labels[:, position], np.minimum(log_p, -1e-16)
        losses = np.where(np.isnan(y), 0.0, -np.where(y == 1, log_of, np.log(-np.expm1(log_of))))
        yield task, losses * each, float(each[~np.isnan(y)].sum()), shift, error


def shift_warnings(metrics: Mapping[str, Mapping[str, Any]], rates: Mapping[str, float]) -> list[str]:
    """A line for each task whose validation rows have another base rate than the train rows, and than the kept weights expect.

    ``rates`` has the base rates of the train rows.

    >>> shift_warnings({"click": {"intercept": 0.1, "intercept_error": 0.01, "rows": 9, "positives": 3}}, {"click": 0.3})
    []
    """
    lines = []
    for task, entry in metrics.items():
        intercept, rate = entry.get("intercept", 0.0), rates.get(task, 0.0)
        if abs(intercept) <= max(FAR, STANDARD_ERRORS * entry.get("intercept_error", 0.0)) or not 0 < rate < 1:
            continue
        now = (entry["positives"] + 0.5) / (entry["rows"] + 1)
        apart = math.log(now / (1 - now)) - math.log(rate / (1 - rate))
        if apart * intercept > 0 and abs(apart) > FAR:
            lines.append(
                f"warning: {task}: {now:.2%} of the validation rows are positive, and {rate:.2%} of the train rows; an intercept of "
                f"{intercept:+.2f} would correct the predictions. The newest labels may not be complete, the season may be another, or the "
                "rows were sampled in another way. The weights were chosen without this difference; for probabilities, validate on rows "
                "whose labels are complete (a later cutoff), or run `dcrnn-fast calibrate` on such rows"
            )
    return lines
