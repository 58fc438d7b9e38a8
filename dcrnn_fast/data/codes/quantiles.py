"""Where a numeric column is cut into buckets."""

from __future__ import annotations

import numpy as np

from .sums import FloatArray, NumberCounts


def bucket_edges(values: FloatArray, buckets: int) -> FloatArray:
    """Rising edges e that cut the numbers into len(e) + 1 buckets; x falls into bucket `searchsorted(e, x, side="right")`.

    A value that fills a bucket's share of the rows (most often zero) gets a bucket of its own; the other values share the remaining buckets
    by quantiles. If there are no more distinct values than buckets, each value has its own. The result has about `buckets` buckets: a
    frequent value can split a quantile bucket in two, and repeated values can make quantiles coincide. `values` must hold no NaN.

    >>> edges = bucket_edges(np.array([0.0, 0.0, 0.0, 1.0, 2.0, 3.0]), buckets=3)
    >>> np.searchsorted(edges, [0.0, 1.0, 2.0, 3.0], side="right").tolist()
    [0, 1, 2, 2]
    """
    return edges_of(NumberCounts.of([values]), buckets)


def edges_of(numbers: NumberCounts, buckets: int) -> FloatArray:
    """The edges that :func:`bucket_edges` makes of numbers that were counted."""
    distinct, counts = numbers.values, numbers.counts
    if len(distinct) <= buckets:
        return distinct[1:]
    heavy = np.zeros(len(distinct), dtype=bool)
    while True:
        left = max(1, buckets - int(heavy.sum()))
        share = counts[~heavy].sum() / left
        more = ~heavy & (counts > share)
        if left == 1 or not more.any():
            break
        heavy |= more
    light = np.where(heavy, 0, counts)
    quantile = light / 2
    np.subtract(np.cumsum(light), quantile, out=quantile)
    np.floor(np.divide(quantile, share, out=quantile), out=quantile)
    starts = (quantile[1:] != quantile[:-1]) & ~heavy[1:] & ~heavy[:-1]
    alone = heavy & ~np.append(heavy[1:], False)  # between two frequent neighbours lies no number that a bucket could hold
    # The smallest normal number, not the smallest subnormal, separates zero: a CPU that flushes subnormals would take the latter for zero.
    with np.errstate(over="ignore"):  # Above the largest number lies infinity, which is no edge.
        above = np.maximum(numbers.next_values()[alone], distinct[alone] + np.finfo(np.float64).tiny)
    edges = np.unique(np.concatenate([distinct[1:][starts], distinct[heavy], above]))
    return edges[(edges > distinct[0]) & (edges <= distinct[-1])]
