"""The columns of tables in memory: lists, arrays, data frames and Arrow tables as texts and numbers, as `prepare` reads a Parquet file.

Lists and arrays of one plain type are read without Arrow, which takes longer than a short list's cells. Arrow reads everything else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from datetime import date, datetime
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import DataError, did_you_mean, one_line, shown
from ..codes.numbers import FloatArray, Place
from ..packed.meta import MISSING, RESERVED, WHOLE

if TYPE_CHECKING:
    import pyarrow as pa

    from ..schema.fields import Derived

EXACT = 2**53
"""From here on float64 does not hold every integer."""
NO_FIELD = "which no field can hold; make text or numbers of it, or leave it out"
_SPELLED: dict[type, Any] = {str: str, int: str, bool: lambda cell: "true" if cell else "false"}
"""How Arrow writes cells of these types as text."""


class Piece(NamedTuple):
    """Rows of a table: their cells by column, each a list, an array, or what Arrow makes one of."""

    columns: Mapping[str, Any]
    rows: int
    place: Place


def pieces_of(table: Any, wanted: Sequence[str], name: str = "table") -> Iterator[Piece]:
    """The wanted columns of a table, which messages call `name`; at least one piece, in the order of the rows.

    Raises DataError for what is not a table, lacks a column or has it twice, and for columns of unequal length.
    """
    table = as_columns(table)
    if isinstance(table, Mapping) or _is_pandas(table):
        table = _with_index(table)
        _check_columns(wanted, table.keys() if isinstance(table, Mapping) else list(table.columns), name)
        yield _piece({column: table[column] for column in wanted}, name)
    elif _is_arrow(table):
        yield from _arrow_pieces(table, wanted, name)
    else:
        raise DataError(
            f"is of type {type(table).__name__}, expected a pandas (2.2 or later) or polars DataFrame, an Arrow Table or RecordBatch, or a "
            "mapping of column names to lists or arrays; of a row of a frame, take "
            "frame.iloc[[0]]",
            table=name,
        )


def as_columns(table: Any) -> Any:
    """A list of rows, each a mapping, as columns, in which what a row lacks is missing; of a polars LazyFrame its rows; else as it is."""
    if isinstance(table, (list, tuple)) and table and all(isinstance(row, Mapping) for row in table):
        return {name: [row.get(name) for row in table] for name in dict.fromkeys(name for row in table for name in row)}
    return table.collect() if type(table).__name__ == "LazyFrame" and hasattr(table, "collect") else table


def column_names(table: Any) -> list[Any]:
    """The names of a table's columns, of a row its keys; none of what is neither."""
    table = as_columns(table)
    if isinstance(table, Mapping) or type(table).__name__ == "Series":
        return list(table.keys())
    return list(getattr(table, "column_names", getattr(table, "columns", ())))


def arrow_table(table: Any, name: str, wanted: Collection[str] | None = None) -> pa.Table:
    """The columns of a table, which messages call `name`: those that are `wanted`, or all if one of these is not there.

    Raises DataError as :func:`pieces_of` does, and for cells of several types.
    """
    pa, table = _pyarrow("a table"), as_columns(table)
    is_mapping = _is_pandas(table) or isinstance(table, Mapping)
    if not is_mapping and not _is_arrow(table):
        expected = "expected a pandas or polars DataFrame, an Arrow table, or a mapping"
        raise DataError(f"is of type {type(table).__name__}, {expected}", table=name)
    is_polars = _is_polars(table)
    try:
        table = _with_index(table) if is_mapping else table if is_polars else pa.table(table)
    except pa.ArrowException as error:
        raise DataError(f"is a {type(table).__name__}, expected a table: {one_line(error, 200)}", table=name) from error
    present = list(table.columns) if _is_pandas(table) or is_polars else list(table) if is_mapping else table.column_names
    names = present if wanted is None or not set(wanted) <= set(present) else [one for one in present if one in wanted]
    if not is_mapping:
        from ..read.columns import plain

        if twice := [one for one in names if names.count(one) > 1]:
            raise DataError(f"has the column {twice[0]!r} twice; rename one", table=name)

        columns = {}
        for one in names:
            try:
                column = (pa.table(table[[one]]) if is_polars else table)[one]
                columns[one] = pa.chunked_array(map(plain, column.chunks), plain(column.slice(0, 0).combine_chunks()).type)
            except pa.ArrowException as error:
                kind = table[one].dtype if is_polars else column.type
                raise DataError(f"is of type {shown(str(kind))}, {NO_FIELD}", table=name, column=one) from error
        return pa.table(columns)
    if unnamed := [one for one in names if not isinstance(one, str)]:
        raise DataError(f"has the column {unnamed[0]!r}, expected names that are text; rename its columns", table=name)
    if not names:
        raise DataError("has no columns; give it those of the tasks and of the features", table=name)
    (piece,) = pieces_of(table, names, name)
    return pa.table({column: _arrow_array(piece, column) for column in names})


