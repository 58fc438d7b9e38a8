"""What a :class:`~dcrnn_fast.FunnelClassifier` is given, as lists, fields and tables; an error names the argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..data.codes.numbers import Place
from ..data.encoder.memory import NO_FIELD, arrow_table
from ..data.read.columns import is_text, labels_of, without_views
from ..errors import DataError, did_you_mean, shown
from ..support.checks import listed


def fields_of(argument: str, given: Any) -> list[dict[str, Any]] | None:
    """What a schema holds under the key; of a name alone its column."""
    if given is None:
        return None
    key = "name" if argument == "histories" else "column"
    fields = [{key: one} if isinstance(one, str) else one for one in listed(argument, given)]
    if bad := [one for one in fields if not (isinstance(one, Mapping) and isinstance(one.get(key), str))]:
        raise DataError(f"{argument} holds {shown(bad[0])}, expected names of columns, or what a schema holds under {argument}")
    return [dict(one) for one in fields]


def names_of(fields: Iterable[Any]) -> list[str]:
    """The columns of a schema's fields or tasks, and the names of its histories."""
    return [one if isinstance(one, str) else one.get("column", one.get("name")) for one in fields]


def readable_table(table: Any, name: str, wanted: set[str] | None) -> pa.Table:
    """The columns of a table. Raises DataError for one that Parquet cannot hold."""
    table = arrow_table(table, name, wanted)
    row = table.slice(0, 1)
    for column, kind in zip(table.column_names, table.schema.types, strict=True):
        try:
            pq.write_table(row.select([column]).filter(pa.array([True] * len(row), pa.bool_())), pa.BufferOutputStream())
        except pa.ArrowException as error:
            raise DataError(f"{name}: column {column!r} is of type {shown(str(kind))}, {NO_FIELD}") from error
    return table


def texts_held(table: pa.Table | str | Path, texts: Sequence[str]) -> set[str]:
    """Which of the texts are the whole of a cell of the table, or of the Parquet file at a path, or a category of a column."""
    found = set[str]()
    for chunk in (chunk for batch in _batches(table) for chunk in batch.columns):
        cells = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        if is_text(cells.type):
            found.update(pc.unique(cells.filter(pc.is_in(cells, pa.array(texts, cells.type)))).to_pylist())
    return found


def _batches(table: pa.Table | str | Path) -> Iterator[pa.RecordBatch]:
    if isinstance(table, pa.Table):
        yield from table.to_batches()
        return
    with pq.ParquetFile(table) as file:
        names = [field.name for field in file.schema_arrow if is_text(field.type) or pa.types.is_dictionary(field.type)]
        for batch in file.iter_batches(columns=names):
            yield without_views(batch)


def breaks_funnel(table: pa.Table | str | Path, tasks: Sequence[str]) -> bool:
    """Whether some row of a table in memory has an event without the one before it; False where `prepare` will refuse the labels."""
    if not isinstance(table, pa.Table) or not set(tasks) <= set(table.column_names):
        return False
    try:
        labels = [labels_of(table.column(task).combine_chunks(), task, Place(Path("X"), 0)) for task in tasks]
    except DataError:
        return False
    return any(bool(((later == 1) & (earlier == 0)).any()) for earlier, later in pairwise(labels))


def check_column(argument: str, name: str, columns: Sequence[str]) -> None:
    """Raise DataError unless a table has the column that an argument names."""
    if name not in columns:
        raise DataError(f"{argument}: X has no column {name!r}; it has {', '.join(columns)}{did_you_mean(name, list(columns))}")
