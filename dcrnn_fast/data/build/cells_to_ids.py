"""The kinds of columns: what each learns from the train rows, and what it makes of a batch of rows.

categorical  id 0: out of vocabulary (unseen, or rarer than min_count in train); then the categories, the most frequent first
             in a column of several: missing has id 0 too
hashed       id 0: missing; then 1 + the last 8 bytes of the text's MD5, as a little-endian number, modulo the number of buckets
buckets      id 0: missing; then 1 + the index of the value's bucket
dense        (x - mean) / std of the value, or of its signed log1p, sign(x) * log(1 + |x|); missing becomes 0, the train mean
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..codes.numbers import FloatArray, bucket_ids, dense_float32, edges_of, standardised, steady_edges, treated
from ..codes.sums import NumberCounts, Total
from ..codes.texts import truth_ids
from ..packed.meta import MISSING
from ..read.text_queries import hashes
from ..schema.table import Numeric
from .staging import Batch, BatchValues, StagedTable
from .train_rows import NumberQuestion


@dataclass(frozen=True)
class CategoryCode:
    """A categorical field: `entries[id]` is its text, `entries[0]` the out-of-vocabulary entry. So it stands in meta.json.

    `several` says that the column holds one of several values: a missing one has id 0, even if the entries, of another field, have it.
    """

    column: str
    entries: list[str]
    several: bool = False

    @property
    def num_embeddings(self) -> int:
        """The number of ids."""
        return len(self.entries)

    def bound(self, staged: StagedTable) -> BatchValues:
        """The ids of a staged table's rows."""
        entries: list[str | None] = list(self.entries[1:])
        if self.several and MISSING in entries:
            entries[entries.index(MISSING)] = None
        alike = truth_ids(self.entries)
        known = pa.array([*entries, *alike], pa.string())
        ids = pa.array([*range(1, len(self.entries)), *alike.values()], pa.int32())
        return staged.texts[self.column].map(lambda texts: pc.fill_null(ids.take(pc.index_in(texts, known)), 0).to_numpy(), np.int32)


@dataclass(frozen=True)
class HashCode:
    """A categorical field without a vocabulary: id 0 is missing, id 1 + b is hash bucket b. It has no entries in meta.json."""

    column: str
    buckets: int
    entries: ClassVar[list[str]] = []

    @property
    def num_embeddings(self) -> int:
        """The number of ids."""
        return self.buckets + 1

    def bound(self, staged: StagedTable, database: duckdb.DuckDBPyConnection) -> BatchValues:
        """The ids of a staged table's rows."""

        def ids(texts: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
            return np.where(pc.equal(texts, MISSING).to_numpy(), 0, 1 + hashes(database, texts) % np.uint64(self.buckets))

        return staged.texts[self.column].map(ids, np.int32)


@dataclass(frozen=True)
class BucketCode:
    """A numeric column as a field: id 0 is missing, id 1 + b is bucket b. Its entries in meta.json are the edges."""

    column: str
    entries: list[float]

    @property
    def num_embeddings(self) -> int:
        """The number of ids."""
        return len(self.entries) + 2

    def bound(self, staged: StagedTable) -> BatchValues:
        """The ids of a staged table's rows."""
        edges = np.array(self.entries, np.float64)
        return lambda batch: bucket_ids(staged.numbers[self.column].values(batch), edges).astype(np.int32)


@dataclass(frozen=True)
class DenseScale:
    """A numeric column as one float: optionally signed log1p, then standardised with the train split's mean and deviation."""

    column: str
    treatment: str
    mean: float
    std: float

    def transform(self, staged: StagedTable, batch: Batch) -> npt.NDArray[np.float32]:
        """The values of a batch's rows. Raises DataError for one that float32 cannot hold."""
        values = staged.numbers[self.column].values(batch)
        return dense_float32(standardised(treated(values, self.treatment), self.mean, self.std), values, self.column, batch.place)


Numbers = tuple[BucketCode | None, DenseScale | None]


def number_question(numeric: Numeric) -> NumberQuestion:
    """What the train rows are asked of a column of numbers; the answer is its :data:`Numbers`."""
    if numeric.buckets is not None:
        return NumberQuestion(numeric.column, NumberCounts.of, partial(_counted, numeric.column, numeric.buckets, numeric.dense))
    return _mean_question(numeric.column, str(numeric.dense), None)


def _counted(column: str, buckets: int, treatment: str | None, numbers: NumberCounts) -> Numbers | NumberQuestion:
    """The field; and the scale, if the numbers are exact. Otherwise the rows are asked for that."""
    code = BucketCode(column, steady_edges(edges_of(numbers, buckets), numbers).tolist())
    if treatment is None:
        return code, None
    if numbers.bits:
        return _mean_question(column, treatment, code)
    mean = numbers.total(partial(treated, treatment=treatment)).mean
    return _numbers(column, treatment, code, mean, numbers.total(partial(_squares, treatment, mean)))


def _mean_question(column: str, treatment: str, code: BucketCode | None) -> NumberQuestion:
    """The question of the mean, whose answer is that of the deviation from it."""
    of = partial(_total, partial(treated, treatment=treatment))
    return NumberQuestion(column, of, partial(_deviation_question, column, treatment, code))


def _deviation_question(column: str, treatment: str, code: BucketCode | None, total: Total) -> NumberQuestion:
    of = partial(_total, partial(_squares, treatment, total.mean))
    return NumberQuestion(column, of, partial(_numbers, column, treatment, code, total.mean))


def _numbers(column: str, treatment: str, code: BucketCode | None, mean: float, squares: Total) -> Numbers:
    std = math.sqrt(squares.mean)
    return code, DenseScale(column, treatment, mean, std if std > 0 else 1.0)


def _squares(treatment: str, mean: float, values: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        return np.square(treated(values, treatment) - mean)


def _total(of: Callable[[FloatArray], FloatArray], pieces: Iterator[FloatArray]) -> Total:
    return Total.of(map(of, pieces))
