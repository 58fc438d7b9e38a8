"""The items of earlier rows, as a schema's histories name them, of all rows of a staged table in memory that does not grow with it.

A row enters twice: as one that asks, at its time, and if it is an event as one that can be seen, at its time plus the lag. DuckDB sorts
these entries by user and moment, and at one moment those that ask first; it moves to the disk what its memory does not hold. Whatever a
row may see then stands before it. One pass counts the events, and so tells each row where its last events end and how many they are. DuckDB
sorts these two numbers by row again. The disk holds 12 bytes a row, and 4 an event: its id, in the order of the pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...errors import DataError, shown
from ..codes.numbers import FloatArray
from ..packed.arrays import Progress, raw_bytes
from ..read.derive import MAX_SECONDS, PER_SECOND, are_dates
from ..read.text_queries import answer
from ..schema.fields import History
from ..schema.table import TableSchema
from .labels import label_values
from .splits import PAST, TRAIN, SplitArray
from .staging import Batch, BatchValues, StagedTable, TimeColumn

Bools = npt.NDArray[np.bool_]

_ENTRIES = pa.schema(
    [
        ("user", pa.int64()),
        ("moment", pa.float64()),
        ("event", pa.bool_()),
        ("time", pa.float64()),
        ("row", pa.int64()),
        ("id", pa.int32()),
        ("split", pa.int8()),
    ]
)
_IN_ORDER = 'SELECT "user", event, "row", id, split FROM source ORDER BY "user", moment, event, "time", "row"'
_ONCE = f'QUALIFY NOT (event AND split = {PAST} AND max(split) OVER (PARTITION BY "user", moment, event, id) > {PAST}) ORDER'
"""Instead of ORDER: without events of the past that the table holds too, as when rows are scored again."""
_ENDS = pa.schema([("row", pa.int64()), ("stop", pa.int64()), ("number", pa.int32())])
_ENTRIES_AT_ONCE = 1 << 16
_BY_ROW = 'SELECT stop, number FROM source ORDER BY "row"'


class HistoryIds:
    """The ids of a history's items for the rows of a table: the most recent one first, 0 where there are no more.

    `entries` holds the rows as they enter. The files that this writes have names that begin with that of `files`.
    """

    def __init__(
        self, last: int, entries: Iterator[pa.RecordBatch], database: duckdb.DuckDBPyConnection, files: Path, *, has_past: bool = False
    ) -> None:
        self.last = last
        self.events = self.behind_held_out = 0
        """How many events there are, and how many train rows may see an event of a validation or test row."""
        names = ("entries", "ends", "ids", "stops", "numbers")
        entered, ends, self._ids, self._stops, self._numbers = (files.with_suffix(f".{name}") for name in names)
        _write(entered, _ENTRIES, entries)
        in_order = _IN_ORDER.replace("ORDER", _ONCE) if has_past else _IN_ORDER
        _write(ends, _ENDS, self._counted(_sorted(database, entered, in_order)))
        entered.unlink()
        with self._stops.open("wb") as stops, self._numbers.open("wb") as numbers:
            for batch in _sorted(database, ends, _BY_ROW):
                stops.write(raw_bytes(batch.column("stop").to_numpy(), np.int64))
                numbers.write(raw_bytes(batch.column("number").to_numpy(), np.int32))
        ends.unlink()
        self._in_order = np.memmap(self._ids, np.int32, "r") if self.events else np.zeros(0, np.int32)

    def values(self, batch: Batch) -> npt.NDArray[np.int32]:
        """The ids [rows, last] of a batch's rows."""
        stops = np.fromfile(self._stops, np.int64, batch.rows, offset=batch.start * 8)
        numbers = np.fromfile(self._numbers, np.int32, batch.rows, offset=batch.start * 4)
        ids = np.zeros((batch.rows, self.last), np.int32)
        for place in range(numbers.max(initial=0)):
            rows = np.flatnonzero(numbers > place)
            ids[rows, place] = self._in_order[stops[rows] - 1 - place]
        return ids

    def _counted(self, entries: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """For each entry that asks: its row, the number of events before it, and how many of these, the last ones, are its user's."""
        user, events, held = -2, _Count(), _Count()
        with self._ids.open("wb") as stream:
            for batch in entries:
                users, event, row, ids, split = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
                first = np.append(users[:1] != user, users[1:] != users[:-1])
                user = users[-1]
                before, of_user = events.before(event, first)
                _, held_of_user = held.before(event & (split > TRAIN), first)
                asks = ~event
                self.behind_held_out += int(np.count_nonzero(held_of_user[asks & (split == TRAIN)]))
                stream.write(raw_bytes(ids[event], np.int32))
                yield pa.record_batch([row[asks], before[asks], np.minimum(of_user[asks], self.last).astype(np.int32)], schema=_ENDS)
        self.events = events.total


def collected(
    history: History,
    items: BatchValues,
    users: BatchValues,
    *,
    schema: TableSchema,
    staged: StagedTable,
    splits: SplitArray,
    database: duckdb.DuckDBPyConnection,
    folder: Path,
    progress: Progress,
    teaches: bool,
) -> HistoryIds:
    """One of the schema's histories, of the ids `items` and the numbers `users` of a staged table's rows; files go to `folder`.

    `teaches` says that a model may be trained on the train rows; where the data is encoded as other data was, that may have happened
    there. If it is true, raises DataError for a history without any event, and for one that shows labels of validation and test rows to
    train rows. Always raises DataError for a row without a time and, if there is a lag, for numbers that are not times in its unit.
    """
    rule, number = schema.event_rule(history), schema.histories.index(history)
    progress("collecting histories", number, len(schema.histories))
    entries = _entries(history, staged, items, users, None if rule is None else label_values(staged, rule), splits)
    has_past = len(splits) > 0 and bool(splits[0] == PAST)  # whose rows are the first
    found = HistoryIds(history.last, entries, database, folder / f"history-{number}", has_past=has_past)
    if teaches and not found.events:
        wanted = [repr(history.of), repr(history.by), *(["an event by its `where`"] if rule is not None else [])]
        raise DataError(
            f"data set {schema.name!r}: history {history.name!r} is empty: no row has {' and '.join(wanted)}; correct it, or leave it out"
        )
    if teaches and found.behind_held_out and schema.shows_labels(history):
        by = repr(history.by)
        raise DataError(
            f"data set {schema.name!r}: history {history.name!r} shows labels of validation and test rows to a model that learns: "
            f"its `where` reads a label, and {found.behind_held_out:,} train rows come after a positive row of another split with the same "
            f"{by}. Cut the rows by time (`split: {{time: {history.time}, valid: 0.1, test: 0.2}}`), or keep those of a {by} together "
            f"(`split: {{hash: {history.by}, valid: 0.1, test: 0.2}}`), or leave out `where`. Without a `valid` part or file, validation "
            "rows are drawn among the train rows"
        )
    return found


class _Count:
    """Counts the entries that are chosen, chunk by chunk."""

    def __init__(self) -> None:
        self.total = self._at_first = 0

    def before(self, chosen: Bools, first: Bools) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """How many chosen entries stand before each entry, of all users and of its own; `first` says where a user's entries begin."""
        after = self.total + np.cumsum(chosen, dtype=np.int64)
        before = after - chosen
        at_first = np.maximum.accumulate(np.where(first, before, self._at_first))
        self.total, self._at_first = int(after[-1]), int(at_first[-1])
        return before, before - at_first


def _entries(
    history: History, staged: StagedTable, items: BatchValues, users: BatchValues, label: BatchValues | None, splits: SplitArray
) -> Iterator[pa.RecordBatch]:
    """The rows as they enter. The numbers of the users are -1 where there is none."""
    times, texts = staged.times[history.time], staged.texts[history.of]
    lag = history.lag * PER_SECOND["us" if times.moments else history.unit or "s"]
    dates = lag > 0 and not times.moments and history.unit is None
    for batch in staged.batches:
        time = times.values(batch) + 0.0  # -0.0 is 0.0
        _check(history, time, times, batch)
        dates = dates and are_dates(np.clip(time, 0, 2**40).astype(np.int64))
        user, ids = users(batch), items(batch)
        event = (user >= 0) & texts.present(batch)
        if label is not None:
            event &= label(batch) == 1
        row, split = np.arange(batch.start, batch.start + batch.rows), splits[batch.here]
        yield pa.record_batch([user, time, np.zeros(batch.rows, bool), time, row, ids, split], schema=_ENTRIES)
        yield pa.record_batch([column[event] for column in (user, time + lag, event, time, row, ids, split)], schema=_ENTRIES)
    if dates and staged.rows:
        raise DataError(
            f"history {history.name!r}: column {history.time!r} holds numbers that look like dates, such as 20240531, and a `lag` is "
            "counted in seconds; write dates as 2024-05-31, or say `unit: s` if these are seconds"
        )


def _check(history: History, time: FloatArray, times: TimeColumn, batch: Batch) -> None:
    missing = np.isnan(time)
    if missing.any():
        said = f"orders history {history.name!r} and is empty; fill it, or leave the row out"
        raise batch.place.error(said, missing.argmax(), history.time)
    strange = np.abs(time) >= MAX_SECONDS * PER_SECOND[history.unit or "s"]
    if history.lag and not times.moments and strange.any():
        row = strange.argmax()
        said = f"history {history.name!r} has a `lag` and reads numbers in the unit {history.unit or 's'}: name theirs, such as `unit: ms`"
        held = f"holds {shown(float(time[row]))}, which is more than 3,000 years from 1970"
        raise batch.place.error(f"{held}; {said}", row, history.time)


def _write(file: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _sorted(database: duckdb.DuckDBPyConnection, file: Path, query: str) -> Iterator[pa.RecordBatch]:
    """The non-empty batches of a query's result; the query reads the file's rows as the table `source`."""
    with pa.OSFile(str(file)) as stream:
        yield from (batch for batch in answer(database, pa.ipc.open_stream(stream), query, at_once=_ENTRIES_AT_ONCE) if batch.num_rows)
