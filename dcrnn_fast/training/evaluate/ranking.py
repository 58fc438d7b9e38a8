"""How each group's rows are ranked, such as the items of one request: NDCG, MRR and hit rate as well as GAUC, and their intervals.

All are means over the groups that hold both classes; the others are undefined, and counted. Equal scores are ranked at random, by a fixed
seed: a constant model ranks no better than chance. Intervals are 95% intervals by the bootstrap over groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ...data.inspect.base_rates import Array
from ...errors import ConfigError, shown
from .metrics import group_aucs, quantiles

K = 10
"""The ranks that NDCG and the hit rate look at, unless an argument says otherwise."""


class Groups(NamedTuple):
    """Of the n groups that hold both classes: by metric its values [n] and the groups' weights [n]; and how many other groups there are."""

    values: dict[str, Array]
    weights: dict[str, Array]
    undefined: int


def check_k(k: Any) -> None:
    """Raise ConfigError unless ``k`` is a number of ranks."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"k={shown(k)}: expected an integer of at least 1, the ranks that NDCG and the hit rate look at")


def per_group(labels: Array, scores: Array, group: Array, k: int) -> Groups:
    """The metrics of each group.

    ``labels`` [N] are 0, 1 or NaN (unknown: left out), ``scores`` [N], ``group`` [N], negative where it is missing. NDCG counts a positive
    at rank i, from 1 on, as 1 / log2(i + 1) for i <= k, over the most that the group's positives can have (Jarvelin and Kekalainen, TOIS
    2002). MRR is the mean of 1 / the rank of the first positive, and the hit rate the part of the groups with a positive up to rank k.

    >>> found = per_group(np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.9, 0.1, 0.8, 0.3]), np.array([7, 7, 9, 9]), k=1)
    >>> {name: values.tolist() for name, values in found.values.items()}
    {'gauc': [1.0, 0.0], 'ndcg@1': [1.0, 0.0], 'mrr': [1.0, 0.5], 'hit_rate@1': [1.0, 0.0]}
    """
    kept = (group >= 0) & ~np.isnan(labels)
    labels, scores, group = labels[kept].astype(np.float64), scores[kept], group[kept]
    order = np.lexsort((np.random.default_rng(0).permutation(len(labels)), -scores.astype(np.float64), group))
    labels, group = labels[order], group[order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    sizes = np.diff(np.append(starts, len(labels)))
    rank = np.arange(1, len(labels) + 1) - np.repeat(starts, sizes)
    positives = np.add.reduceat(labels, starts).astype(np.int64)
    both = (positives > 0) & (positives < sizes)
    gained = np.add.reduceat(labels * (rank <= k) / np.log2(rank + 1), starts)[both]
    ideal = np.cumsum(1 / np.log2(np.arange(min(k, len(labels))) + 2))
    first = np.minimum.reduceat(np.where(labels == 1, rank, len(labels) + 1), starts)[both]
    aucs, rows = group_aucs(labels, scores[order], group)
    found = aucs, gained / ideal[np.minimum(positives[both], k) - 1], 1 / first, (first <= k).astype(np.float64)
    names, ones = names_of(k), np.ones(len(first))
    return Groups(dict(zip(names, found, strict=True)), dict.fromkeys(names, ones) | {"gauc": rows}, int((~both).sum()))


def names_of(k: int) -> tuple[str, ...]:
    """The metrics of groups."""
    return "gauc", f"ndcg@{k}", "mrr", f"hit_rate@{k}"


def title_of(name: str) -> str | None:
    """How a table calls one of them; None of another name."""
    metric, at, k = name.partition("@")
    title = {"gauc": "GAUC", "ndcg": "NDCG", "mrr": "MRR", "hit_rate": "hit rate"}.get(metric)
    return title and title + at + k


def add_ranking(
    metrics: Mapping[str, dict[str, Any]], labels: Mapping[str, Array], predicted: Mapping[str, Array], group: Array, k: int
) -> None:
    """Add to each task's metrics those of its groups, and how many groups there are and how many of them are undefined.

    ``labels`` and ``predicted`` are [N] by task.
    """
    for name, entry in metrics.items():
        found = per_group(labels[name], predicted[name], group, k)
        means = {at: np.average(values, weights=found.weights[at]) if len(values) else None for at, values in found.values.items()}
        entry |= {at: None if mean is None else float(mean) for at, mean in means.items()}
        entry |= {"groups": len(found.values["mrr"]) + found.undefined, "groups_undefined": found.undefined}


def ranking_intervals(
    labels: Array, one: Array, group: Any, k: int, resamples: int, *, other: Array | None = None
) -> dict[str, list[float] | None]:
    """The 95% intervals of a task's metrics of groups, or of those of ``one`` less those of ``other``; with no ``group`` nothing.

    >>> found = ranking_intervals(np.array([1.0, 0.0]), np.array([0.9, 0.1]), np.array([7, 7]), 10, 100)
    >>> found["ndcg@10"]
    [1.0, 1.0]
    """
    if group is None:
        return {}
    found = per_group(labels, one, np.asarray(group), k)
    values, weights = np.stack(list(found.values.values())), np.stack(list(found.weights.values()))
    if other is not None:
        values = values - np.stack(list(per_group(labels, other, np.asarray(group), k).values.values()))
    rng, count, means = np.random.default_rng(0), values.shape[1], np.full((resamples, len(values)), np.nan)
    weighted = values * weights
    for at in range(resamples if count else 0):
        drawn = rng.integers(count, size=count)
        means[at] = weighted[:, drawn].sum(1) / weights[:, drawn].sum(1)
    return {name: quantiles(means[:, at]) for at, name in enumerate(found.values)}
