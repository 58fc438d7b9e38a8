"""A column of a batch of rows as numbers, times, or codes of its distinct texts; what is none of these is refused by place and name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError, one_line, shown
from ..codes.numbers import FloatArray, Place, check_finite
from ..packed.meta import MISSING, RESERVED, WHOLE

TRUTHS = {True: ("true", "yes", "t", "y"), False: ("false", "no", "f", "n")}
"""How a text says that something is so, or not, in lower case."""

EXACT = {2: 2**11, 4: 2**24, 8: 2**53}
"""From here on a float of so many bytes does not hold every whole number."""

NO_VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
"""Layouts of text and bytes that not all of Arrow's functions know, and the ones that all know."""

SPANS = {"dates such as 20240531": (19_700_101, 21_001_231)} | {
    unit: (631_152_000 * each, 4_102_444_800 * each)
    for unit, each in (("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9))
}
"""Numbers that can be times: dates, and units since 1970 for times from 1990 to 2100."""

# Integers first: a float64 does not hold nanoseconds since 1970.
_TIMES = (pa.int64(), pa.float64(), *(pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC")))


class Texts(NamedTuple):
    """A column as text: cell i is `texts[codes[i]]`. The last text is MISSING; null and NaN have its code. Each other text has a cell."""

    codes: npt.NDArray[np.int32]
    texts: pa.StringArray


def texts_of(column: pa.Array, name: str, place: Place) -> Texts:
    """A column as text. The same number has the same text, whatever its type, and an empty text is missing.

    Raises DataError for a type that has no text (struct, list, map, bytes that are not UTF-8, an unknown time zone), and for a whole number
    whose float may have lost digits.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_dictionary(column.type) and pa.types.is_floating(kind):
        column = column.dictionary_decode()
    try:
        if pa.types.is_nested(kind):
            raise pa.ArrowInvalid("a cell holds more than one value, which `max_values` of a categorical column allows")
        if pa.types.is_duration(kind):
            raise pa.ArrowInvalid("a duration has another text in each unit; make a number of it, such as of seconds")
        # A dictionary's values become text once each; its cells stay codes, which keeps a batch of long texts small.
        coded = column if pa.types.is_dictionary(column.type) else None
        texts = _text(column if coded is None else coded.dictionary, name, place).dictionary_encode()
        texts.dictionary.validate(full=True)  # Parquet files may call any bytes text.
        words = _without_empty(spelled(texts.dictionary))
        if not words.equals(texts.dictionary):
            again = words.dictionary_encode()
            texts = pa.DictionaryArray.from_arrays(pc.take(again.indices, texts.indices), again.dictionary)
        indices = texts.indices if coded is None else pc.take(texts.indices, coded.indices)
        missing = len(texts.dictionary)
        codes = pc.fill_null(indices, missing).to_numpy(zero_copy_only=False)
        used = texts.dictionary
        if coded is not None:  # A file's dictionary may be far longer than its batches.
            held = np.zeros(missing + 1, dtype=bool)
            held[codes] = held[missing] = True
            used, codes = used.filter(pa.array(held[:missing])), (np.cumsum(held) - 1)[codes]
        return Texts(codes.astype(np.int32, copy=False), pa.concat_arrays([used, pa.array([MISSING], pa.string())]))
    except pa.ArrowException as error:
        remedy = "convert it to text, numbers, dates or times of a known zone"
        raise place.error(f"is used as text and is of type {shown(str(kind))}: {one_line(error)}; {remedy}", column=name) from error


def spelled(texts: pa.Array) -> pa.Array:
    r"""Texts as a vocabulary spells them: of 12.0 the 12; one that is itself `<missing>` or `<oov>` gets a backslash before it.

    >>> spelled(pa.array(["12.0", "1.5", "<missing>", "\\<oov>"])).to_pylist() == ["12", "1.5", "\\<missing>", "\\\\<oov>"]
    True
    """
    for held, pattern, instead in ((".0", f"^{WHOLE}$", r"\1"), (">", f"^({RESERVED})$", r"\\\1")):
        if pc.any(pc.match_substring(texts, held)).as_py():  # a look for a substring takes a quarter of the time
            texts = pc.replace_substring_regex(texts, pattern, instead)
    return texts


def numbers_of(column: pa.Array, name: str, place: Place) -> FloatArray:
    """A column as float64, NaN where missing or an empty text.

    Text is read as DuckDB reads that of CSV files. Raises DataError for text that is not a number, for infinities and for other types.
    """
    return _numbers(column, name, place, "number", "a number, or empty")


def _numbers(column: pa.Array, name: str, place: Place, used: str, expected: str) -> FloatArray:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        column = _without_empty(column)
        try:
            column = column.cast(pa.float64())
        except pa.ArrowException:
            column = pc.replace_substring_regex(pc.ascii_trim_whitespace(column), r"^\+-", "-")
            for _ in range(2):  # 1_2_3: two underscores may share a digit
                column = pc.replace_substring_regex(column, "([0-9])_([0-9])", r"\1\2")
    try:
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.string())  # Arrow's direct cast multiplies by the scale and misses the nearest float.
        values: FloatArray = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    except pa.ArrowException as error:
        raise _no_number(column, name, [pa.float64()], f"is used as a {used}", expected, place) from error
    check_finite(values, name, place)
    return values


def labels_of(column: pa.Array, name: str, place: Place) -> FloatArray:
    """A column of 0/1 labels as :func:`numbers_of` reads it; text may also be one of TRUTHS, in any case."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        lowered = pc.ascii_lower(column)
        for truth, words in TRUTHS.items():
            column = pc.if_else(pc.is_in(lowered, pa.array(words, lowered.type)), str(int(truth)), column)
    return _numbers(column, name, place, "label", "0, 1, true, false, or empty")


class Times(NamedTuple):
    """A column of times as float64 that rise with time, NaN where missing: if `moments`, as microseconds since 1970, else as they were."""

    values: FloatArray
    kind: str
    """In words: numbers, times without a zone, or times with one. All rows of a column must be of one kind."""

    @property
    def moments(self) -> bool:
        """Whether they are dates or times."""
        return self.kind != "numbers"


def times_of(column: pa.Array, name: str, place: Place) -> Times:
    """A column of numbers, or of dates, times or ISO 8601 text, which are moments. Raises DataError for anything else."""
    times = as_times(column, name, place)
    kind = "numbers"
    if pa.types.is_timestamp(times.type):
        kind = f"times {'without' if times.type.tz is None else 'with'} a zone"
        times = times.cast(pa.timestamp("us", times.type.tz), safe=False).cast(pa.int64())
    values = numbers_of(times.cast(pa.float64(), safe=False) if pa.types.is_integer(times.type) else times, name, place)
    return Times(values, kind)


def check_one_unit(numbers: FloatArray, used: str, column: str, table: str) -> None:
    """Raise DataError if all numbers above 0 can be times by their size, but of several of SPANS. ``used`` is what the column does."""
    values = numbers[numbers > 0]
    found = {unit: np.flatnonzero((low <= values) & (values <= high)) for unit, (low, high) in SPANS.items()}
    found = {unit: rows for unit, rows in found.items() if len(rows)}
    if len(found) > 1 and sum(map(len, found.values())) == len(values):
        held = " and ".join(f"{len(rows):,} numbers like {unit} ({values[rows[0]]:.0f})" for unit, rows in found.items())
        raise DataError(f"{used} and holds {held}; write all its times in one unit", table=table, column=column)


def as_times(column: pa.Array, name: str, place: Place) -> pa.Array:
    """A column of numbers, dates, times or ISO 8601 text as numbers or as timestamps, which have a zone if the cells name one.

    Text is one of these in all cells, or missing. Raises DataError for anything else.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        column = _without_empty(column)
        for kind in _TIMES:
            try:
                return column.cast(kind)
            except pa.ArrowException:
                pass
        raise _no_number(
            column,
            name,
            _TIMES,
            "is used as a time",
            "a number, or a time such as 2024-05-31 or 2024-05-31T23:59:00; the cells of a column all name a zone (Z, +02:00) or none",
            place,
        )
    try:
        column = column.cast(pa.timestamp("us")) if pa.types.is_date(column.type) else column
    except pa.ArrowException as error:
        raise place.error("holds dates that are too far from 1970 to be a time; correct them", column=name) from error
    if any(test(column.type) for test in (pa.types.is_timestamp, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)):
        return column
    if pa.types.is_null(column.type):
        return column.cast(pa.float64())
    raise place.error(f"is used as a time and is of type {shown(str(column.type))}; convert it to times, dates, or numbers", column=name)


def plain(column: pa.Array) -> pa.Array:
    """The column without a dictionary, and in a layout that all of Arrow's functions know, also within lists and structs."""
    column = in_known_layout(column)
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return column.cast(_plain_type(column.type))


def in_known_layout(column: pa.Array) -> pa.Array:
    """The column without run ends, and not in a layout of `NO_VIEWS`; a dictionary stays."""
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, in_known_layout(column.dictionary))
    if pa.types.is_run_end_encoded(column.type):
        return in_known_layout(pc.run_end_decode(column))
    return column.cast(NO_VIEWS[column.type]) if column.type in NO_VIEWS else column


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type with the layouts of `NO_VIEWS` replaced, also within lists and structs."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(_plain_type(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    return NO_VIEWS.get(kind, kind)


def without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with each column :func:`in_known_layout`."""
    return pa.RecordBatch.from_arrays([in_known_layout(column) for column in batch.columns], names=batch.schema.names)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _no_number(column: pa.Array, name: str, wanted: Sequence[pa.DataType], used: str, expected: str, place: Place) -> DataError:
    """The error for a column that Arrow casts to no type of `wanted`: with the first cell that stops it, or else with the column's type."""
    if pa.types.is_integer(column.type):
        expected = "an integer between -2^53 and 2^53, for float64 does not hold all others"
        remedy = "correct the cell, or make floats of the column"
    elif is_text(column.type):
        remedy = "correct the cell"
    else:
        return place.error(f"{used} and is of type {shown(str(column.type))}; convert it to numbers, or leave it out", column=name)
    bad = max(first_bad(len(column), lambda low, high, kind=kind: column[low:high].cast(kind)) for kind in wanted)  # type: ignore[misc]
    try:
        held = shown(column[bad].as_py())
    except UnicodeDecodeError:
        held = "bytes that are not UTF-8"
    return place.error(f"{used} and holds {held}, expected {expected}; {remedy}", bad, name)


def first_bad(rows: int, convert: Callable[[int, int], object]) -> int:
    """The first row that stops a conversion; ``convert`` converts the rows between two of them."""
    low, high = 0, rows
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(low, middle)
            low = middle
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            high = middle
    return low


def _text(values: pa.Array, name: str, place: Place) -> pa.Array:
    if pa.types.is_floating(values.type):
        return _float_text(values, name, place)
    texts = values.cast(pa.string())
    if pa.types.is_decimal(values.type):
        whole = pc.match_substring_regex(texts, "^-?[0-9]+(\\.0*)?$")
        fractions = pc.if_else(whole, None, texts).cast(pa.float64())
        texts = pc.if_else(whole, texts, _float_text(fractions, name, place))
    return texts


def _float_text(values: pa.Array, name: str, place: Place) -> pa.Array:
    exact = EXACT[values.type.byte_width]
    values = values.cast(pa.float32()) if values.type == pa.float16() else values
    values = pc.if_else(pc.is_nan(values), None, values)
    whole = pc.equal(values, pc.floor(values))  # so is infinity
    lost = pc.index(pc.and_(whole, pc.greater_equal(pc.abs(values), exact)), True).as_py()
    if lost >= 0:
        held = f"is used as text and holds {values[lost].as_py():.17g} as a float, which from {exact:,} on does not hold every whole number"
        raise place.error(f"{held}: it may have lost digits; give integers or text, in pandas Int64 or str", lost, name)
    digits = pc.if_else(whole, values, 0).cast(pa.int64()).cast(pa.string())
    return pc.if_else(whole, digits, values.cast(pa.string()))


def _without_empty(texts: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(texts, ""), None, texts)
