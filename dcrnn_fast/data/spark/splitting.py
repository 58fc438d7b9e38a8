"""Splits the rows of a frame on Spark as `prepare` splits those of files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...errors import DataError
from ..build.splits import SplitArray, first_places, no_time, splits_by_hash, splits_by_name
from ..codes.numbers import FloatArray
from ..packed.meta import SPLITS
from ..read.columns import texts_of, times_of
from ..schema.files import Split
from ..schema.table import TableSchema
from .frames import PLACE, check_columns, check_texts, errors, kept, quoted
from .staging import Splits

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def splits_of(frame: DataFrame, table: TableSchema) -> tuple[str, Splits]:
    """The column by which the rows of a frame are split, and what makes splits of batches that have it. Raises as `prepare` does."""
    rule = table.split
    by = table.files.split_column if rule is None else rule.time or rule.hash
    if by is None or (rule is not None and rule.valid is None):
        raise DataError(f"schema {table.name!r} lets `prepare` draw rows, which is not done on Spark: give its `split` a `valid` part")
    check_columns("frame", frame, table)
    if by not in frame.columns:
        raise DataError(f"frame lacks the column {by} by which schema {table.name!r} splits; a derived one is not made on Spark")
    if rule is not None and rule.time is not None:
        with errors():
            starts = _first_times(frame, by, rule)
        return by, lambda batch, _: np.searchsorted(starts, _in_order(batch.column(by), by), side="right").astype(np.int8)
    check_texts("frame", frame, [by])

    def splits(batch: pa.RecordBatch, database: duckdb.DuckDBPyConnection) -> SplitArray:
        codes, texts = texts_of(batch.column(by), by, PLACE)
        names = pa.chunked_array([texts])
        at = (splits_by_name(names) if rule is None else splits_by_hash(rule, names, database))[codes].astype(np.int8)
        if (at < 0).any():
            raise DataError(f"split column {by!r} holds {texts[codes[at.argmin()]]}, expected {', '.join(SPLITS)}")
        return at

    return by, splits


def _in_order(cells: pa.Array, by: str) -> npt.NDArray[np.int64]:
    """Integers in the order of the times."""
    times: FloatArray = times_of(cells, by, PLACE).values
    if (missing := np.isnan(times)).any():
        raise no_time(PLACE, int(missing.argmax()), by)
    bits = (times + 0.0).view(np.int64)  # the two zeros become one
    return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)


def _first_times(frame: DataFrame, by: str, rule: Split) -> list[int]:
    """Where validation and test rows begin among the integers of :func:`_in_order`.

    It finds these 16 bits at a time: Spark counts no more different ones than these have.
    """
    from pyspark.sql.functions import shiftright

    def ordered(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for cells in (part.column(0) for part in parts if part.num_rows):
            moments = times_of(cells, by, PLACE).moments if cells.null_count < len(cells) else None
            yield pa.RecordBatch.from_pydict({"at": _in_order(cells, by), "moments": pa.array([moments] * len(cells), pa.bool_())})

    with kept(frame.select(quoted(by)).mapInArrow(ordered, "at long, moments boolean")) as times:
        kinds = dict(times.groupBy("moments").count().collect())
        if len(kinds.keys() - {None}) > 1:
            raise DataError(f"column {by!r} holds times in some rows, and numbers in others; write all times in one way")
        if not (rows := sum(kinds.values())):
            raise DataError("the frame has no rows")
        places = first_places(rule, rows)
        found = {place: (0, place) for place in places if place < rows}
        for shift in (48, 32, 16, 0):
            here = times if shift == 48 else times.where(shiftright("at", shift + 16).isin([leading for leading, _ in found.values()]))
            counts = sorted(here.groupBy(shiftright("at", shift)).count().collect())
            for place, (leading, left) in found.items():
                for at, count in counts:
                    if shift < 48 and at >> 16 != leading:
                        continue
                    if left < count:
                        break
                    left -= count
                found[place] = at, left
        return [found[place][0] if place in found else 2**63 - 1 for place in places]
