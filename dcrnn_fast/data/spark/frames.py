"""Frames of Spark: what a schema asks of one, and errors of its tasks as they would be raised here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ..catalog import table_schema
from ..codes.numbers import Place
from ..schema.table import TableSchema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PLACE = Place(Path("a batch on Spark"), 0)


def check_columns(name: str, frame: DataFrame, schema: TableSchema, *, learns: bool = False) -> None:
    """Raise DataError unless the frame has the schema's columns, and none of them is a time that is used as text.

    To be learned from, it needs those that features are made of.
    """
    sources = {source for one in schema.all_derived for source in one.sources()}
    texts = {c.column for c in schema.id_columns} | {task.column for task in schema.tasks if task.positive is not None}
    others = () if learns else (*(task.column for task in schema.tasks), schema.weight, schema.group)
    derived = {one.name for one in schema.all_derived}
    missing = (texts | {n.column for n in schema.numeric} | sources | set(filter(None, others))) - derived - set(frame.columns)
    if missing:
        raise DataError(f"{name} lacks the columns {', '.join(sorted(missing))} that schema {schema.name!r} uses")
    check_texts(name, frame, texts - derived | ({schema.group} if schema.group in frame.columns else set()))


def check_texts(name: str, frame: DataFrame, columns: Iterable[str | None]) -> None:
    """Raise DataError if a column that is used as text holds times."""
    for column in sorted(filter(None, columns)):
        if frame.schema[column].dataType.typeName().startswith("timestamp"):
            raise DataError(f"{name}: column {column!r} holds times, whose text depends on Spark's time zone; make them text")


def columns_of(frame: DataFrame, names: Collection[str]) -> DataFrame:
    """Some columns of a frame."""
    return frame.select(*[quoted(name) for name in frame.columns if name in names])


def quoted(name: str) -> str:
    """A column's name as Spark reads it, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


@contextmanager
def kept(frame: DataFrame) -> Iterator[DataFrame]:
    """The frame, whose rows Spark keeps meanwhile, in its workers' memory and on their disks."""
    try:
        yield frame.persist()
    finally:
        frame.unpersist()


@contextmanager
def errors() -> Iterator[None]:
    """Raise what a task raised, as it would be raised here."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PythonException

    try:
        yield
    except (PythonException, Py4JJavaError) as error:
        said = re.findall(r"^(?:[\w.]*\.)?DataError: (.*)$", str(error), re.MULTILINE)
        if not said:
            raise
        raise DataError(said[-1]) from error


def without_histories(schema: str | Path | Mapping[str, Any]) -> TableSchema:
    """The schema. Raises DataError for one with `histories`."""
    table = table_schema(schema)[0]
    if table.histories:
        raise DataError(f"schema {table.name!r} has histories, which are not collected on Spark: add their items to the rows, as lists")
    return table
