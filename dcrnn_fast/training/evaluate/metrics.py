"""Metrics of each task: AUC, log loss, calibration and GAUC, by scikit-learn's definitions.

A task's metrics leave out rows whose label is unknown (NaN). A metric that is undefined is ``None`` (null in JSON): the AUC of rows
that hold one class only, the calibration of rows without a positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...support.checks import check_sequence

Array = NDArray[Any]


def binary_metrics(labels: Array, probabilities: Array, group: Array | None = None) -> dict[str, Any]:
    """Metrics of one task.

    ``labels`` [N] are 0, 1 or NaN; ``probabilities`` [N] lie in [0, 1]; ``group`` [N] (optional) holds the id of each row's group,
    negative where it is missing.
    Returns ``rows``, ``positives``, ``auc``, ``log_loss``, ``calibration`` (mean predicted / mean observed) and, with a group, ``gauc``.

    >>> metrics = binary_metrics(np.array([1.0, 0.0, np.nan]), np.array([0.75, 0.25, 0.5]))
    >>> metrics["rows"], metrics["auc"], metrics["calibration"]
    (2, 1.0, 1.0)
    """
    from sklearn.metrics import log_loss, roc_auc_score  # here: a ranker imports this package, and scikit-learn takes a second

    _check_vector("labels", labels, len(labels) if isinstance(labels, np.ndarray) else 0, 0, 1, unknown=True)
    _check_vector("probabilities", probabilities, len(labels), 0, 1)
    if group is not None:
        _check_vector("group", group, len(labels), -np.inf, np.inf)
    known = ~np.isnan(labels)
    observed = labels[known].astype(np.int64)
    predicted = probabilities[known].astype(np.float64)
    positives = int(observed.sum())
    rows = int(observed.size)
    both = 0 < positives < rows
    result: dict[str, Any] = {
        "rows": rows,
        "positives": positives,
        "auc": float(roc_auc_score(observed, predicted)) if both else None,
        "log_loss": float(log_loss(observed, predicted, labels=[0, 1])) if rows else None,
        "calibration": float(predicted.sum() / positives) if positives else None,
    }
    if group is not None:
        result["gauc"] = group_auc(observed, predicted, group[known])
    return result


def group_auc(labels: Array, scores: Array, group: Array) -> float | None:
    """GAUC: the mean of each group's AUC, weighted by the group's rows, over the groups that hold both classes; None if none does.

    ``labels`` [N] in {0, 1}, ``scores`` [N], ``group`` [N]. Rows of a negative group, whose group is missing, are left out.
    A group's AUC comes from the rank sum of its positives (Mann-Whitney) with ties at their mean rank, which equals scikit-learn's
    trapezoid rule.

    >>> group_auc(np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.1, 0.2, 0.8, 0.5]), np.array([7, 7, 9, 9, -1]))
    0.5
    """
    _check_vector("labels", labels, len(labels) if isinstance(labels, np.ndarray) else 0, 0, 1)
    _check_vector("scores", scores, len(labels), -np.inf, np.inf)
    _check_vector("group", group, len(labels), -np.inf, np.inf)
    present = group >= 0
    if not present.any():
        return None
    labels, scores, group = labels[present], scores[present], group[present]
    order = np.lexsort((scores, group))
    labels, scores, group = labels[order].astype(np.float64), scores[order], group[order]
    new_group = np.append(True, group[1:] != group[:-1])
    new_tie = new_group | np.append(True, scores[1:] != scores[:-1])
    starts = np.flatnonzero(new_group)
    sizes = np.diff(np.append(starts, labels.size)).astype(np.float64)
    tie_starts = np.flatnonzero(new_tie)
    tie_sizes = np.diff(np.append(tie_starts, labels.size))
    position = np.repeat(tie_starts + (tie_sizes - 1) / 2, tie_sizes)
    ranks = position - np.repeat(starts, sizes.astype(np.int64)) + 1
    positives = np.add.reduceat(labels, starts)
    rank_sums = np.add.reduceat(labels * ranks, starts)
    pairs = positives * (sizes - positives)
    both = pairs > 0
    if not both.any():
        return None
    auc = (rank_sums[both] - positives[both] * (positives[both] + 1) / 2) / pairs[both]
    return float(np.average(auc, weights=sizes[both]))


def task_metrics(
    predictions: Mapping[str, Array], labels: Array, tasks: Sequence[str], *, funnel: bool, group: Array | None = None
) -> dict[str, dict[str, Any]]:
    """Metrics of every task, by name.

    ``predictions`` are what ``DCRNN.predict`` gives, as arrays [N]; ``labels`` [N, T] are in the order of ``tasks``. In a funnel each entry
    has a ``role``: ``CTR`` (the first event over all impressions), ``CTCVR`` (a later event over all impressions) and, if the model
    predicts it, ``CVR`` under the key ``{task}_given_{previous}`` (the later event over the rows in which the previous one happened).
    """
    check_sequence("tasks", tasks, "task names")
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.shape[1] != len(tasks):
        raise ValueError(f"labels: got {_kind(labels)}, expected an array [N, {len(tasks)}], one column for each of {list(tasks)}")
    absent = [task for task in tasks if not isinstance(predictions, Mapping) or task not in predictions]
    if absent:
        raise ValueError(f"predictions: expected an array [N] for every task, and {absent[0]!r} has none")
    result: dict[str, dict[str, Any]] = {}
    for position, task in enumerate(tasks):
        result[task] = binary_metrics(labels[:, position], predictions[task], group)
        if not funnel:
            continue
        result[task]["role"] = "CTCVR" if position else "CTR"
        conditional = f"{task}_given_{tasks[position - 1]}" if position else ""
        if conditional in predictions:
            before = labels[:, position - 1] == 1
            within = None if group is None else group[before]
            result[conditional] = binary_metrics(labels[before, position], predictions[conditional][before], within) | {"role": "CVR"}
    return result


def _kind(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _check_vector(name: str, value: Any, rows: int, low: float, high: float, *, unknown: bool = False) -> None:
    """Raise TypeError or ValueError unless ``value`` is a real array [rows] between ``low`` and ``high``, or NaN if ``unknown``."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got {_kind(value)}, expected an array of numbers [{rows}]")
    if value.shape != (rows,):
        raise ValueError(f"{name}: got shape {list(value.shape)}, expected [{rows}]")
    inside = (value >= low) & (value <= high)
    if not (inside | np.isnan(value) if unknown else inside).all():
        raise ValueError(f"{name}: expected numbers in [{low:g}, {high:g}]{' or NaN' if unknown else ''}, got {value[~inside][0]}")


def mean_over_tasks(metrics: Mapping[str, Mapping[str, Any]], name: str, tasks: Sequence[str]) -> float | None:
    """Mean of one metric over the tasks for which it is defined; None if there is no such task."""
    values = [metrics[task][name] for task in tasks if metrics[task][name] is not None]
    return float(np.mean(values)) if values else None