def write_parquet(table: pa.Table, name: str, path: Path) -> None:
    """Write a Parquet file. Raises DataError for a column that none can hold; `name` is the table's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for field in table.schema:
        try:
            pq.write_table(table.select([field.name]).slice(0, 1), pa.BufferOutputStream())
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"is of type {shown(str(field.type))}, {NO_FIELD}", table=name, column=field.name) from error
    pq.write_table(table, path)


def text_cells(piece: Piece, name: str) -> tuple[Sequence[str], npt.NDArray[np.int32] | None]:
    """Texts as a vocabulary spells them, and for each row the position of its text, or None where the texts are the rows'."""
    if (plain := _plain_texts(piece.columns[name])) is not None:
        return plain, None
    array = _arrow_array(piece, name)
    from ..read.columns import texts_of

    codes, texts = texts_of(array, name, piece.place)
    return texts.to_pylist(), codes


def number_cells(piece: Piece, name: str) -> FloatArray:
    """A column as float64, NaN where missing; a number may be infinite."""
    if (plain := _plain_numbers(piece.columns[name])) is not None:
        return plain
    array = _arrow_array(piece, name)
    from ..read.columns import numbers_of

    return numbers_of(array, name, piece.place)


def derived_too(piece: Piece, derived: Sequence[Derived], same: Mapping[str, Any]) -> Piece:
    """The piece with its derived columns, and with the columns `same`, which have one cell for all rows.

    Each derived column reads columns of the piece, of `same` and earlier derived ones.
    """
    columns = {**piece.columns, **same}
    if not derived:
        return piece._replace(columns=columns)
    pa = _pyarrow("derived columns")
    from ..read.derive import with_derived

    made = {one.name for one in derived}
    sources = list(dict.fromkeys(source for one in derived for source in one.sources() if source not in made))
    arrays = {name: _arrow_array(Piece(columns, piece.rows, piece.place), name) for name in sources}
    every = np.zeros(piece.rows, np.int32)
    arrays = {name: array.take(pa.array(every)) if name in same else array for name, array in arrays.items()}
    batch = with_derived(pa.RecordBatch.from_pydict(arrays), derived, piece.place)
    return piece._replace(columns=columns | {name: batch.column(name) for name in made})


def _is_pandas(table: Any) -> bool:
    """Whether it is a pandas DataFrame. Its columns are converted one by one: Arrow refuses a frame for a column that nobody reads."""
    return any(base.__module__.partition(".")[0] == "pandas" for base in type(table).__mro__) and hasattr(table, "columns")


def _with_index(table: Any) -> Any:
    """The table; of pandas, with the named levels of its index as columns too, as `set_index` makes them of columns."""
    levels = [] if isinstance(table, Mapping) else [name for name in table.index.names if isinstance(name, str)]
    levels = [name for name in levels if name not in table.columns]
    return table.reset_index(level=levels) if levels else table


def _is_arrow(table: Any) -> bool:
    """Whether it is a table that gives an Arrow stream. A frame's column may give one too, and is not a table."""
    return hasattr(table, "__arrow_c_stream__") and type(table).__name__ != "Series"


