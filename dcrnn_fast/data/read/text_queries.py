"""Queries to DuckDB about the texts of a column. It moves to the disk what its memory does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

MEMORY = "512MB"


def open_database(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory that spills to `folder` and loads nothing from a network."""
    settings = {
        "memory_limit": MEMORY,
        "temp_directory": str(folder),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    database = duckdb.connect(config=settings)  # type: ignore[arg-type]
    with suppress(duckdb.InvalidInputException):  # in a notebook without ipywidgets there is no bar, and nothing to set
        database.execute("SET enable_progress_bar = false")  # it would print to standard output
    return database


def answer(database: duckdb.DuckDBPyConnection, rows: Any, query: str, *values: Any, at_once: int = 1 << 16) -> Iterator[pa.RecordBatch]:
    """The batches of a query's result; the query reads the rows, a table or a stream of Arrow's, as the table `source`.

    One query at a time: DuckDB answers it by several threads, within its memory.
    """
    database.register("source", rows)
    try:
        yield from database.sql(query, params=list(values)).arrow(at_once)
    except RuntimeError as error:
        if "interrupted" in str(error):  # by Ctrl-C, of which DuckDB makes an error
            raise KeyboardInterrupt from error
        raise
    finally:
        database.unregister("source")


def hashes(database: duckdb.DuckDBPyConnection, texts: pa.ChunkedArray, prefix: str = "") -> npt.NDArray[np.uint64]:
    """A number for each text: the last 8 bytes, little-endian, of the MD5 of prefix and text in UTF-8."""
    found = answer(database, pa.table({"text": texts}), "SELECT md5_number_lower($1 || text) FROM source", prefix)
    return np.concatenate([batch.column(0).to_numpy() for batch in found] or [np.zeros(0, np.uint64)])
