"""95% intervals of metrics by the bootstrap over rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FEWEST = 100
"""Resamples: of fewer, too few lie beyond an interval's ends."""


NAMES = ("auc", "log_loss", "calibration")


def bootstrap_intervals(labels: Array, probabilities: Array, resamples: int, *, seed: int = 0) -> dict[str, list[float] | None]:
    """The 2.5% and 97.5% quantiles of ``auc``, ``log_loss`` and ``calibration`` over resamples of the rows with a known label.

    ``labels`` [N] are 0, 1 or NaN; ``probabilities`` [N] lie in [0, 1]. Resamples in which a metric is undefined do not count for it; None
    if it is undefined in all of them. Rows count as independent: where the rows of one group are alike, the intervals are too narrow.

    >>> rng = np.random.default_rng(0)
    >>> p = rng.random(1000)
    >>> low, high = bootstrap_intervals((rng.random(1000) < p).astype(np.float32), p, 200)["calibration"]
    >>> low < 1 < high
    True
    """
    return _intervals(_resampled(labels, probabilities, resamples, seed))


def paired_intervals(labels: Array, one: Array, other: Array, resamples: int, *, seed: int = 0) -> dict[str, list[float] | None]:
    """As :func:`bootstrap_intervals`, of the metrics of ``one`` less those of ``other``, in the same resamples: what the rows that both
    find easy or hard have in common does not widen them.

    >>> paired_intervals(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.7, 0.6]), np.array([0.1, 0.7, 0.6]), 100)["auc"]
    [0.0, 0.0]
    """
    with np.errstate(invalid="ignore"):  # both may be undefined
        return _intervals(_resampled(labels, one, resamples, seed) - _resampled(labels, other, resamples, seed))


def _intervals(found: Array) -> dict[str, list[float] | None]:
    return {name: _quantiles(found[:, at]) for at, name in enumerate(NAMES)}


def _resampled(labels: Array, probabilities: Array, resamples: int, seed: int) -> Array:
    """The metrics of each resample, [resamples, 3]; not finite where undefined. A seed gives the same rows whatever is predicted."""
    known = ~np.isnan(labels)
    order = np.argsort(probabilities[known], kind="stable")
    y, p = labels[known][order].astype(np.float64), probabilities[known][order].astype(np.float64)
    rng, rows, found = np.random.default_rng(seed), len(y), np.full((resamples, len(NAMES)), np.nan)
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
    return found


def _quantiles(values: Array) -> list[float] | None:
    values = values[np.isfinite(values)]
    return np.quantile(values, (0.025, 0.975)).tolist() if len(values) else None