def _is_polars(table: Any) -> bool:
    """Whether it is a polars DataFrame. Its columns are converted one by one too: Arrow lacks types of polars."""
    return type(table).__module__.partition(".")[0] == "polars"


def _check_columns(wanted: Sequence[str], present: Collection[Any], table: str) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        has = f"it has {', '.join(map(str, present)) or 'none'}{did_you_mean(missing[0], [one for one in present if isinstance(one, str)])}"
        raise DataError(f"lacks the columns {', '.join(missing)}, which the encoder reads; {has}", table=table)
    if isinstance(present, list):
        repeated = [name for name in wanted if present.count(name) > 1]
        if repeated:
            raise DataError(f"has the columns {', '.join(repeated)} more than once; rename them so that each name is unique", table=table)


def _piece(columns: Mapping[str, Any], table: str) -> Piece:
    rows = {_rows(name, column, table) for name, column in columns.items()}
    if len(rows) > 1:
        lengths = ", ".join(f"{name!r} has {len(column):,}" for name, column in columns.items())
        problem = f"has columns of unequal length: {lengths} rows; give each row a cell in every column (None: missing)"
        raise DataError(problem, table=table)
    return Piece(columns, rows.pop(), Place(Path(table), 0))


def _rows(name: str, column: Any, table: str) -> int:
    if type(column) is list:
        return len(column)
    one_dimensional = getattr(column, "ndim", 1) == 1 and hasattr(column, "__len__")
    if not one_dimensional or isinstance(column, (str, bytes, Mapping, Set)):
        held = f"a {type(column).__name__} of shape {list(column.shape)}" if hasattr(column, "shape") else shown(column)
        expected = "expected a list or a one-dimensional array of cells; put a single cell in a list"
        raise DataError(f"is {held}, {expected}", table=table, column=name)
    return len(column)


def _plain_texts(column: Any) -> list[str] | None:
    """The texts of a list or array of one plain type, spelled as in a vocabulary; None for anything else."""
    cells = _cells_of(column, "OUiub")
    if cells is None:
        return None
    kinds = set(map(type, cells)) - {NoneType}
    if not kinds:
        return [MISSING] * len(cells)
    spelled = _SPELLED.get(kinds.pop())
    if spelled is None or kinds:
        return None
    try:
        texts: list[str] = list(map(spelled, cells)) if None not in cells else ["" if cell is None else spelled(cell) for cell in cells]
        joined = "".join(texts)
        joined.encode()
    except ValueError:  # half of a surrogate pair, or more digits than Python writes
        return None
    if ".0" in joined:  # a whole number with a point, as a float is written
        texts = [number[1] if (number := re.fullmatch(WHOLE, text)) else text for text in texts]
    if ">" in joined:
        texts = ["\\" + text if re.fullmatch(RESERVED, text) else text for text in texts]
    return [text or MISSING for text in texts] if "" in texts else texts


def _plain_numbers(column: Any) -> FloatArray | None:
    """The numbers of a list or array of numbers or truth values; None for anything else, and for integers that float64 may not hold."""
    whole = False
    masked = isinstance(column, np.ma.MaskedArray)  # whose masked cells are missing, which Arrow knows
    if isinstance(column, np.ndarray) and not masked and column.dtype.kind in "fiub" and column.dtype.itemsize <= 8:
        values, whole = column.astype(np.float64), column.dtype.kind in "iu"
    elif (cells := _cells_of(column, "O")) is not None:
        kinds = set(map(type, cells)) - {NoneType}
        if not (kinds <= {int, float} or kinds == {bool}):
            return None
        try:
            values, whole = np.array(cells, np.float64), int in kinds
        except OverflowError:
            return None
    else:
        return None
    return None if whole and (np.abs(values) >= EXACT).any() else values


def _cells_of(column: Any, dtypes: str) -> Sequence[Any] | None:
    if isinstance(column, (list, tuple)):
        return column
    if type(column) is np.ndarray and column.dtype.kind in dtypes:
        return column.tolist()
    return None


