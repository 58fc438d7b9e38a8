"""Columns that a schema derives from a table's columns, batch by batch: parts of a time, values of lists, crosses of columns."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError, one_line, shown
from ..codes.numbers import Place
from ..schema.fields import Derived
from .columns import as_times, is_text, numbers_of, plain, texts_of

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
MAX_SECONDS, EARLY = 10**11, 10**8
"""Seconds before or after 1970 that a time may be, some 3,000 years; milliseconds taken for seconds are beyond it. Seconds taken for
milliseconds are less than EARLY after 1970, in 1973."""

_PARTS = {"hour": pc.hour, "weekday": pc.day_of_week, "day": pc.day}


def with_derived(
    batch: pa.RecordBatch, derived: Sequence[Derived], place: Place, zoned: MutableMapping[str, bool] | None = None
) -> pa.RecordBatch:
    """The batch with the columns `derived` behind its own. Each reads columns of the batch and earlier derived ones.

    `zoned` says by column whether its times have a zone or are numbers, and gets what it does not say. Without it, `derived` says it.

    The hour is 0 to 23, the weekday 0 (Monday) to 6, the day of the month 1 to 31, as integers, and null where the time is missing. A cross
    is text: the texts of its columns with `|` between them, a backslash before each `|` and backslash of their own, and `<missing>` for a
    missing one; where all are missing, it is null. A value is null where the cell has fewer. Raises DataError, with `place` in
    the message, for a column or a cell that is not a time, and for values of a column that holds one value a cell.

    >>> from pathlib import Path
    >>> batch = pa.RecordBatch.from_pydict({"time": ["2024-05-31T23:59:00", None], "city": ["a", "b|c"]})
    >>> hour = Derived(**{"name": "hour", "column": "time", "as": "hour"})
    >>> cross = Derived(name="city_x_hour", cross=["city", "hour"])
    >>> with_derived(batch, [hour, cross], Place(Path("log.csv"), 0)).to_pydict()["city_x_hour"]
    ['a|23', 'b\\\\|c|<missing>']
    """
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    if zoned is None:
        zoned = {str(one.column): one.zoned for one in derived if one.zoned is not None}
    values: dict[tuple[str, str | None], Values] = {}
    for one in derived:
        if one.cross is not None:
            columns[one.name] = _cross([columns[name] for name in one.cross], one.cross, place)
            continue
        (source,) = one.sources()
        if one.value is not None:
            key = source, one.separator
            if key not in values:
                values[key] = Values(columns[source], *key, place)
            columns[one.name] = values[key].at(one.value)
        else:
            columns[one.name] = _PARTS[str(one.part)](_wall_clock(columns[source], one, place, zoned))
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _wall_clock(column: pa.Array, one: Derived, place: Place, zoned: MutableMapping[str, bool]) -> pa.Array:
    """The times as timestamps without a zone, in whole seconds, as a clock in the zone asked for showed them."""
    (source,) = one.sources()
    times = as_times(column, source, place)
    is_number = not pa.types.is_timestamp(times.type)
    is_zoned = is_number or times.type.tz is not None
    seconds, missing = _seconds(times, one.unit or "s", source, place)

    def refused(rows: npt.NDArray[np.bool_], why: str, held: str | None = None) -> DataError:
        row = int(rows.argmax())
        return place.error(f"is used as a time and holds {held or shown(times[row].as_py())}, {why}", row, source)

    strange = ~missing & ((seconds >= MAX_SECONDS) | (seconds <= -MAX_SECONDS))
    if strange.any():
        remedy = f"derived column {one.name!r} reads numbers in the unit {one.unit or 's'}: name theirs, such as `unit: ms`"
        why = f"which is more than 3,000 years from 1970; {remedy if is_number else 'correct it'}"
        raise refused(strange, why, None if is_number else f"{seconds[strange][0]:,} seconds since 1970")
    if is_number and one.unit is None and are_dates(seconds[~missing]):
        raise refused(
            ~missing,
            "which looks like a date, but numbers are seconds since 1970; write dates as 2024-05-31, or give derived column "
            f"{one.name!r} `unit: s` if these are seconds",
        )
    early = ~missing & (seconds > 0) & (seconds < EARLY) & (seconds * PER_SECOND[one.unit or "s"] >= EARLY)
    if is_number and not missing.all() and (early | missing).all():
        raise refused(
            early,
            f"which in the unit {one.unit} is a time of 1970 to 1973, as all others here are; give derived column {one.name!r} numbers in "
            "its unit, or times",
        )
    if not missing.all() and is_zoned != zoned.setdefault(source, is_zoned):
        kinds = "a time without a zone", "a time with a zone, or a number"
        raise refused(
            ~missing,
            f"{kinds[is_zoned]}, where other rows, or the train rows, hold {kinds[not is_zoned]}: derived column {one.name!r} would "
            f"tell another {one.part}; write all times alike",
            shown(column[int((~missing).argmax())].as_py()),
        )
    moments = pa.array(seconds, pa.int64(), mask=missing).cast(pa.timestamp("s"))
    if one.timezone is None or not is_zoned:
        return moments
    try:
        return pc.local_timestamp(moments.cast(pa.timestamp("s", one.timezone)))
    except pa.ArrowException as error:
        raise DataError(
            f"derived column {one.name!r}: the time zone {one.timezone} cannot be used: {one_line(error, 200)}; install the "
            "system's time zone data (tzdata), or leave `timezone` out"
        ) from error


def are_dates(numbers: npt.NDArray[np.int64]) -> bool:
    """Whether all numbers read as dates from 1970 to 2100, such as 20240531."""
    year, month, day = numbers // 10_000, numbers // 100 % 100, numbers % 100
    return len(numbers) > 0 and bool(((year >= 1970) & (year <= 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def _seconds(times: pa.Array, unit: str, name: str, place: Place) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Whole seconds since 1970, and which rows have no time."""
    per_second = PER_SECOND[unit]
    if pa.types.is_timestamp(times.type):
        per_second = PER_SECOND[times.type.unit]
        times = times.cast(pa.int64())
    elif not pa.types.is_integer(times.type) or times.type == pa.uint64():
        values = numbers_of(times.cast(pa.float64(), safe=False) if times.type == pa.uint64() else times, name, place)
        missing = np.isnan(values)
        # Far beyond what is a time, and within what an integer holds.
        return np.clip(np.floor(np.where(missing, 0, values) / per_second), -2.0 * MAX_SECONDS, 2.0 * MAX_SECONDS).astype(np.int64), missing
    missing = times.is_null().to_numpy(zero_copy_only=False)
    return pc.fill_null(times.cast(pa.int64()), 0).to_numpy() // per_second, missing


