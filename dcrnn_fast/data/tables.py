"""Reads the files of a schema into a staged table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from .derived import with_derived
from .number_codes import Place
from .rejects import Rejects
from .row_files import RowReader
from .schema import TableSchema
from .staged import StagedTable

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
    files = [path for of_role in paths.values() for path in of_role]
    expected = sum(map(rows_of, files)) if all(path.suffix != ".gz" for path in files) else None
    try:
        for role, of_role in paths.items():
            first = staged.rows
            for path in of_role:
                before = staged.rows
                for batch in reader.batches(path):
                    if batch.num_rows:
                        place = Place(path, staged.rows - before)
                        staged.append(with_derived(batch, derived, place), place)
                        progress("reading rows", staged.rows, expected)
            rows[role] = staged.rows - first
    finally:
        staged.finish()
    return staged, rows


def rows_of(path: Path) -> int:
    """How many rows a file has: exactly for Parquet, about for CSV, from the mean length of its first lines."""
    try:
        if path.suffix == ".parquet":
            return int(pq.read_metadata(path).num_rows)
        with path.open("rb") as stream:
            start = stream.read(1 << 20)
        return path.stat().st_size * start.count(b"\n") // max(len(start), 1)
    except (pa.ArrowException, OSError):
        return 0  # Reading the file tells what is wrong with it.
