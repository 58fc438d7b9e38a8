"""Is a difference of AUC more than chance? Over the seeds, and over the test rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)


def over_seeds(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """The mean of the differences by seed, and t, which is it over its standard error; None where there is no spread."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return mean, mean / error if error else None


def weighted_auc(labels: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], float]:
    """A function from the weights of the rows to the AUC; ties count one half. ``labels`` [N] in {0, 1}, ``scores`` [N].

    A resample with replacement is a vector of weights, how often each row was drawn. NaN where the weights leave one class alone.
    """
    positive = np.flatnonzero(labels == 1)
    negative = np.flatnonzero(labels == 0)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    sorted_scores = scores[negative]
    low, high = (np.searchsorted(sorted_scores, scores[positive], side=side) for side in ("left", "right"))

    def auc(weights: np.ndarray) -> float:
        below = np.concatenate([[0.0], np.cumsum(weights[negative], dtype=np.float64)])
        own = weights[positive]
        pairs = own.sum() * below[-1]
        return float((own * (below[low] + below[high])).sum() / 2 / pairs) if pairs else math.nan

    return auc


def over_rows(
    labels: np.ndarray, scores: Mapping[Name, np.ndarray], against: Name, resamples: int, seed: int = 0
) -> dict[Name, tuple[float, float]]:
    """The 2.5% and 97.5% quantiles of each model's AUC minus that of ``against`` over resamples of the test rows.

    ``labels`` [N], NaN where unknown; ``scores`` [S, N] of every model, one row a seed. The statistic is the mean over the seeds of the
    AUCs of single runs, not the AUC of a mean prediction. In one resample all models and seeds have the same rows.
    """
    known = ~np.isnan(labels)
    aucs = {name: [weighted_auc(labels[known], of_seed[known]) for of_seed in of_model] for name, of_model in scores.items()}
    rng, rows = np.random.default_rng(seed), int(known.sum())
    differences: dict[Name, list[float]] = {name: [] for name in scores if name != against}
    for _ in range(resamples):
        weights = np.bincount(rng.integers(0, rows, rows), minlength=rows).astype(np.float64)
        means = {name: statistics.fmean(auc(weights) for auc in of_model) for name, of_model in aucs.items()}
        for name, values in differences.items():
            values.append(means[name] - means[against])
    return {name: tuple(map(float, np.nanquantile(values, (0.025, 0.975)))) for name, values in differences.items()}
