"""The rows behind a table's histories: which ones to keep, so that later rows go on from them, and each user's last values of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError, one_line
from ..support.files import regular_file
from .build.labels import labels_of as labels_of_texts
from .codes.numbers import Place
from .encoder.memory import arrow_table
from .read.columns import labels_of, numbers_of, texts_of, times_of
from .read.derive import PER_SECOND
from .schema.fields import History, Rule
from .schema.table import TableSchema

MAX_ROWS = 2_000_000
"""The most rows that are kept, the latest ones."""
PLACE = Place(Path("past.parquet"), 0)


def read_rows(file: Path) -> pa.Table:
    """The rows that a run keeps. Raises DataError for a file that cannot be read."""
    try:
        return pq.read_table(regular_file(file))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {one_line(error, 200)}; restore it, or fit again", table=str(file)) from error


def kept_rows(schema: TableSchema, files: Sequence[Path], past: Path | None = None) -> pa.Table:
    """The columns that the schema's histories read of the rows of Parquet files, at most the latest MAX_ROWS, in their order.

    Before them come the rows of the file ``past`` that the files do not hold again. Raises DataError where a column's types in two files
    have no common one.
    """
    wanted = sorted(schema.history_columns())
    tables = [arrow_table(pq.read_table(file, columns=wanted), str(file)) for file in ([past] if past else []) + [*files]]
    try:
        rows = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        said = f"the rows that histories see have columns of several types: {one_line(error, 200)}"
        raise DataError(f"{said}; give new rows the types of the earlier ones") from error
    if past is not None:
        rows, new = rows.slice(0, len(tables[0])), rows.slice(len(tables[0]))
        numbered = rows.append_column("", pa.array(np.arange(len(rows))))
        kept = np.sort(numbered.join(new, wanted, join_type="left anti")[""].to_numpy())
        rows = pa.concat_tables([rows.take(pa.array(kept)), new])
    if len(rows) <= MAX_ROWS:
        return rows
    times = times_of(_cells(rows, schema.histories[0].time), schema.histories[0].time, PLACE).values
    return rows.take(np.sort(np.argsort(times, kind="stable")[-MAX_ROWS:]))


def with_all_columns(rows: pa.Table, schema: TableSchema) -> pa.Table:
    """The rows with every column that the schema reads; one that they lack is missing in each row."""
    text, numbers = schema.file_columns()
    for name in sorted((text | numbers) - {*rows.column_names}):
        rows = rows.append_column(name, pa.nulls(len(rows), pa.null() if name in text else pa.float64()))  # may be lists
    return rows


def last_values(rows: pa.Table, schema: TableSchema, history: History) -> pa.Table:
    """What a row right after the latest of these rows would see: for each value of `by` the list of its last values, the latest first.

    The columns are `by` and the history's name. Raises DataError for a history that reads a derived column.
    """
    rule = schema.event_rule(history)
    read = {history.of, history.by} | ({rule.column} if rule is not None else set())
    if made := read.intersection(one.name for one in schema.all_derived):
        made_of = f"history {history.name!r} reads {min(made)!r}, a derived column"
        raise DataError(f"{made_of}, which no row holds; compute its values in code of your own")
    times = times_of(_cells(rows, history.time), history.time, PLACE)
    lag = history.lag * PER_SECOND["us" if times.moments else history.unit or "s"]
    users, values = (texts_of(_cells(rows, name), name, PLACE) for name in (history.by, history.of))
    event = (users.codes < len(users.texts) - 1) & (values.codes < len(values.texts) - 1)  # the last text says that a cell is missing
    event &= times.values + lag <= times.values.max(initial=-np.inf)
    if rule is not None:
        event &= _labels(rows, rule) == 1
    events = np.flatnonzero(event)
    events = events[np.lexsort((events, times.values[events], users.codes[events]))][::-1]  # by user, the latest first
    _, starts, counts = np.unique(-users.codes[events], return_index=True, return_counts=True)
    kept = events[np.arange(len(events)) - np.repeat(starts, counts) < history.last]
    ends = np.append(0, np.cumsum(np.minimum(counts, history.last))).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(ends), _cells(rows, history.of).take(pa.array(kept)))
    return pa.table({history.by: _cells(rows, history.by).take(pa.array(events[starts])), history.name: lists})


def _labels(rows: pa.Table, rule: Rule) -> npt.NDArray[np.generic]:
    cells = _cells(rows, rule.column)
    if rule.positive is not None:
        codes, texts = texts_of(cells, rule.column, PLACE)
        return labels_of_texts(rule, pa.chunked_array([texts]))[codes]
    if rule.threshold is not None:
        return numbers_of(cells, rule.column, PLACE) >= rule.threshold
    return labels_of(cells, rule.column, PLACE)


def _cells(rows: pa.Table, name: str) -> pa.Array:
    return rows[name].combine_chunks()
