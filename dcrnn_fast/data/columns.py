"""A column of a table as numbers, or as codes of its distinct texts; a column that is neither is refused by name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, shown
from .meta import MISSING

FloatArray = npt.NDArray[np.float64]


class Texts(NamedTuple):
    """A column as text: cell i is `texts[codes[i]]`. The last text is MISSING; null and NaN have its code."""

    codes: npt.NDArray[np.int64]
    texts: pa.StringArray

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Which cells have no value."""
        return self.codes == len(self.texts) - 1

    def present(self) -> list[str]:
        """The texts that some cell has, in order."""
        return sorted(self.texts.take(pa.array(np.unique(self.codes[~self.missing]))).to_pylist())


def texts_of(table: pa.Table, name: str) -> Texts:
    """A column as text. Raises DataError for a type that has no text: struct, list, map, bytes that are no UTF-8, an unknown time zone."""
    column = table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    try:
        if pa.types.is_nested(kind):
            raise pa.ArrowInvalid("a cell holds more than one value")
        # A dictionary's values become text once each; its cells stay codes, which keeps a table of long texts small.
        coded = column.combine_chunks() if pa.types.is_dictionary(column.type) else None
        values = _text(column) if coded is None else _text(coded.dictionary)
        texts = values.dictionary_encode()
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        texts.dictionary.validate(full=True)  # Parquet files may call any bytes text.
        indices = texts.indices if coded is None else pc.take(texts.indices, coded.indices)
        codes = pc.fill_null(indices, len(texts.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
        return Texts(codes, pa.concat_arrays([reserved_apart(texts.dictionary), pa.array([MISSING], pa.string())]))
    except pa.ArrowException as error:
        raise DataError(
            f"column {name!r} is used as text and is of type {shown(str(kind))}: {_one_line(error)}; "
            "convert it to text, numbers, dates or times of a known zone"
        ) from error


def reserved_apart(texts: pa.Array) -> pa.Array:
    r"""Texts as a vocabulary spells them: one that is itself `<missing>` or `<oov>` gets a backslash before it.

    >>> reserved_apart(pa.array(["a", "<missing>", "\\<oov>"])).to_pylist() == ["a", "\\<missing>", "\\\\<oov>"]
    True
    """
    return pc.replace_substring_regex(texts, r"^(\\*(?:<missing>|<oov>))$", r"\\\1")


def numbers_of(table: pa.Table, name: str) -> FloatArray:
    """A column as float64, NaN where missing. Raises DataError for text and for infinities."""
    column = table.column(name)
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.string())  # Arrow's direct cast multiplies by the scale and misses the nearest float.
        values: FloatArray = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} is used as a number and holds something else: {_one_line(error)}") from error
    infinite = np.isinf(values)
    if infinite.any():
        raise DataError(
            f"column {name!r} holds {infinite.sum()} infinite values, the first in {row_of(infinite)}; make them finite, or empty (missing)"
        )
    return values


def row_of(found: npt.NDArray[np.bool_]) -> str:
    """The first row of those found, in words; rows count from 1."""
    return f"row {int(found.argmax()) + 1:,} of {len(found):,}"


def _text(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    return values.cast(pa.string())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
