"""The rows of a frame as a staged table of `prepare`, with their splits, in pieces that Spark keeps: each cell is read once."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...errors import DataError
from ..build.apply import FittedSchema
from ..build.splits import SplitArray, first_places, no_time, splits_by_hash, splits_by_name
from ..build.staging import Batch, StagedTable
from ..codes.sums import places_of
from ..packed.meta import SPLITS
from ..read.columns import labels_of, numbers_of, texts_of, times_of
from ..read.derive import with_derived
from ..read.text_queries import open_database
from ..schema.fields import zoned_columns
from ..schema.files import Split
from ..schema.table import TableSchema
from .frames import PLACE, check_columns, columns_of, errors, kept

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PIECE_BYTES = 1 << 24
"""Of the cells that become a piece. Spark holds several pieces in memory at a time."""

Splits = Callable[[pa.RecordBatch, duckdb.DuckDBPyConnection], SplitArray]
"""Makes the splits of a batch's rows."""


def splits_of(frame: DataFrame, table: TableSchema) -> Splits:
    """What makes the splits of batches of a frame's rows. Raises as `prepare` does."""
    rule = table.split
    by = table.files.split_column if rule is None else rule.time or rule.hash
    if by is None or (rule is not None and rule.valid is None):
        raise DataError(f"schema {table.name!r} lets `prepare` draw rows, which is not done on Spark: give its `split` a `valid` part")
    if by not in frame.columns:
        raise DataError(f"frame lacks the column {by} by which schema {table.name!r} splits; a derived one is not made on Spark")
    check_columns(frame, table)
    if rule is not None and rule.time is not None:
        with errors():
            starts = _first_times(frame, by, rule)
        return lambda batch, _: np.searchsorted(starts, _in_order(batch.column(by), by), side="right").astype(np.int8)

    def splits(batch: pa.RecordBatch, database: duckdb.DuckDBPyConnection) -> SplitArray:
        codes, texts = texts_of(batch.column(by), by, PLACE)
        names = pa.chunked_array([texts])
        at = (splits_by_name(names) if rule is None else splits_by_hash(rule, names, database))[codes].astype(np.int8)
        if (at < 0).any():
            raise DataError(f"split column {by!r} holds {texts[codes[at.argmin()]]}, expected {', '.join(SPLITS)}")
        return at

    return splits


def _in_order(cells: pa.Array, by: str) -> npt.NDArray[np.int64]:
    """Integers in the order of the times."""
    times = times_of(cells, by, PLACE).values
    if (missing := np.isnan(times)).any():
        raise no_time(PLACE, int(missing.argmax()), by)
    return places_of(times + 0.0)  # the two zeros become one


