"""Learns and encodes on Spark, with the bits of `prepare`: what is learned is a sum, which the parts of a table add up to in any order.

Needs dcrnn_fast[spark] and Java, and dcrnn_fast[train] on every machine, for the Python that `PYSPARK_PYTHON` names there.
"""

from __future__ import annotations

import operator
import os
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import DataError
from ..support.files import path_of
from .build.apply import FittedSchema
from .build.build import meta_of
from .catalog import table_schema
from .codes.numbers import FloatArray, Place
from .codes.sums import NumberCounts, Total
from .encoder.encoder import Encoder
from .packed.arrays import PackedWriter, writing_packed
from .packed.meta import SPLITS
from .read.columns import numbers_of, texts_of
from .read.derive import with_derived
from .schema.fields import Derived
from .schema.table import TableSchema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

T = TypeVar("T", NumberCounts, Total)
JOBS = 4
"""Columns that are learned at the same time."""
PLACE = Place(Path("a batch on Spark"), 0)


def learn(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path) -> Encoder:
    """Learn from train rows what `prepare` learns from them, and write it to `output`, as a packed folder without rows.

    `frame` holds the train rows alone, with the columns that features are made of; of the schema, a path or a dict, `files` and `split` are
    not read. `Encoder.load(output)` opens the folder, and `prepare(data, encoding=open_packed(output).meta.encoding)` encodes other rows
    alike. The driver learns a few columns at a time, and holds the vocabulary or the distinct numbers of each.

    Raises DataError for an invalid schema, one with `histories`, a frame without rows or without a column, cells that are not what their
    column is used as, and an `output` that exists.
    """
    table, folder = table_schema(schema)[0], path_of("output", output)
    if table.histories:
        raise DataError(f"schema {table.name!r} has histories, which are not collected on Spark: add their items to the rows, as lists")
    if os.path.lexists(folder):
        raise DataError(f"{folder} exists; delete it, or choose another folder")
    if frame.isEmpty():
        raise DataError(f"schema {table.name!r}: the frame has no train rows")
    with ThreadPoolExecutor(JOBS) as pool:
        fitted = FittedSchema.fit(table, SparkTrainRows(frame, table, pool), lambda what, done, total: None)
    with writing_packed(folder) as beside, PackedWriter(beside, meta_of(table, fitted, dict.fromkeys(SPLITS, 0))) as writer:
        writer.finish()
    return Encoder.load(folder)


def encoded(frame: DataFrame, encoder: Encoder, keep: Sequence[str] = ()) -> DataFrame:
    """The rows of `frame` as `ids` (a list of int32, one for each of the encoder's `num_embeddings`) and `dense` (a list of float32),
    beside the columns `keep`. Spark calls the encoder on batches of rows."""
    from pyspark.sql.types import ArrayType, FloatType, IntegerType, StructField, StructType

    everywhere = frame.sparkSession.sparkContext.broadcast(encoder)

    def batches(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in parts:
            ids, dense = everywhere.value.encode(part)
            columns = {name: part.column(name) for name in keep}
            columns["ids"] = _lists(ids.numpy().astype(np.int32))
            columns["dense"] = _lists(np.empty((len(ids), 0), np.float32) if dense is None else dense.numpy())
            yield pa.RecordBatch.from_pydict(columns)

    kept = [frame.schema[name] for name in keep]
    made = [StructField("ids", ArrayType(IntegerType(), False), False), StructField("dense", ArrayType(FloatType(), False), False)]
    return frame.select(*dict.fromkeys([*keep, *encoder.columns])).mapInArrow(batches, StructType([*kept, *made]))


class SparkTrainRows:
    """The train rows in a frame, as :class:`.build.train_rows.TrainRows`. Each question is a job that reads the columns behind one."""

    def __init__(self, frame: DataFrame, schema: TableSchema, pool: ThreadPoolExecutor) -> None:
        self._frame, self._schema, self.pool = frame, schema, pool

    def texts(self, names: Sequence[str], min_count: int, limit: int | None = None, *, several: Collection[str] = ()) -> list[str]:
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
        return [text for _, text in in_order[:limit]]

    def counts(self, name: str) -> NumberCounts:
        """As :class:`.build.train_rows.TrainRows` says."""
        return self._summed(name, NumberCounts.of)

    def total(self, name: str, of: Callable[[FloatArray], FloatArray]) -> Total:
        """As :class:`.build.train_rows.TrainRows` says."""
        return self._summed(name, lambda numbers: Total.of(map(of, numbers)))

    def largest(self, name: str) -> str:
        """As :class:`.build.train_rows.TrainRows` says."""
        return f"column {name!r} holds a number"

    def _summed(self, name: str, of: Callable[[Iterator[FloatArray]], T]) -> T:
        """The sum of a part for each task."""

        def batches(columns: Iterator[pa.Array]) -> Iterator[pa.RecordBatch]:
            numbers = (numbers_of(column, name, PLACE) for column in columns)
            yield pa.RecordBatch.from_pydict({"part": [pickle.dumps(of(some[~np.isnan(some)] for some in numbers))]})

        parts = self._mapped(name, batches, "part binary").rdd.map(lambda row: pickle.loads(row.part))  # noqa: S301  # what Spark's own workers made
        return parts.treeReduce(operator.add)

    def _mapped(self, name: str, batches: Callable[[Iterator[pa.Array]], Iterator[pa.RecordBatch]], schema: str) -> DataFrame:
        """What a function makes of the batches of a column, which may be a derived one."""
        behind, derived = {name}, list[Derived]()
        for one in reversed(self._schema.all_derived):
            if one.name in behind:
                behind.remove(one.name)
                behind.update(one.sources())
                derived.insert(0, one)
        read = [column for column in self._frame.columns if column in behind]
        if missing := sorted(behind - set(read)):
            raise DataError(f"the frame lacks the columns {', '.join(missing)} that schema {self._schema.name!r} uses")

        def columns(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return batches(with_derived(part, derived, PLACE).column(name) for part in parts if part.num_rows)

        return self._frame.select(*read).mapInArrow(columns, schema)


def _lists(rows: npt.NDArray[Any]) -> pa.ListArray:
    """The rows of a matrix [N, C] as N lists."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(rows).ravel()))
