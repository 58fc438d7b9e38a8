"""CSV and Parquet files: which ones paths, patterns and folders name, their rows batch by batch, and about how many there are."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError, did_you_mean, one_line, shown
from ..codes.numbers import Place
from ..schema.files import Csv
from ..schema.table import TableSchema
from .columns import without_views
from .csv_files import BATCH_ROWS, CsvFile, Rejects

NAMES_CHARACTERS = 1000
"""Characters of the names of a file's columns in a message: a damaged header may name columns without end."""
KINDS = (".csv", ".csv.gz", ".parquet")


def expected_rows(paths: Sequence[Path]) -> int | None:
    """About how many rows files have together; None if one is compressed."""
    return None if any(path.suffix == ".gz" for path in paths) else sum(map(_rows, paths))


def _rows(path: Path) -> int:
    """Exactly for Parquet, about for CSV, from the mean length of its first lines."""
    try:
        if path.suffix == ".parquet":
            return int(pq.read_metadata(path).num_rows)
        with path.open("rb") as stream:
            start = stream.read(1 << 20)
        return path.stat().st_size * start.count(b"\n") // max(len(start), 1)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return 0  # Reading the file tells what is wrong with it.


@dataclass(kw_only=True)
class RowReader:
    """Reads some columns of files. A CSV file's `text` columns are read as text, its `numbers` as numbers, and `truths` may be words.

    `wanted_by` says in errors who uses the columns; no file may have one of the columns `derived`. `scratch` takes copies of files that
    must be unpacked; `rejects` gets the CSV rows that cannot be read. A warning says which of the text columns `keys` of a CSV file lose a
    text, because it counts as missing.
    """

    text: Set[str]
    numbers: Set[str]
    truths: Set[str] = frozenset()
    keys: Sequence[str] = ()
    derived: Sequence[str] = ()
    csv: Csv
    missing_values: tuple[str, ...]
    wanted_by: str
    scratch: Path
    database: duckdb.DuckDBPyConnection
    rejects: Rejects

    def batches(self, path: Path) -> Iterator[tuple[pa.RecordBatch, Place]]:
        """The file's rows in their order, in batches that are not empty, and the place where each begins.

        Raises DataError for a file that cannot be read, lacks a column or has it twice.
        """
        before = 0
        for batch in self._read(path):
            if batch.num_rows:
                yield batch, Place(path, before)
                before += batch.num_rows

    def _read(self, path: Path) -> Iterator[pa.RecordBatch]:
        wanted = sorted(self.text | self.numbers)
        if path.suffix != ".parquet":
            file = CsvFile(path, self.csv, self.missing_values, self.scratch, self.database)
            self._check(path, wanted, file.columns)
            words = file.truth_columns(self.truths & self.numbers)
            types = {name: "VARCHAR" if name in self.text else "BOOLEAN" if name in words else "DOUBLE" for name in wanted}
            keys = [key for key in self.keys if key in self.text]
            for key, text in file.missing_among(keys) if keys and any(self.missing_values) else ():
                said = "which `missing_values` names: such cells are empty in the output; to keep the text, take it out of `missing_values`"
                warnings.warn(f"{path}: key column {key!r} holds {shown(text)}, {said}", stacklevel=2)
            yield from file.batches(types, self.rejects)
            return
        try:
            self._check(path, wanted, pq.read_schema(path).names)
            with pq.ParquetFile(path) as parquet:
                yield from map(without_views, parquet.iter_batches(BATCH_ROWS, columns=wanted))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read: {one_line(error, 500)}", table=str(path)) from error

    def _check(self, path: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
        if missing := [name for name in wanted if name not in present]:
            remedy = "; name its `csv: delimiter` in the schema" if len(present) == 1 and path.suffix != ".parquet" else ""
            has = f"it has {_named(present)}{remedy or did_you_mean(missing[0], list(present))}"
            raise DataError(f"lacks the columns {_named(missing)} that {self.wanted_by} uses; {has}", table=str(path))
        if derived := [name for name in self.derived if name in present]:
            remedy = "rename them there or in its `derived` or `histories`"
            raise DataError(f"has the columns {', '.join(derived)}, which {self.wanted_by} derives; {remedy}", table=str(path))
        if repeated := [name for name in wanted if present.count(name) > 1]:
            remedy = "rename them so that each name is unique"
            raise DataError(f"has the columns {', '.join(repeated)} more than once; {remedy}", table=str(path))


def _named(columns: Sequence[str]) -> str:
    text = ", ".join(columns)
    return text if len(text) <= NAMES_CHARACTERS else f"{text[:NAMES_CHARACTERS]}..."


def source_paths(schema: TableSchema, folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each role, a pattern's and a folder's in the order of their names; relative paths start at `folder`.

    Of a folder, the files of a known kind count, not those of its subfolders. Raises DataError for a path, pattern or folder without such
    files, for a file named twice, and for one of the past that has another role.
    """
    found = {
        role: tuple(file for given in paths for file in expand(f"data set {schema.name!r}: the {role}", folder / given, in_schema=True))
        for role, paths in schema.files.roles().items()
    }
    past = set(found.get("past", ()))
    for role, files in found.items():
        if twice := named_twice(files):
            raise DataError(f"data set {schema.name!r}: the {role} files name {twice} twice; name each file once")
        if role != "past" and (both := next((file for file in files if file in past), None)):
            raise DataError(f"data set {schema.name!r}: the past files and the {role} files name {both}; its rows are one or the other")
    return found


def with_inputs(schema: TableSchema, inputs: Sequence[str]) -> TableSchema:
    """The schema with the rows of other files: `inputs`, relative to the working directory, replace the `all` of its `files`.

    Raises DataError for a schema whose files have roles of their own.
    """
    if schema.files.all is None:
        raise DataError(
            f"data set {schema.name!r}: other input files replace `files: {{all: ...}}`, but the schema names train and test files; "
            "give it `all` and a `split`"
        )
    files = schema.files.model_copy(update={"all": tuple(os.path.abspath(path) for path in inputs)})
    return schema.model_copy(update={"files": files})


def named_twice(files: Sequence[Path]) -> Path | None:
    """The first file that is there more than once, if there is one."""
    return next((file for file, times in Counter(files).items() if times > 1), None)


def expand(where: str, path: Path, *, in_schema: bool = False) -> list[Path]:
    """The files of a path, pattern or folder. Raises DataError that says `where` it was given, such as "the input"."""
    hint = "; `files` is relative to the schema YAML" if in_schema else ""
    if os.path.isdir(path):
        present = [entry for entry in path.iterdir() if not entry.name.startswith((".", "_"))]  # which other programs hide, or still write
        if not (files := sorted(file for file in present if file.name.endswith(KINDS) and file.is_file())):
            inside = (
                f"; of the files in its folders give a pattern, such as {path / '*' / '*.parquet'}"
                if any(map(os.path.isdir, present))
                else ""
            )
            raise DataError(f"{where} folder {path} holds no {', '.join(KINDS)} file{inside}")
        return files
    if not os.path.isfile(path) and has_magic(str(path)):
        fits = glob(str(path), recursive=True)
        if not (files := sorted(Path(name) for name in fits if os.path.isfile(name))):
            raise DataError(f"{where} pattern {path} fits no file{' but folders; add /*.parquet to it' if fits else ''}{hint}")
    elif os.path.isfile(path):
        files = [path]
    else:
        problem = "is not a regular file" if os.path.exists(path) else "does not exist or cannot be read"
        raise DataError(f"{where} file {path} {problem}{hint}")
    for file in files:
        if not file.name.endswith(KINDS):
            raise DataError(f"{where} file {file} is of an unknown kind; expected {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    return files
