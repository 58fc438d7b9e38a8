"""Parquet files as a frame of Spark, for the command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError, DataError, one_line
from ..catalog import table_schema
from ..packed.remote import is_remote
from ..read.row_files import expand, with_inputs
from .frames import columns_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def frame_of_files(schema: str | Path, inputs: Sequence[str]) -> DataFrame:
    """The rows of a schema's `files: {all: ...}`, or of `inputs`, with the columns that the schema uses, by the session that is set up.

    The files of this machine come in the order of their names, as `prepare` has them; Spark orders those of an address. Raises ConfigError
    for no file, or one that is no Parquet, and DataError for files that Spark cannot read, or in which a column has several types.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import SparkSession

    table, folder = table_schema(schema)
    if inputs:
        with_inputs(table, inputs)  # refuses a schema whose files have roles
        folder = Path()
    files: list[str] = []
    for one in inputs or table.files.all or ():
        files += [one] if is_remote(one) else map(str, expand("--engine spark: the", (folder / one).absolute()))
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
