"""Reads the files of a schema into a staged table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

from ..read.derive import with_derived
from ..read.rejects import Rejects
from ..read.row_files import RowReader, expected_rows
from ..schema.table import TableSchema
from .staging import StagedTable

Progress = Callable[[str, int, "int | None"], None]
"""Called with what is being done, how much of it is done, and how much there is, or None if that is not known."""


def read_tables(
    schema: TableSchema,
    paths: Mapping[str, Sequence[Path]],
    folder: Path,
    database: duckdb.DuckDBPyConnection,
    rejects: Rejects,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> tuple[StagedTable, dict[str, int]]:
    """Stage the files of every role in `folder`. Returns the table and the rows of each role, which follow each other in its order.

    Raises DataError for a file that cannot be read, lacks a column or has it twice, and for more rejected rows than the schema allows.
    """
    staged, rows, derived = StagedTable(schema, folder, pool), {}, schema.all_derived
    text, numbers = schema.file_columns()
    reader = RowReader(
        text=text,
        numbers=numbers,
        truths=schema.label_columns(),
        derived=[*(one.name for one in derived), *(one.name for one in schema.histories)],
        csv=schema.csv,
        missing_values=schema.missing_values,
        wanted_by=f"schema {schema.name!r}",
        scratch=folder,
        database=database,
        rejects=rejects,
    )
    expected = expected_rows([path for of_role in paths.values() for path in of_role])
    try:
        for role, of_role in paths.items():
            first = staged.rows
            for path in of_role:
                for batch, place in reader.batches(path):
                    staged.append(with_derived(batch, derived, place), place)
                    progress("reading rows", staged.rows, expected)
            rows[role] = staged.rows - first
    finally:
        staged.finish()
    return staged, rows