def _first_times(frame: DataFrame, by: str, rule: Split) -> list[int]:
    """Where validation and test rows begin among the integers of :func:`_in_order`."""

    def ordered(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for cells in (part.column(0) for part in parts if part.num_rows):
            kind = times_of(cells, by, PLACE).kind if cells.null_count < len(cells) else None
            yield pa.RecordBatch.from_pydict({"at": _in_order(cells, by), "kind": pa.array([kind] * len(cells), pa.string())})

    with kept(columns_of(frame, [by]).mapInArrow(ordered, "at long, kind string")) as times:
        kinds = dict(times.groupBy("kind").count().collect())
        if len(held := sorted(kinds.keys() - {None})) > 1:
            raise DataError(f"column {by!r} holds {held[0]} in some rows, and {held[1]} in others; write all times in one way")
        if not (rows := sum(kinds.values())):
            raise DataError("the frame has no rows")
        return [_at(times, place) if place < rows else 2**63 - 1 for place in first_places(rule, rows)]


def _at(times: DataFrame, place: int) -> int:
    """The integer at a place among all, as they rise. It is found 16 bits at a time: Spark counts no more different ones at once."""
    from pyspark.sql.functions import shiftright

    for shift in (48, 32, 16, 0):
        leading, counts = zip(*sorted(times.groupBy(shiftright("at", shift)).count().collect()), strict=True)
        ends = np.cumsum(counts)
        here = int(np.searchsorted(ends, place, side="right"))
        place -= int(ends[here]) - counts[here]
        times = times.where(shiftright("at", shift) == leading[here])
    return int(leading[here])


def staged(frame: DataFrame, schema: TableSchema, splits: Splits, fitted: FittedSchema | None = None) -> DataFrame:
    """The rows of a frame in pieces of some rows: their `splits`, `texts` and `numbers`, and `facts` for :func:`facts_of`, as bytes.

    Columns that the frame lacks stay away. Times have a zone where those that `fitted` was learned from have one.
    """
    zoned = zoned_columns(schema.derived_features) if fitted is None else fitted.zoned
    derived, labels, texts, numbers = schema.all_derived, schema.label_columns(), schema.text_columns(), schema.number_columns()

    def pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        here = dict(zoned)
        with tempfile.TemporaryDirectory() as scratch, open_database(Path(scratch)) as database:
            for source in _joined(batches):
                split, batch = splits(source, database), with_derived(source, derived, PLACE, here)
                there = dict(zip(batch.schema.names, batch.columns, strict=True))
                parsed = {name: (labels_of if name in labels else numbers_of)(there[name], name, PLACE) for name in numbers & there.keys()}
                piece = {
                    "splits": split.tobytes(),
                    "texts": pickle.dumps({name: texts_of(there[name], name, PLACE) for name in texts & there.keys()}),
                    "numbers": pickle.dumps(parsed),
                    "facts": pickle.dumps((np.bincount(split, minlength=len(SPLITS)), here)),
                }
                yield pa.RecordBatch.from_pylist([piece])

    made = "splits binary, texts binary, numbers binary, facts binary"
    return columns_of(frame, set().union(*schema.file_columns())).mapInArrow(pieces, made)


def facts_of(pieces: DataFrame) -> tuple[list[int], dict[str, bool]]:
    """The rows of each split, and by column whether its times have a zone. Raises DataError for times of both kinds in a column."""
    rows, zoned = np.zeros(len(SPLITS), np.int64), dict[str, bool]()
    with errors():
        facts = [loaded(row.facts) for row in pieces.select("facts").collect()]
    for more, here in facts:
        rows += more
        for name, value in here.items():
            if zoned.setdefault(name, value) != value:
                raise PLACE.error("holds times with a zone, or numbers, and times without; write all times alike", column=name)
    return rows.tolist(), zoned


@contextmanager
def opened(pieces: Iterable[pa.RecordBatch], schema: TableSchema) -> Iterator[tuple[StagedTable, SplitArray, duckdb.DuckDBPyConnection]]:
    """The pieces of a partition as a staged table on this machine, the splits of its rows, and a database.

    The table has no cells in the columns that the pieces lack.
    """
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as pool, open_database(Path(scratch)) as database:
        table, splits = StagedTable(schema, Path(scratch), pool), [np.zeros(0, np.int8)]
        for batch in pieces:
            for row in range(batch.num_rows):
                (piece,) = batch.slice(row, 1).to_pylist()
                splits.append(np.frombuffer(piece["splits"], np.int8))
                for name, texts in loaded(piece["texts"]).items() if "texts" in piece else ():
                    table.texts[name].append(*texts)
                for name, numbers in loaded(piece["numbers"]).items() if "numbers" in piece else ():
                    table.numbers[name].append(numbers)
                table.batches.append(Batch(len(table.batches), table.rows, len(splits[-1]), PLACE))
        yield table, np.concatenate(splits), database


def loaded(content: Any) -> Any:
    """What a task has pickled."""
    return pickle.loads(content)  # noqa: S301  by Spark's own workers: it comes from no file


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Spark's batches, joined to larger ones."""
    read = 0

    def piece(batch: pa.RecordBatch) -> int:
        nonlocal read
        read += batch.nbytes
        return read // PIECE_BYTES

    for _, some in groupby(batches, piece):
        yield from pa.Table.from_batches(list(some)).combine_chunks().to_batches()
