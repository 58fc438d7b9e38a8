"""Where numbers are cut into buckets, and what a number becomes: an id or a dense value. `Place` says where it stands. Needs NumPy only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from .sums import FloatArray, NumberCounts

ROUNDING = 2.0**-23
"""A number that is rounded to float32 moves by less than this part of it."""


class Place(NamedTuple):
    """Where a batch comes from: its file, and how many rows of that file come before it. Rejected rows do not count."""

    path: Path
    before: int

    def error(self, problem: str, row: int | np.integer[Any] | None = None, column: str | None = None) -> DataError:
        """The error of a row of the batch, counted from 0, and of a column."""
        return DataError(problem, table=str(self.path), row=None if row is None else self.before + int(row) + 1, column=column)


def check_finite(values: FloatArray, column: str, place: Place) -> None:
    """Raise DataError that names the row of an infinite value. NaN, a missing value, is none."""
    infinite = np.isinf(values)
    if infinite.any():
        raise place.error("holds an infinite value; make it finite, or empty (missing)", infinite.argmax(), column)


def bucket_ids(values: FloatArray, edges: FloatArray) -> npt.NDArray[np.int64]:
    """0 where missing, else 1 + the index of the value's bucket."""
    return np.where(np.isnan(values), 0, edges.searchsorted(values, side="right") + 1)


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


def steady_edges(edges: FloatArray, numbers: NumberCounts) -> FloatArray:
    """The edges that :func:`edges_of` makes of `numbers`, moved a little: a number keeps its bucket when it is rounded to float32.

    So float32 cells get the ids of float64 cells, whichever the train rows had. An edge at an integer stays, which float32 holds exactly,
    and so does one between numbers that float32 does not tell apart.
    """
    at = np.searchsorted(numbers.values, edges)  # of the least number above an edge, or at it
    before, below, above = numbers.values[at - 1], numbers.next_values()[at - 1], numbers.values[at]
    room_below, room_above = (np.where((n == np.rint(n)) & (np.abs(n) <= 2**24), 0.0, np.abs(n) * ROUNDING) for n in (before, above))
    moved = np.where(edges == above, above - room_above, np.maximum(edges, below + room_below))
    return np.where(below + room_below <= above - room_above, moved, edges)


def treated(values: FloatArray, treatment: str) -> FloatArray:
    """The values, or of treatment "log1p" their signed log1p."""
    return np.sign(values) * np.log1p(np.abs(values)) if treatment == "log1p" else values


def standardised(values: FloatArray, mean: float | FloatArray, std: float | FloatArray) -> FloatArray:
    """(x - mean) / std; missing becomes 0. `mean` and `std` are numbers, or arrays that broadcast."""
    with np.errstate(over="ignore"):
        scaled = (values - mean) / std
    return np.where(np.isnan(scaled), 0.0, scaled)


def float32(values: FloatArray, cells: FloatArray, column: str, place: Place, problem: str) -> npt.NDArray[np.float32]:
    """The values as float32. Raises DataError that shows the first cell whose value is infinite there."""
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    infinite = np.isinf(result)
    if infinite.any():
        row = infinite.argmax()
        raise place.error(f"holds {cells[row]:g}, which is {problem}", row, column)
    return result


def dense_float32(scaled: FloatArray, cells: FloatArray, column: str, place: Place) -> npt.NDArray[np.float32]:
    """Dense values as float32. Raises DataError for one that float32 cannot hold."""
    return float32(scaled, cells, column, place, "too far from the train rows' mean for float32; correct it, or use `buckets`")
