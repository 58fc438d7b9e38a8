"""The train rows of a table, as learning reads them: one column at a time, as sums that parts of the rows add up to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...errors import DataError
from ..codes.numbers import FloatArray
from ..codes.sums import NumberCounts, Total
from ..read.text_queries import counted
from .splits import TRAIN, SplitArray
from .staging import StagedTable, TextColumn


class TrainRows(Protocol):
    """The train rows, wherever they are."""

    pool: ThreadPoolExecutor
    """Learns several columns at once."""

    def texts(self, names: Sequence[str], min_count: int, several: Collection[str] = ()) -> list[str]:
        """The texts that at least `min_count` cells of the train rows hold: the most frequent first, then in text order.

        The cells are those of all columns of `names`; in the columns `several`, each of which holds one of several values, a missing one
        does not count.
        """

    def counts(self, name: str) -> NumberCounts:
        """How often the train rows hold each number of a column, but for missing ones."""

    def total(self, name: str, of: Callable[[FloatArray], FloatArray]) -> Total:
        """The sum of a function of these numbers. Raises OverflowError for a value that is not finite."""

    def largest(self, name: str, problem: str) -> DataError:
        """The error of the train rows' number that is farthest from 0."""

    def zoned(self, name: str) -> bool | None:
        """Whether a column's times have a zone, or are numbers; None where all are missing."""


class StagedTrainRows:
    """Those of a staged table; `splits` says which these are."""

    def __init__(self, staged: StagedTable, splits: SplitArray, database: duckdb.DuckDBPyConnection) -> None:
        self.staged, self.train, self.pool = staged, splits == TRAIN, staged.pool
        self._database = database

    def texts(self, names: Sequence[str], min_count: int, several: Collection[str] = ()) -> list[str]:
        """As :class:`TrainRows` says."""
        columns = [self.staged.texts[name] for name in names]
        texts = pa.chunked_array([chunk for column in columns for chunk in column.texts().chunks], pa.string())
        counts = pa.chunked_array([self._counts(column, missing=name not in several) for name, column in zip(names, columns, strict=True)])
        return counted(self._database, texts, counts, min_count)

    def _counts(self, column: TextColumn, *, missing: bool) -> npt.NDArray[np.int32]:
        counts = np.zeros(column.positions[-1], np.int32)
        for batch in self.staged.batches:
            first, last = column.positions[batch.number : batch.number + 2]
            counts[first:last] = np.bincount(column.codes(batch)[self.train[batch.here]], minlength=last - first)
            counts[last - 1] *= missing  # A batch's last text is MISSING.
        return counts

    def counts(self, name: str) -> NumberCounts:
        """As :class:`TrainRows` says."""
        return NumberCounts.of(self._numbers(name))

    def total(self, name: str, of: Callable[[FloatArray], FloatArray]) -> Total:
        """As :class:`TrainRows` says."""
        with np.errstate(over="ignore"):
            return Total.of(map(of, self._numbers(name)))

    def zoned(self, name: str) -> bool | None:
        """As :class:`TrainRows` says; of all rows, which :func:`.staging.read_tables` compares."""
        return self.staged.zoned.get(name)

    def _numbers(self, name: str) -> Iterator[FloatArray]:
        for batch in self.staged.batches:
            values = self.staged.numbers[name].values(batch)
            yield values[self.train[batch.here] & ~np.isnan(values)]

    def largest(self, name: str, problem: str) -> DataError:
        """As :class:`TrainRows` says."""
        best, found = -1.0, DataError(problem)
        for batch in self.staged.batches:
            values = np.where(self.train[batch.here], self.staged.numbers[name].values(batch), np.nan)
            if not np.isnan(values).all() and (size := np.nanmax(np.abs(values))) > best:
                row = int(np.nanargmax(np.abs(values)))
                best, found = size, batch.place.error(f"holds {values[row]:g}, which is {problem}", row, name)
        return found
