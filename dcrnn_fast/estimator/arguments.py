"""What a :class:`~dcrnn_fast.FunnelClassifier` is given, and what it says of it; an error names the argument."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..data.codes.numbers import Place
from ..data.encoder.memory import arrow_table, write_parquet
from ..data.inspect.draft import IS_LABEL, IS_SPAN, Draft
from ..data.inspect.repeats import NEARLY_UNIQUE
from ..data.read.columns import is_text, labels_of, without_views
from ..errors import DataError, one_line, printable, shown
from ..support.checks import listed
from ..training import Report


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
    return [one.get("column", one.get("name")) for one in fields]


def parquet_file(table: Any, name: str, folder: Path, wanted: set[str] | None) -> str:
    """The name of a table's Parquet file in the folder, which this writes with the wanted columns, or the path that ``table`` is.

    Raises DataError for a path of no Parquet file, and for a table that Parquet cannot hold.
    """
    if isinstance(table, (str, Path)):
        if not os.path.isfile(table):
            raise DataError(f"is {str(table)!r}, and there is no such file; expected a table, or the path of a Parquet file", table=name)
        try:
            pq.read_schema(table)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"is {str(table)!r}, expected the path of a Parquet file: {one_line(error, 200)}", table=name) from error
        return os.path.abspath(table)
    write_parquet(arrow_table(table, name, wanted), name, folder / f"{name}.parquet")
    return f"{name}.parquet"


def texts_held(path: Path, texts: Sequence[str]) -> set[str]:
    """Which of the texts are the whole of a cell of a Parquet file, or a category of a column."""
    columns = [field.name for field in pq.read_schema(path) if is_text(field.type) or pa.types.is_dictionary(field.type)]
    found = set[str]()
    for column in (column for batch in _batches(path, columns) for column in batch.columns):
        cells = column.dictionary if pa.types.is_dictionary(column.type) else column
        if is_text(cells.type):
            found.update(pc.unique(cells.filter(pc.is_in(cells, pa.array(texts, cells.type)))).to_pylist())
    return found


def funnel_problem(paths: Sequence[Path], tasks: Sequence[str]) -> str | None:
    """What keeps the tasks from being a funnel, in words: the first row with an event without the one before it, how many there are, and
    the order of the tasks that would hold. None where each event implies the one before it, or `prepare` will refuse the labels.
    """
    if any(not set(tasks) <= set(pq.read_schema(path).names) for path in paths):
        return None
    without = np.zeros((len(tasks), len(tasks)), np.int64)  # [a, b]: rows with b and without a
    first: tuple[str, int, int] | None = None
    rows = 0
    for path in paths:
        before = 0
        for batch in _batches(path, tasks):
            try:
                labels = np.stack([labels_of(batch.column(task), task, Place(path, before)) for task in tasks])
            except DataError:
                return None
            without += (labels == 0).astype(np.int64) @ (labels == 1).T
            broken = ((labels[1:] == 1) & (labels[:-1] == 0)).any(axis=0)
            if first is None and broken.any():
                row = int(broken.argmax())
                first = path.stem, before + row + 1, int(((labels[1:, row] == 1) & (labels[:-1, row] == 0)).argmax())
            before += len(batch)
        rows += before
    if first is None:
        return None
    table, row, at = first
    count = int(max(without[place, place + 1] for place in range(len(tasks) - 1)))
    said = (
        f"the tasks are taken for independent: row {row:,} of {'X' if table == 'train' else table} has {tasks[at + 1]} without {tasks[at]}"
    )
    said += f", as up to {count:,} of the {rows:,} rows have an event without the one before it"
    order = sorted(range(len(tasks)), key=lambda task: (without[task] > 0).sum())
    if all(without[earlier, later] == 0 for earlier, later in pairwise(order)):
        return f"{said}; they are a funnel in the order {', '.join(tasks[task] for task in order)}: give tasks in this order"
    return f"{said}; correct these rows, or give funnel=False if no event implies another one"


def only_eval_set(given: Any) -> Any:
    """The validation rows: a table, or as other libraries take them a list of one tuple, of a table and of labels, or None."""
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, (list, tuple)) for one in given):
        return given
    if len(given) != 1 or len(given[0]) not in (1, 2):
        raise DataError(
            f"eval_set is a list of {len(given)} tuples, expected one, of a table that holds its labels and None: [(table, None)]"
        )
    return given[0][0] if len(given[0]) == 1 or given[0][1] is None else tuple(given[0])


def with_column(table: Any, argument: str, name: str, values: Any = None) -> Any:
    """The table in Arrow, with one more column, by default of ones.

    Raises DataError for a path, a column that is there, and another number of values.
    """
    if isinstance(table, (str, Path)):
        raise DataError(f"{name}: got values, and {argument} is a path; expected them as a column of the file, which weight names")
    made = arrow_table(table, argument)
    cells = np.ones(made.num_rows) if values is None else np.asarray(values)
    if name in made.column_names:
        raise DataError(f"has the column {name!r}, which is also an argument of fit; rename one", table=argument)
    if cells.shape != (made.num_rows,):
        raise DataError(f"{name}: got shape {list(cells.shape)}, expected [{made.num_rows}], a value for each row of {argument}")
    return made.append_column(name, pa.array(cells))


def _batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from map(without_views, file.iter_batches(columns=columns))


def notes_of(
    drafted: Draft, schema: Mapping[str, Any], given: Mapping[str, Any], kinds: Mapping[str, pa.DataType], aside: Collection[str | None]
) -> Iterator[str]:
    """A line for each thing that a person should know of ``schema``: the draft, except the fields ``given`` by their key in a schema.

    ``kinds`` are the types of the table's columns, and ``aside`` the columns of the time, the weight and the group.
    """
    read = list(dict.fromkeys(names_of(one for kind in given for one in schema[kind])))
    categories, named = names_of(schema["categorical"]), names_of(given["numeric"] or ())
    numbers = [name for name in names_of(schema["numeric"]) if name not in named]
    codes, events = [one for one in numbers if one in categories], [one for one in read if drafted.remarks.get(one) == IS_LABEL]
    whole = [name for name in numbers if name not in categories and pa.types.is_integer(kinds.get(name, pa.null()))]
    remarks = {
        "": read,
        " as codes and as numbers: name one in categorical or numeric to read it in one way": codes,
        " as numbers: name those that are codes, such as of a city, in categorical too": whole,
        ", each of two values: leave out those that are known only after the event": events,
        f" as categories, which hold {IS_SPAN}": [name for name in categories if drafted.remarks.get(name) == IS_SPAN],
    }
    yield from (f"reads {', '.join(names)}{remark}" for remark, names in remarks.items() if names)
    found = dict.fromkeys(names_of(one for kind in given for one in drafted.schema.get(kind, ())))
    if unnamed := [name for name in found if name not in (*read, *aside)]:
        yield f"leaves out {', '.join(unnamed)}: categorical and numeric, if given, name all columns of their kind"
    yield from (f"calls the task of column {one['column']!r} {one['name']}" for one in schema["tasks"] if one["name"] != one["column"])
    if "funnel" not in schema and len(schema["tasks"]) > 1:
        yield "takes the tasks for independent"
    for name, why in drafted.left.items():
        if name not in read:
            yield f"{name} is {NEARLY_UNIQUE}" if why == NEARLY_UNIQUE else f"leaves out {drafted.left_out(name)}"


class Quiet(Report):
    """Turns a run's warnings into Python's, and says nothing else."""

    def note(self, text: str) -> None:
        """A warning, if it is one."""
        if text.startswith("warning: "):
            warnings.warn(printable(text.removeprefix("warning: ")), stacklevel=2)