def _arrow_pieces(table: Any, wanted: Sequence[str], name: str) -> Iterator[Piece]:
    pa = _pyarrow("tables other than mappings of lists and arrays")
    from ..read.columns import without_views

    place = Place(Path(name), 0)
    table = table[list(wanted)] if wanted and _is_polars(table) and set(wanted) <= set(table.columns) else table
    try:
        with pa.RecordBatchReader.from_stream(table) as reader:
            _check_columns(wanted, reader.schema.names, name)
            batch = None
            for batch in reader:
                chosen = without_views(batch.select(list(wanted)))
                yield Piece(dict(zip(wanted, chosen.columns, strict=True)), chosen.num_rows, place)
                place = Place(place.path, place.before + chosen.num_rows)
            if batch is None:
                yield _piece({column: [] for column in wanted}, name)
    except pa.ArrowException as error:
        raise DataError(f"is a {type(table).__name__}, whose Arrow stream cannot be read: {one_line(error)}", table=name) from error


def _arrow_array(piece: Piece, name: str) -> pa.Array:
    column = piece.columns[name]
    pa = _pyarrow(f"column {name!r} of the table, which is not a list or an array of one plain type,")
    from ..read.columns import in_known_layout

    if isinstance(column, pa.Array):
        return in_known_layout(column)
    column = column.sparse.to_dense() if hasattr(column, "sparse") else column
    if isinstance(dtype := getattr(column, "dtype", None), np.dtype) and not dtype.isnative:  # bytes of another order, which Arrow refuses
        column = column.astype(dtype.newbyteorder("="))
    try:
        array = column if isinstance(column, pa.ChunkedArray) else pa.array(column, from_pandas=True)
        array = in_known_layout(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise _no_column(list(column), name, piece.place, pa) from error
    if "pandas.period" in str(array.type):  # below it are numbers that depend on the unit
        raise piece.place.error(f"is of type {getattr(column, 'dtype', array.type)}, {NO_FIELD}", column=name)
    if pa.types.is_temporal(array.type) and (isinstance(column, (list, tuple)) or str(getattr(column, "dtype", "")) == "object"):
        _check_times(column, name, piece.place)
    return array


def _check_times(cells: Iterable[Any], name: str, place: Place) -> None:
    """Raise DataError for times with and without a zone, or dates and times, in one column: Arrow would make all like the first."""
    found: dict[tuple[bool, bool], tuple[int, Any]] = {}
    for row, cell in enumerate(cells):
        if isinstance(cell, date) and cell == cell:  # pandas' missing time is no equal of itself
            found.setdefault((isinstance(cell, datetime), getattr(cell, "tzinfo", None) is not None), (row, cell))
    if len(found) > 1:
        (_, first), (row, other) = list(found.values())[:2]
        expected = "expected times of one kind: all with a zone, all without, or all dates; write them alike"
        raise place.error(f"holds {shown(other)}, and {shown(first)} before it, {expected}", row, name)


def _no_column(cells: list[Any], name: str, place: Place, pa: Any) -> DataError:
    """The error for cells that Arrow cannot make an array of; it names the first cell that stops it."""
    from ..read.columns import first_bad

    low = first_bad(len(cells), lambda _, high: pa.array(cells[:high], from_pandas=True))
    cell = cells[low] if cells else None
    held = " ".join(shown(cell).split())
    earlier = next((before for before in cells[:low] if before is not None), None)  # either cell may be the wrong one
    other = "" if earlier is None else f", or those before it, such as {' '.join(shown(earlier).split())} ({type(earlier).__name__})"
    expected = "expected cells of one type: text, integers of 64 bits, floats, truth values, dates, times, or lists of one of these"
    return place.error(f"holds {held} ({type(cell).__name__}), {expected}; correct the cell{other}", low, name)


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise DataError(f"encoding {what} needs the package {error.name}: pip install 'dcrnn_fast[train]'") from error
    return pyarrow
