"""The train rows of a table, as learning reads them: one column at a time, as sums that parts of the rows add up to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...errors import DataError
from ..codes.numbers import FloatArray
from ..read.text_queries import answer
from .splits import TRAIN, SplitArray
from .staging import Batch, StagedTable, TextColumn

TOO_LARGE = "too large to standardise; correct it, or use `dense: log1p` or `buckets`"


class TextQuestion(NamedTuple):
    """Which texts do at least `min_count` cells of some columns hold?

    In the columns `several`, each of which holds one of several values, a missing one does not count.
    """

    columns: Sequence[str]
    min_count: int
    several: Collection[str] = ()


class NumberQuestion(NamedTuple):
    """What do the numbers of a column say, without missing ones? The answer may be another question, which is then asked."""

    column: str
    of: Callable[[Iterator[FloatArray]], Any]
    """A summary of numbers that come some at a time. Summaries of parts add up by `+`."""
    then: Callable[[Any], Any]
    """The answer, from the summary of all train rows. Both raise OverflowError where a number is :data:`TOO_LARGE`."""


class TrainRows(Protocol):
    """The train rows, wherever they are."""

    def texts(self, questions: Sequence[TextQuestion]) -> Iterator[list[str]]:
        """The answers one by one: the most frequent text first, then in text order."""

    def numbers(self, questions: Sequence[NumberQuestion]) -> list[Future[Any]]:
        """The answers. Raises DataError, in the future, for numbers that have no summary."""


class StagedTrainRows:
    """Those of a staged table; `splits` says which these are."""

    def __init__(self, staged: StagedTable, splits: SplitArray, database: duckdb.DuckDBPyConnection) -> None:
        self.staged, self.train = staged, splits == TRAIN
        self._database = database

    def texts(self, questions: Sequence[TextQuestion]) -> Iterator[list[str]]:
        """As :class:`TrainRows` says."""
        query = "SELECT text FROM source GROUP BY text HAVING sum(n) >= $1 ORDER BY sum(n) DESC, text"
        for question in questions:
            found = answer(self._database, self.text_counts(question), query, question.min_count)
            yield [text for batch in found for text in batch.column(0).to_pylist()]

    def text_counts(self, question: TextQuestion) -> pa.Table:
        """As `text` the texts of a question's columns, a text more than once, and as `n` how many cells hold each, which may be none."""
        columns = {name: self.staged.texts[name] for name in question.columns}
        texts = [chunk for column in columns.values() for chunk in column.texts().chunks]
        counts = [self._counts(column, missing=name not in question.several) for name, column in columns.items()]
        return pa.table({"text": pa.chunked_array(texts, pa.string()), "n": pa.chunked_array(counts)})

    def _counts(self, column: TextColumn, *, missing: bool) -> npt.NDArray[np.int32]:
        counts = np.zeros(column.positions[-1], np.int32)
        for batch in self.staged.batches:
            first, last = column.positions[batch.number : batch.number + 2]
            counts[first:last] = np.bincount(column.codes(batch)[self.train[batch.here]], minlength=last - first)
            counts[last - 1] *= missing  # A batch's last text is MISSING.
        return counts

    def numbers(self, questions: Sequence[NumberQuestion]) -> list[Future[Any]]:
        """As :class:`TrainRows` says."""
        return [self.staged.pool.submit(self._answer, question) for question in questions]

    def _answer(self, question: NumberQuestion) -> Any:
        answer: Any = question
        while isinstance(answer, NumberQuestion):
            try:
                answer = answer.then(answer.of(self.numbers_of(answer.column)))
            except OverflowError:
                raise self._largest(answer.column) from None
        return answer

    def numbers_of(self, name: str) -> Iterator[FloatArray]:
        """The numbers of a column, some at a time, without missing ones."""
        for batch in self.staged.batches:
            values = self.staged.numbers[name].values(batch)
            yield values[self.train[batch.here] & ~np.isnan(values)]

    def _largest(self, name: str) -> DataError:
        """The error of the number that is farthest from 0."""

        def largest(batch: Batch) -> tuple[float, int, Batch]:
            values = np.where(self.train[batch.here], np.nan_to_num(self.staged.numbers[name].values(batch)), 0.0)
            row = int(np.abs(values).argmax())
            return float(values[row]), row, batch

        value, row, batch = max(map(largest, self.staged.batches), key=lambda one: abs(one[0]))
        return batch.place.error(f"holds {value:g}, which is {TOO_LARGE}", row, name)
