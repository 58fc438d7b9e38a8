"""Metrics of each task, by scikit-learn's definitions: AUC, log loss, calibration and GAUC, next to the constant's, and their intervals.

A task's metrics leave out rows whose label is unknown (NaN). A metric that is undefined is ``None`` (null in JSON): the AUC of rows
that hold one class only, the calibration of rows without a positive. The constant is the model that predicts the base rate of the training
rows for every row; a trained model should beat it. Intervals are 95% intervals by the bootstrap over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...data.inspect.base_rates import Array, constant_log_loss, event_labels
from ...data.packed.arrays import Progress, no_progress

FEWEST = 100
"""Resamples: of fewer, too few lie beyond an interval's ends."""
NAMES = ("auc", "log_loss", "calibration")
"""The metrics that have intervals."""


def binary_metrics(labels: Array, probabilities: Array, group: Array | None = None, weight: Array | None = None) -> dict[str, Any]:
    """Metrics of one task.

    ``labels`` [N] are 0, 1 or NaN; ``probabilities`` [N] lie in [0, 1]; ``group`` [N] (optional) holds the id of each row's group,
    negative where it is missing; ``weight`` [N] (optional) holds what each row counts, finite and at least 0.
    Returns ``rows``, ``positives``, ``auc``, ``log_loss``, ``calibration`` (mean predicted / mean observed); with a group ``gauc``, the
    mean of the AUCs of the groups that hold both classes, weighted by their rows; and with a weight ``weighted_auc`` and
    ``weighted_log_loss``; nothing else depends on it.

    >>> metrics = binary_metrics(np.array([1.0, 0.0, np.nan]), np.array([0.75, 0.25, 0.5]))
    >>> metrics["rows"], metrics["auc"], metrics["calibration"]
    (2, 1.0, 1.0)
    """
    from sklearn.metrics import log_loss, roc_auc_score  # here: a ranker imports this package, and scikit-learn takes a second

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
        present = group[known] >= 0
        aucs, sizes = group_aucs(observed[present], predicted[present], group[known][present])
        result["gauc"] = float(np.average(aucs, weights=sizes)) if len(aucs) else None
    if weight is not None:
        each = weight[known].astype(np.float64)
        both, some = each[observed == 0].sum() > 0 < each[observed == 1].sum(), each.sum() > 0
        result["weighted_auc"] = float(roc_auc_score(observed, predicted, sample_weight=each)) if both else None
        result["weighted_log_loss"] = float(log_loss(observed, predicted, labels=[0, 1], sample_weight=each)) if some else None
    return result


def group_aucs(labels: Array, scores: Array, group: Array) -> tuple[Array, Array]:
    """The AUC of each group that holds both classes, in the order of the groups' numbers, and its rows.

    ``labels`` [N] in {0, 1}, ``scores`` [N], ``group`` [N] at least 0. A group's AUC comes from the rank sum of its positives
    (Mann-Whitney) with ties at their mean rank, which equals scikit-learn's trapezoid rule.
    """
    order = np.lexsort((scores, group))
    labels, scores, group = labels[order].astype(np.float64), scores[order], group[order]
    new_group = np.diff(group, prepend=-1) != 0
    new_tie = new_group | (np.diff(scores, prepend=-np.inf) != 0)
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
    return (rank_sums[both] - positives[both] * (positives[both] + 1) / 2) / pairs[both], sizes[both]


