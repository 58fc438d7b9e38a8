"""Learns from train rows on Spark: what is learned is a sum, which the parts of a table add up to in any order."""

from __future__ import annotations

import operator
import pickle
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from ...errors import DataError
from ..build.apply import FittedSchema
from ..build.build import meta_of
from ..codes.numbers import FloatArray
from ..codes.sums import NumberCounts, Total
from ..encoder.encoder import Encoder
from ..packed.arrays import PackedWriter
from ..packed.meta import SPLITS
from ..read.columns import as_times, numbers_of, texts_of
from ..read.derive import is_zoned, with_derived
from ..schema.fields import Derived
from ..schema.table import TableSchema
from .frames import PLACE, check_columns, columns_of, errors, without_histories
from .packing import copy_folder, new_folder

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

T = TypeVar("T", NumberCounts, Total)
JOBS = 4
"""Columns that are learned at the same time."""


def learn(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path) -> Encoder:
    """Learn from train rows what `prepare` learns from them, and write it to `output`, as a packed folder without rows.

    `frame` holds the train rows alone, with the columns that features are made of. It is read once for each column, so it must give the
    same rows each time: cache what is drawn. `schema` is a path or a dict; its `files` and `split` must be valid, and are not read.
    `output` is a path or an address, such as s3://bucket/learned; `prepare(output)` opens it, and its `meta.encoding` encodes other rows
    alike. The driver learns a few columns at a time; it holds the vocabulary of each, or adds up the last parts of its distinct numbers.

    Raises DataError for an invalid schema, one with `histories`, a frame without rows or without a column, times that are used as text,
    cells that are not what their column is used as, and an `output` that exists.
    """
    table, (system, root) = without_histories(schema), new_folder(output)
    check_columns("frame", frame, table)
    with ThreadPoolExecutor(JOBS) as pool, errors():
        if frame.isEmpty():
            raise DataError(f"schema {table.name!r}: the frame has no train rows")
        fitted = FittedSchema.fit(table, SparkTrainRows(frame, table, pool), lambda what, done, total: None)
    with tempfile.TemporaryDirectory() as scratch:
        with PackedWriter(Path(scratch), meta_of(table, fitted, dict.fromkeys(SPLITS, 0))) as writer:
            writer.finish()
        try:
            copy_folder(scratch, system, root)
        except BaseException:
            with suppress(OSError):
                system.delete_dir(root)
            raise
        return Encoder.load(scratch)


class SparkTrainRows:
    """The train rows in a frame, as :class:`.build.train_rows.TrainRows`. Each question is a job that reads the columns behind one."""

    def __init__(self, frame: DataFrame, schema: TableSchema, pool: ThreadPoolExecutor) -> None:
        self._frame, self._schema, self.pool = frame, schema, pool

    def texts(self, names: Sequence[str], min_count: int, several: Collection[str] = ()) -> list[str]:
        """As :class:`.build.train_rows.TrainRows` says."""

        def counted(name: str) -> DataFrame:
            def batches(columns: Iterator[pa.Array]) -> Iterator[pa.RecordBatch]:
                for column in columns:
                    codes, texts = texts_of(column, name, PLACE)
                    counts = np.bincount(codes, minlength=len(texts))
                    counts[-1] *= name not in several  # the last text is MISSING
                    held = pa.array(counts > 0)
                    yield pa.RecordBatch.from_pydict({"text": texts.filter(held), "n": pa.array(counts).filter(held)})

            return self._mapped(name, batches, "text string, n long")

        frame = reduce(lambda one, other: one.unionAll(other), map(counted, names))
        found = frame.groupBy("text").sum("n").toDF("text", "n").where(f"n >= {min_count}").toArrow().to_pydict()
        in_order = sorted(zip(found["n"], found["text"], strict=True), key=lambda pair: (-pair[0], pair[1]))
        return [text for _, text in in_order]

    def counts(self, name: str) -> NumberCounts:
        """As :class:`.build.train_rows.TrainRows` says."""
        return self._summed(name, NumberCounts.of)

    def total(self, name: str, of: Callable[[FloatArray], FloatArray]) -> Total:
        """As :class:`.build.train_rows.TrainRows` says."""
        with errors():
            return self._summed(name, lambda numbers: Total.of(map(of, numbers)))

    def largest(self, name: str, problem: str) -> DataError:
        """As :class:`.build.train_rows.TrainRows` says."""
        return DataError(f"holds a number that is {problem}", column=name)

    def zoned(self, name: str) -> bool | None:
        """As :class:`.build.train_rows.TrainRows` says. Raises DataError for times of both kinds."""

        def batches(columns: Iterator[pa.Array]) -> Iterator[pa.RecordBatch]:
            found = {is_zoned(as_times(column, name, PLACE)) for column in columns if column.null_count < len(column)}
            yield pa.RecordBatch.from_pydict({"zoned": pa.array(found, pa.bool_())})

        held = {row.zoned for row in self._mapped(name, batches, "zoned boolean").distinct().collect()}
        if len(held) > 1:
            raise PLACE.error("holds times with a zone, or numbers, and times without; write all times alike", column=name)
        return next(iter(held), None)

    def _summed(self, name: str, of: Callable[[Iterator[FloatArray]], T]) -> T:
        """The sum of a part for each task."""

        def batches(columns: Iterator[pa.Array]) -> Iterator[pa.RecordBatch]:
            numbers = (numbers_of(column, name, PLACE) for column in columns)
            yield pa.RecordBatch.from_pydict({"part": [pickle.dumps(of(some[~np.isnan(some)] for some in numbers))]})

        made = self._mapped(name, batches, "part binary").rdd  # by Spark's own workers: what is unpickled comes from no file
        parts = made.map(lambda row: pickle.loads(row.part))  # noqa: S301
        return parts.treeReduce(operator.add, depth=3)

    def _mapped(self, name: str, batches: Callable[[Iterator[pa.Array]], Iterator[pa.RecordBatch]], schema: str) -> DataFrame:
        """What a function makes of the batches of a column, which may be a derived one."""
        behind, derived = {name}, list[Derived]()
        for one in reversed(self._schema.all_derived):
            if one.name in behind:
                behind.remove(one.name)
                behind.update(one.sources())
                derived.insert(0, one)

        def columns(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return batches(with_derived(part, derived, PLACE).column(name) for part in parts if part.num_rows)

        return columns_of(self._frame, behind).mapInArrow(columns, schema)
