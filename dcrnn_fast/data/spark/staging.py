"""The rows of a frame as a staged table of `prepare`, in pieces that Spark keeps: cells become texts and numbers once."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from ..build.splits import SplitArray
from ..build.staging import Batch, StagedTable
from ..packed.meta import SPLITS
from ..read.columns import labels_of, numbers_of, texts_of
from ..read.derive import with_derived
from ..read.text_queries import open_database
from ..schema.table import TableSchema
from .frames import PLACE, columns_of, errors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PIECE_BYTES = 1 << 24
"""Of the cells that become a piece. Spark holds several pieces in memory at a time."""

Splits = Callable[[pa.RecordBatch, duckdb.DuckDBPyConnection], SplitArray]
"""Makes the splits of a batch's rows."""


def all_in(split: int) -> Splits:
    """Puts all rows in one split."""
    return lambda batch, _: np.full(batch.num_rows, split, np.int8)


def staged(frame: DataFrame, schema: TableSchema, splits: Splits, zoned: Mapping[str, bool]) -> DataFrame:
    """The rows of a frame in pieces of some rows: their `splits`, `texts` and `numbers`, and `facts` for :func:`facts_of`, as bytes.

    Columns that the frame lacks stay away. `zoned` says by column whether its times have a zone, if that is known.
    """
    derived, labels, texts, numbers = schema.all_derived, schema.label_columns(), schema.text_columns(), schema.number_columns()

    def pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        here = dict(zoned)
        with tempfile.TemporaryDirectory() as scratch, open_database(Path(scratch)) as database:
            for source in _joined(batches):
                split, batch = splits(source, database), with_derived(source, derived, PLACE, here)
                there = dict(zip(batch.schema.names, batch.columns, strict=True))
                parsed = {name: (labels_of if name in labels else numbers_of)(there[name], name, PLACE) for name in numbers & there.keys()}
                cells = {
                    "splits": split.tobytes(),
                    "texts": pickle.dumps({name: texts_of(there[name], name, PLACE) for name in texts & there.keys()}),
                    "numbers": pickle.dumps(parsed),
                    "facts": pickle.dumps((np.bincount(split, minlength=len(SPLITS)), here)),
                }
                yield pa.RecordBatch.from_pydict({name: pa.array([content], pa.binary()) for name, content in cells.items()})

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
        for piece in (piece for batch in pieces for piece in pa.Table.from_batches([batch]).to_batches(max_chunksize=1)):
            cells = {name: column[0].as_buffer() for name, column in zip(piece.schema.names, piece.columns, strict=True)}
            splits.append(np.frombuffer(cells["splits"], np.int8))
            for name, texts in loaded(cells["texts"]).items() if "texts" in cells else ():
                table.texts[name].append(*texts)
            for name, numbers in loaded(cells["numbers"]).items() if "numbers" in cells else ():
                table.numbers[name].append(numbers)
            table.batches.append(Batch(len(table.batches), table.rows, len(splits[-1]), PLACE))
        yield table, np.concatenate(splits), database


def loaded(content: Any) -> Any:
    """What a task has pickled."""
    return pickle.loads(content)  # noqa: S301  by Spark's own workers: it comes from no file


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Spark's batches, joined to larger ones."""
    waiting = list[pa.RecordBatch]()
    for batch in batches:
        waiting.append(batch)
        if sum(one.nbytes for one in waiting) >= PIECE_BYTES:
            yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()
            waiting = []
    if waiting:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()
