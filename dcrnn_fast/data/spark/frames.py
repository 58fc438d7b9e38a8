"""Frames of Spark: of Parquet files, what a schema asks of one, and errors of its tasks as they would be raised here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError, DataError, one_line
from ..catalog import table_schema
from ..codes.numbers import Place
from ..packed.remote import is_remote
from ..read.row_files import expand, with_inputs
from ..schema.table import TableSchema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PLACE = Place(Path("a batch on Spark"), 0)


def check_columns(frame: DataFrame, schema: TableSchema, *, learns: bool = False) -> None:
    """Raise DataError unless the frame has the schema's columns, none of which is a time that is used as text, or made by a history.

    To be learned from, it needs those that features are made of.
    """
    if schema.histories:
        raise DataError(f"schema {schema.name!r} has histories, which are not collected on Spark: add their items to the rows, as lists")
    features = {c.column for c in schema.id_columns} | {n.column for n in schema.numeric}
    features |= {task.column for task in schema.tasks if task.positive is not None}
    features |= {source for one in schema.all_derived for source in one.sources()}
    wanted = features - {one.name for one in schema.all_derived} if learns else set().union(*schema.file_columns())
    if missing := wanted - set(frame.columns):
        raise DataError(f"frame lacks the columns {', '.join(sorted(missing))} that schema {schema.name!r} uses")
    for column in sorted(wanted & schema.text_columns()):
        if frame.schema[column].dataType.typeName().startswith("timestamp"):
            raise DataError(f"frame: column {column!r} holds times, whose text depends on Spark's time zone; make them text")


def columns_of(frame: DataFrame, names: Collection[str]) -> DataFrame:
    """Some columns of a frame, whatever characters their names have."""
    return frame.select(*["`" + name.replace("`", "``") + "`" for name in frame.columns if name in names])


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


def frame_of_files(schema: str | Path, inputs: Sequence[str]) -> DataFrame:
    """The rows of a schema's `files: {all: ...}`, or of `inputs`, with the columns that the schema uses, by the session that is set up.

    The files of this machine come in the order of their names, as `prepare` has them; Spark orders those of an address. Raises ConfigError
    for no file, or one that is not Parquet, and DataError for files that Spark cannot read, or in which a column has several types.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import SparkSession

    table, folder = table_schema(schema)
    if inputs:
        with_inputs(table, inputs)  # refuses a schema whose files have roles
        folder = Path()
    given = inputs or table.files.all or ()
    found = [[one] if is_remote(one) else expand("--engine spark: the", (folder / one).absolute()) for one in given]
    files = [str(file) for some in found for file in some]
    if not files:
        raise ConfigError("--engine spark splits one table: give the schema `files: {all: ...}`")
    if other := next((file for file in files if not is_remote(file) and not file.endswith(".parquet")), None):
        raise ConfigError(f"--engine spark reads Parquet files alone, got {other}")
    session = SparkSession.builder.appName(f"dcrnn-fast prepare {table.name}").getOrCreate()
    wanted, frames = set().union(*table.file_columns()), list["DataFrame"]()
    for file in files:
        address = file if is_remote(file) else "file://" + re.sub(r"([\\\[\]{}*?])", r"\\\1", file)  # not a pattern
        try:
            frames.append(columns_of(session.read.parquet(address), wanted))
        except AnalysisException as error:
            raise DataError(f"{file} cannot be read by Spark: {one_line(error)}") from error
        first, these = ({field.name: field.dataType.simpleString() for field in frame.schema} for frame in (frames[0], frames[-1]))
        if differ := sorted(name for name in first.keys() | these.keys() if first.get(name) != these.get(name)):
            ours, theirs = (types.get(differ[0], "no column") for types in (these, first))
            raise DataError(f"{file} has {differ[0]} as {ours}, and {files[0]} as {theirs}; write all files alike")
    return reduce(lambda frame, more: frame.unionByName(more), frames)
