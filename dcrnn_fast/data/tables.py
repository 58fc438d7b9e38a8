"""Reads the files of a schema into a staged table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from .columns import without_views
from .csv_files import BATCH_ROWS, CsvFile
from .derived import with_derived
from .number_codes import Place
from .rejects import Rejects
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
    files = [path for of_role in paths.values() for path in of_role]
    expected = sum(map(_rows, files)) if all(path.suffix != ".gz" for path in files) else None
    try:
        for role, of_role in paths.items():
            first = staged.rows
            for path in of_role:
                before = staged.rows
                for batch in _batches(schema, path, folder, database, rejects):
                    if batch.num_rows:
                        place = Place(path, staged.rows - before)
                        staged.append(with_derived(batch, derived, place), place)
                        progress("reading rows", staged.rows, expected)
            rows[role] = staged.rows - first
    finally:
        staged.finish()
    return staged, rows


def _rows(path: Path) -> int:
    """How many rows a file has: exactly for Parquet, about for CSV, from the mean length of its first lines."""
    try:
        if path.suffix == ".parquet":
            return int(pq.read_metadata(path).num_rows)
        with path.open("rb") as stream:
            start = stream.read(1 << 20)
        return path.stat().st_size * start.count(b"\n") // max(len(start), 1)
    except (pa.ArrowException, OSError):
        return 0  # Reading the file tells what is wrong with it.


def _batches(
    schema: TableSchema, path: Path, folder: Path, database: duckdb.DuckDBPyConnection, rejects: Rejects
) -> Iterator[pa.RecordBatch]:
    text, numbers = schema.file_columns()
    wanted = sorted(text | numbers)
    if path.suffix != ".parquet":
        file = CsvFile(path, schema.csv, folder)
        _check_columns(schema, path, wanted, file.columns)
        truths = file.truth_columns(database, schema.label_columns() & numbers, schema.missing_values)
        types = {name: "VARCHAR" if name in text else "BOOLEAN" if name in truths else "DOUBLE" for name in wanted}
        yield from file.batches(database, types, schema.missing_values, rejects)
        return
    try:
        _check_columns(schema, path, wanted, pq.read_schema(path).names)
        with pq.ParquetFile(path) as parquet:
            yield from map(without_views, parquet.iter_batches(BATCH_ROWS, columns=wanted))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())[:500]}") from error


def _check_columns(schema: TableSchema, path: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        remedy = "; name its `csv: delimiter` in the schema" if len(present) == 1 and path.suffix != ".parquet" else ""
        has = f"it has {', '.join(present)}{remedy}"
        raise DataError(f"{path} lacks the columns {', '.join(missing)} that schema {schema.name!r} uses; {has}")
    made = [*(one.name for one in schema.all_derived), *(one.name for one in schema.histories)]
    derived = [name for name in made if name in present]
    if derived:
        raise DataError(
            f"{path} has the columns {', '.join(derived)}, which schema {schema.name!r} derives; rename them there or in its "
            "`derived` or `histories`"
        )
    repeated = [name for name in wanted if present.count(name) > 1]
    if repeated:
        raise DataError(f"{path} has the columns {', '.join(repeated)} more than once; rename them so that each name is unique")
