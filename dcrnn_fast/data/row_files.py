"""The rows of one CSV or Parquet file, batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from .columns import without_views
from .csv_files import BATCH_ROWS, CsvFile
from .file_schema import Csv
from .rejects import Rejects

NAMES_CHARACTERS = 1000


class RowReader:
    """Reads some columns of files. A CSV file's `text` columns are read as text, its `numbers` as numbers, of which `truths` may be words.

    `wanted_by` says in errors who uses the columns; no file may have one of the columns `derived`. `scratch` takes copies of files that
    must be unpacked; `rejects` gets the CSV rows that cannot be read.
    """

    def __init__(
        self,
        *,
        text: Collection[str],
        numbers: Collection[str],
        truths: Collection[str] = (),
        derived: Sequence[str] = (),
        csv: Csv,
        missing_values: tuple[str, ...],
        wanted_by: str,
        scratch: Path,
        database: duckdb.DuckDBPyConnection,
        rejects: Rejects,
    ) -> None:
        self._text, self._numbers, self._truths, self._derived = set(text), set(numbers), set(truths), derived
        self._csv, self._missing, self._wanted_by = csv, missing_values, wanted_by
        self._scratch, self._database, self._rejects = scratch, database, rejects

    def batches(self, path: Path) -> Iterator[pa.RecordBatch]:
        """The file's rows in their order. Raises DataError for a file that cannot be read, lacks a column or has it twice."""
        wanted = sorted(self._text | self._numbers)
        if path.suffix != ".parquet":
            file = CsvFile(path, self._csv, self._scratch)
            self._check(path, wanted, file.columns)
            words = file.truth_columns(self._database, self._truths & self._numbers, self._missing)
            types = {name: "VARCHAR" if name in self._text else "BOOLEAN" if name in words else "DOUBLE" for name in wanted}
            yield from file.batches(self._database, types, self._missing, self._rejects)
            return
        try:
            self._check(path, wanted, pq.read_schema(path).names)
            with pq.ParquetFile(path) as parquet:
                yield from map(without_views, parquet.iter_batches(BATCH_ROWS, columns=wanted))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read: {' '.join(str(error).split())[:500]}") from error

    def _check(self, path: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
        if missing := [name for name in wanted if name not in present]:
            remedy = "; name its `csv: delimiter` in the schema" if len(present) == 1 and path.suffix != ".parquet" else ""
            has = f"it has {_named(present)}{remedy}"
            raise DataError(f"{path} lacks the columns {_named(missing)} that {self._wanted_by} uses; {has}")
        if derived := [name for name in self._derived if name in present]:
            raise DataError(
                f"{path} has the columns {', '.join(derived)}, which {self._wanted_by} derives; rename them there or in its "
                "`derived` or `histories`"
            )
        if repeated := [name for name in wanted if present.count(name) > 1]:
            raise DataError(f"{path} has the columns {', '.join(repeated)} more than once; rename them so that each name is unique")


def _named(columns: Sequence[str]) -> str:
    """Names for a message, which a damaged header may make endless."""
    said = ", ".join(columns)
    return said if len(said) <= NAMES_CHARACTERS else f"{said[:NAMES_CHARACTERS]}..."