def _cross(columns: Sequence[pa.Array], names: Sequence[str], place: Place) -> pa.DictionaryArray:
    """The texts of several columns as one: each text that occurs is made once."""
    first, *others = (texts_of(column, name, place) for column, name in zip(columns, names, strict=True))
    codes, texts = first.codes.astype(np.int64), _escaped(first.texts)
    missing = first.codes == len(first.texts) - 1
    for other in others:
        pairs, codes = np.unique(codes * len(other.texts) + other.codes, return_inverse=True)
        left, right = np.divmod(pairs, len(other.texts))
        texts = pc.binary_join_element_wise(texts.take(pa.array(left)), _escaped(other.texts).take(pa.array(right)), "|")
        missing &= other.codes == len(other.texts) - 1
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=missing), texts)


def _escaped(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, r"([\\|])", r"\\\1")


class Values:
    """The values of a column's cells. Null, NaN and the empty text are not values, and take no place.

    `separator` cuts cells of text; lists need none. Raises DataError, with `place` in the message, for cells that are neither.
    """

    def __init__(self, column: pa.Array, name: str, separator: str | None, place: Place) -> None:
        cells = _lists(column, name, separator, place)
        lengths = pc.fill_null(pc.list_value_length(cells), 0).to_numpy(zero_copy_only=False)
        values = plain(cells.flatten())
        if pa.types.is_null(values.type):
            values = values.cast(pa.string())
        if pa.types.is_nested(values.type):
            raise _no_values(name, column.type, "whose values are lists or structs themselves", place)
        held = pc.fill_null(pc.not_equal(values, ""), False) if is_text(values.type) else pc.invert(pc.is_null(values, nan_is_null=True))
        before = np.concatenate([[0], np.cumsum(held.to_numpy(zero_copy_only=False))])
        ends = np.cumsum(lengths, dtype=np.int64)
        self._starts, self._ends = before[ends - lengths], before[ends]
        self._values = values.filter(held).dictionary_encode()

    def at(self, position: int) -> pa.DictionaryArray:
        """The values that have so many values before them in their cell, and null where there are not so many."""
        index = self._starts + position
        beyond = index >= self._ends
        codes = pc.take(self._values.indices, pa.array(np.where(beyond, 0, index), mask=beyond))
        return pa.DictionaryArray.from_arrays(codes, self._values.dictionary)


def _lists(column: pa.Array, name: str, separator: str | None, place: Place) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return column.cast(pa.list_(pa.string()))
    if isinstance(column.type, (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)):
        return column
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        try:
            column = column.cast(pa.large_string())
        except pa.ArrowException as error:
            raise _no_values(name, column.type, "some of them no UTF-8", place) from error
    if not is_text(column.type):
        raise _no_values(name, column.type, "which holds one value a cell", place)
    if separator is None:
        raise place.error(
            "holds text, and its field has several values; give lists, as Parquet files hold them, or, if the schema has `max_values` or "
            '`value` for it, say there where they end, such as `separator: "|"`',
            column=name,
        )
    return pc.split_pattern(column, separator)


def _no_values(name: str, kind: pa.DataType, problem: str, place: Place) -> DataError:
    used = f"is used as several values and is of type {shown(str(kind))}, {problem}"
    remedy = "give lists of texts or numbers, or text with a `separator`; leave out `max_values` for one value a cell"
    return place.error(f"{used}; {remedy}", column=name)
