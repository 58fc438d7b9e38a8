"""Cells that hold several values, lists or separated text, as a column for each place: the first values, the second ones, and so on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError, shown
from ..codes.numbers import Place
from .columns import NO_VIEWS, is_text

_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


class Values:
    """The values of a column's cells. Null, NaN and the empty text are no values, and take no place.

    `separator` cuts cells of text; lists need none. Raises DataError, with `place` in the message, for cells that are neither.

    >>> from pathlib import Path
    >>> values = Values(pa.array(["a|b", "", None, "|c"]), "genres", "|", Place(Path("films.csv"), 0))
    >>> values.at(0).to_pylist(), values.at(1).to_pylist()
    (['a', None, None, 'c'], ['b', None, None, None])
    """

    def __init__(self, column: pa.Array, name: str, separator: str | None, place: Place) -> None:
        cells = _lists(column, name, separator, place)
        lengths = pc.fill_null(pc.list_value_length(cells), 0).to_numpy(zero_copy_only=False)
        values = cells.flatten()
        values = values.cast(NO_VIEWS.get(values.type, values.type))
        if pa.types.is_null(values.type):
            values = values.cast(pa.string())
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_nested(values.type):
            raise _no_values(name, column.type, "whose values are lists or structs themselves", place)
        held = _held(values)
        before = np.concatenate([[0], np.cumsum(held)])
        ends = np.cumsum(lengths, dtype=np.int64)
        self._starts, self._ends = before[ends - lengths], before[ends]
        self._values = values.filter(pa.array(held)).dictionary_encode()

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
    if any(is_one(column.type) for is_one in _LISTS):
        return column
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        try:
            column = column.cast(pa.large_string())
        except pa.ArrowException as error:
            raise _no_values(name, column.type, "some of them no UTF-8", place) from error
    if not is_text(column.type):
        raise _no_values(name, column.type, "which holds one value a cell", place)
    if separator is None:
        raise DataError(
            f"{place.path}: column {name!r} holds text, and its field has several values; give lists, as Parquet files hold them, or, if "
            'the schema has `max_values` or `value` for it, say there where they end, such as `separator: "|"`'
        )
    return pc.split_pattern(column, separator)


def _held(values: pa.Array) -> npt.NDArray[np.bool_]:
    held = pc.is_valid(values)
    if pa.types.is_floating(values.type):
        held = pc.and_(held, pc.invert(pc.fill_null(pc.is_nan(values), True)))
    elif is_text(values.type):
        held = pc.and_(held, pc.fill_null(pc.greater(pc.binary_length(values), 0), False))
    array: npt.NDArray[np.bool_] = held.to_numpy(zero_copy_only=False)
    return array


def _no_values(name: str, kind: pa.DataType, problem: str, place: Place) -> DataError:
    return DataError(
        f"{place.path}: column {name!r} is used as several values and is of type {shown(str(kind))}, {problem}; give lists of texts or "
        "numbers, or text with a `separator`; leave out `max_values` for one value a cell"
    )