def task_metrics(
    predictions: Mapping[str, Array],
    labels: Array,
    tasks: Sequence[str],
    *,
    funnel: bool,
    group: Array | None = None,
    weight: Array | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics of every task, by name; ``group`` and ``weight`` as of :func:`binary_metrics`.

    ``predictions`` are what ``DCRNN.predict`` gives, as arrays [N]; ``labels`` [N, T] are in the order of ``tasks``. In a funnel each entry
    has a ``role``: ``CTR`` (the first event over all impressions), ``CTCVR`` (a later event over all impressions) and, if the model
    predicts it, ``CVR`` under the key ``{task}_given_{previous}`` (the later event over the rows in which the previous one happened).
    """
    events = event_labels(labels, tasks, funnel=funnel)
    result: dict[str, dict[str, Any]] = {}
    for position, task in enumerate(tasks):
        result[task] = binary_metrics(events[task], predictions[task], group, weight)
        if not funnel:
            continue
        result[task]["role"] = "CTCVR" if position else "CTR"
        conditional = f"{task}_given_{tasks[position - 1]}" if position else ""
        if conditional in predictions:
            result[conditional] = binary_metrics(events[conditional], predictions[conditional], group, weight) | {"role": "CVR"}
    return result


def mean_over_tasks(metrics: Mapping[str, Mapping[str, Any]], name: str, tasks: Sequence[str]) -> float | None:
    """Mean of one metric over the tasks for which it is defined; None if there is no such task."""
    values = [metrics[task][name] for task in tasks if metrics[task][name] is not None]
    return float(np.mean(values)) if values else None


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
        own, constant = entry["log_loss"], entry["constant_log_loss"]
        if own is not None and constant is not None and own >= constant:
            lines.append(
                f"warning: {task}: log loss {own:.4f} is not below {constant:.4f}, the log loss of predicting the training rows' base rate "
                "for every row: as probabilities, these predictions are no better than no model"
            )
    return lines


def bootstrap_intervals(
    labels: Array, probabilities: Array, resamples: int, *, other: Array | None = None, progress: Progress = no_progress
) -> dict[str, list[float] | None]:
    """The 2.5% and 97.5% quantiles of ``auc``, ``log_loss`` and ``calibration`` over resamples of the rows with a known label.

    ``labels`` [N] are 0, 1 or NaN; ``probabilities`` [N] lie in [0, 1]. Resamples in which a metric is undefined do not count for it; None
    if it is undefined in all of them. Rows count as independent: where the rows of one group are alike, the intervals are too narrow.

    With ``other`` [N], the quantiles of the metrics of ``probabilities`` less those of ``other`` in the same resamples: what the rows that
    both find easy or hard have in common does not widen them.

    >>> rng = np.random.default_rng(0)
    >>> p = rng.random(1000)
    >>> labels = (rng.random(1000) < p).astype(np.float32)
    >>> low, high = bootstrap_intervals(labels, p, 200)["calibration"]
    >>> low < 1 < high, bootstrap_intervals(labels, p, 200, other=p)["auc"]
    (True, [0.0, 0.0])
    """
    found = resampled(labels, probabilities, resamples, progress)
    if other is not None:
        with np.errstate(invalid="ignore"):  # both may be undefined
            found -= resampled(labels, other, resamples, progress)
    return {name: quantiles(found[:, at]) for at, name in enumerate(NAMES)}


def resampled(labels: Array, probabilities: Array, resamples: int, progress: Progress = no_progress) -> Array:
    """The metrics of each resample, [resamples, 3]; not finite where undefined. The resamples do not depend on what is predicted."""
    known = ~np.isnan(labels)
    order = np.argsort(probabilities[known], kind="stable")
    y, p = labels[known][order].astype(np.float64), probabilities[known][order].astype(np.float64)
    rng, rows, found = np.random.default_rng(0), len(y), np.full((resamples, len(NAMES)), np.nan)
    if not rows:
        return found
    inside = np.clip(p, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    losses = -np.where(y == 1, np.log(inside), np.log1p(-inside))
    ties = np.flatnonzero(np.append(True, p[1:] != p[:-1]))
    for at in range(resamples):
        weight = np.bincount(rng.integers(rows, size=rows), minlength=rows).astype(np.float64)[order]
        positive = weight * y
        up, down = np.add.reduceat(positive, ties), np.add.reduceat(weight - positive, ties)
        positives = positive.sum()
        with np.errstate(divide="ignore", invalid="ignore"):  # A metric that is undefined becomes NaN or infinite.
            auc = (up * (np.cumsum(down) - down / 2)).sum() / (positives * (rows - positives))
            found[at] = auc, weight @ losses / rows, weight @ p / positives
        progress("resampling the rows", at + 1, resamples)
    return found


def quantiles(values: Array) -> list[float] | None:
    """The ends of the 95% interval of the values that are finite; None if none is."""
    values = values[np.isfinite(values)]
    return np.quantile(values, (0.025, 0.975)).tolist() if len(values) else None
