"""Splits the rows of a frame on Spark as `prepare` splits those of files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...errors import DataError
from ..build.splits import TEST, TRAIN, VALID, first_places, no_time, splits_by_hash, splits_by_name
from ..codes.numbers import FloatArray
from ..packed.meta import SPLITS
from ..read.columns import texts_of, times_of
from ..read.text_queries import open_database
from ..schema.files import Split
from .frames import PLACE, check_columns, check_texts, columns_of, errors, quoted, without_histories

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

AT = "dcrnn_fast_splits_by"
"""The column that :func:`split` adds: integers, which are the rows' splits, or lie in the order of their times."""


def split(frame: DataFrame, schema: str | Path | Mapping[str, Any]) -> dict[str, DataFrame]:
    """The train, valid and test rows of a frame by the schema's `split` or `split_column`, with the columns that the schema uses.

    A split by time counts the rows by their times first, in ten jobs. Raises DataError for a schema whose `prepare` draws test or
    validation rows, for one with `histories` or a split by a derived column, and for a frame without rows, that lacks a column, with rows
    without a time, with times that are hashed, or without rows of a split that its column names.
    """
    from pyspark.sql.functions import arrow_udf, col

    table = without_histories(schema)
    rule = table.split
    by = table.files.split_column if rule is None else rule.time or rule.hash
    if by is None or (rule is not None and rule.valid is None):
        raise DataError(f"schema {table.name!r} lets `prepare` draw rows, which is not done on Spark: give its `split` a `valid` part")
    check_columns("frame", frame, table)
    if by not in frame.columns:
        raise DataError(f"frame lacks the column {by} by which schema {table.name!r} splits; a derived one is not made on Spark")
    timed = rule if rule is not None and rule.time is not None else None
    if timed is None:
        check_texts("frame", frame, [by])

    @arrow_udf("bigint")
    def at(cells: pa.Array) -> pa.Array:
        return pa.array(_in_order(cells, by) if timed is not None else _splits(cells, by, rule))

    whole = columns_of(frame, set().union(*table.file_columns())).withColumn(AT, at(col(quoted(by))))
    starts = [TRAIN, VALID, TEST]
    with errors():
        if timed is not None:
            starts[1:] = _first_times(whole, frame, by, timed)
        elif rule is None and (lacking := set(starts) - {row[0] for row in whole.select(AT).distinct().collect()}):
            raise DataError(f"split column {by!r} names no {SPLITS[min(lacking)]} rows, expected {', '.join(SPLITS)}: Spark draws none")
    train, valid = col(AT) < starts[1], col(AT) < starts[2]
    return {"train": whole.where(train), "valid": whole.where(~train & valid), "test": whole.where(~valid)}


def _splits(cells: pa.Array, by: str, rule: Split | None) -> npt.NDArray[np.int64]:
    """The rows' splits by the hashes of the cells, or without a rule by what they name."""
    codes, texts = texts_of(cells, by, PLACE)
    names = pa.chunked_array([texts])
    if rule is not None:
        with tempfile.TemporaryDirectory() as scratch, open_database(Path(scratch)) as database:
            return splits_by_hash(rule, names, database)[codes].astype(np.int64)
    at = splits_by_name(names)[codes].astype(np.int64)
    if (at < 0).any():
        raise DataError(f"split column {by!r} holds {texts[codes[at.argmin()]]}, expected {', '.join(SPLITS)}")
    return at


def _in_order(cells: pa.Array, by: str) -> npt.NDArray[np.int64]:
    """Integers in the order of the times."""
    times: FloatArray = times_of(cells, by, PLACE).values
    if (missing := np.isnan(times)).any():
        raise no_time(PLACE, int(missing.argmax()), by)
    bits = (times + 0.0).view(np.int64)  # the two zeros become one
    return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)


def _first_times(whole: DataFrame, frame: DataFrame, by: str, rule: Split) -> list[int]:
    """Where in the column AT the validation and the test rows begin."""
    from pyspark.sql.functions import arrow_udf, col

    @arrow_udf("boolean")
    def moments(cells: pa.Array) -> pa.Array:
        times = times_of(cells, by, PLACE)
        return pa.array([None if np.isnan(times.values).all() else times.moments] * len(cells), pa.bool_())

    kinds = frame.select(moments(col(quoted(by)))).distinct().collect()
    rows = whole.count()
    if not rows:
        raise DataError("the frame has no rows")
    if len({row[0] for row in kinds} - {None}) > 1:
        raise DataError(f"column {by!r} holds times in some rows, and numbers in others; write all times in one way")
    return [_at_place(whole.select(AT), place) if place < rows else 2**63 - 1 for place in first_places(rule, rows)]


def _at_place(frame: DataFrame, place: int) -> int:
    """The integer at a place of the sorted column AT, found 16 bits at a time: Spark counts no more different ones than these have."""
    from pyspark.sql.functions import shiftright

    found = 0
    for shift in (48, 32, 16, 0):
        here = frame if shift == 48 else frame.where(shiftright(AT, shift + 16) == found)
        for found, count in sorted(here.groupBy(shiftright(AT, shift).alias(AT)).count().collect()):  # noqa: B007
            if place < count:
                break
            place -= count
    return found
