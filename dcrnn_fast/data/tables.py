"""The files of a schema as Arrow tables, one for each split, with the columns that the schema uses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ..errors import DataError, shown
from .columns import texts_of
from .meta import MISSING
from .schema import TableSchema

SPLITS = ("train", "valid", "test")
TEXT = pa.dictionary(pa.int32(), pa.string())


def source_paths(schema: TableSchema, folder: Path) -> dict[str, Path]:
    """The file of each role; relative paths start at `folder`. Raises DataError for a missing file or an unknown kind of file."""
    paths = {role: folder / path for role, path in schema.files.paths().items()}
    for role, path in paths.items():
        if not os.path.isfile(path):
            raise DataError(
                f"data set {schema.name!r}: the {role} file {path} does not exist or cannot be read; `files` is relative to the schema YAML"
            )
        if not path.name.endswith((".csv", ".csv.gz", ".parquet")):
            raise DataError(f"data set {schema.name!r}: {path} is of an unknown kind; expected .csv, .csv.gz or .parquet")
    return paths


class Budget:
    """How much memory the tables of a data set may take; counts while they are read, so that no file gets to fill the memory."""

    def __init__(self, gigabytes: float) -> None:
        self.gigabytes, self.used = gigabytes, 0
        self._dictionaries: set[int] = set()

    def take(self, batch: pa.RecordBatch, path: Path) -> pa.RecordBatch:
        """Count a batch. Raises DataError that says how to go on once the limit is passed."""
        for column in batch.columns:
            if pa.types.is_dictionary(column.type):
                self.used += column.indices.nbytes
                where = next((buffer.address for buffer in reversed(column.dictionary.buffers()) if buffer is not None), 0)
                column = None if where in self._dictionaries else column.dictionary
                self._dictionaries.add(where)  # Batches of a Parquet file share one.
            self.used += 0 if column is None else column.nbytes
        if self.used > self.gigabytes * 1e9:
            raise DataError(
                f"{path} is too large: with the files read before it, its columns take more than {self.gigabytes:g} GB as Arrow arrays; "
                "name fewer columns in the schema, use fewer rows, or, with a memory of about 10 times as much, set "
                "DCRNN_FAST_MAX_TABLE_GB higher (docs/data-format.md)"
            )
        return batch


def read_splits(schema: TableSchema, folder: Path, *, seed: int, valid_fraction: float, max_gb: float) -> dict[str, pa.Table]:
    """The tables of "train", "valid" and "test". Raises DataError where they take more than `max_gb` GB (10^9 bytes) as Arrow arrays.

    Without a validation file or `valid` rows, `valid_fraction` of the train rows, drawn with `seed`, become the validation split. A
    `test_fraction` is drawn with the schema's `test_seed`, so `seed` never changes the test rows. The order of the rows is kept.
    """
    paths = source_paths(schema, folder)
    budget = Budget(max_gb)
    tables = {role: _read(schema, path, budget) for role, path in paths.items()}
    if "all" in tables:
        tables = _split_one_file(schema, tables["all"], paths["all"])
    if tables["train"].num_rows == 0:
        raise DataError(f"data set {schema.name!r}: no train rows in {paths.get('train', paths.get('all'))}")
    if "valid" not in tables:
        kept, drawn = _draw(tables["train"].num_rows, valid_fraction, seed)
        if not len(kept):
            raise DataError(f"data set {schema.name!r}: valid_fraction {valid_fraction} leaves no train row of {tables['train'].num_rows}")
        tables = {**tables, "valid": _take(tables["train"], drawn), "train": _take(tables["train"], kept)}
    return {split: tables[split].combine_chunks() for split in SPLITS}


def _draw(rows: int, fraction: float, seed: int) -> tuple[pa.Array, pa.Array]:
    drawn = np.zeros(rows, dtype=bool)
    drawn[np.random.default_rng(seed).permutation(rows)[: round(rows * fraction)]] = True
    return pa.array(np.flatnonzero(~drawn)), pa.array(np.flatnonzero(drawn))


def _take(table: pa.Table, rows: pa.Array) -> pa.Table:
    columns = {}
    for name in table.column_names:
        try:
            columns[name] = table.column(name).take(rows)
        except pa.ArrowException as error:
            kind = shown(str(table.column(name).type))
            raise DataError(f"column {name!r} is of type {kind}, of which Arrow selects no rows; convert it to text or numbers") from error
    return pa.table(columns)


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with text and bytes in the layouts that all of Arrow's functions know."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    columns = [column.cast(plain[column.type]) if column.type in plain else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _split_one_file(schema: TableSchema, table: pa.Table, path: Path) -> dict[str, pa.Table]:
    column, fraction = schema.files.split_column, schema.files.test_fraction
    if column is None:
        assert fraction is not None
        kept, drawn = _draw(table.num_rows, fraction, schema.files.test_seed)
        return {"train": _take(table, kept), "test": _take(table, drawn)}
    texts = texts_of(table, column)
    found = texts.present()
    if texts.missing.any() or not {"train", "test"} <= set(found) <= set(SPLITS):
        names = ", ".join([*found[:10], *([MISSING] if texts.missing.any() else [])])
        raise DataError(f"{path}: split column {column!r} holds {names} (at most 10 shown), expected train, test and optionally valid")
    return {
        split: _take(table, pa.array(np.flatnonzero(texts.codes == texts.texts.index(split).as_py()))) for split in SPLITS if split in found
    }


def _read(schema: TableSchema, path: Path, budget: Budget) -> pa.Table:
    text, numbers = schema.text_columns(), schema.number_columns()
    wanted = sorted(text | numbers)
    try:
        if path.suffix == ".parquet":
            present = pq.read_schema(path).names
        else:
            with pa_csv.open_csv(path) as reader:
                present = reader.schema.names
        missing = [name for name in wanted if name not in present]
        if missing:
            raise DataError(f"{path} lacks the columns {', '.join(missing)} that schema {schema.name!r} uses; it has {', '.join(present)}")
        repeated = [name for name in wanted if present.count(name) > 1]
        if repeated:
            raise DataError(f"{path} has the columns {', '.join(repeated)} more than once; rename them so that each name is unique")
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                batches = [budget.take(_without_views(batch), path) for batch in file.iter_batches(columns=wanted)]
                empty = file.schema_arrow.empty_table().select(wanted)
            return pa.Table.from_batches(batches) if batches else empty
        types = {name: TEXT if name in text else pa.float64() for name in wanted}
        convert = pa_csv.ConvertOptions(
            column_types=types, include_columns=wanted, strings_can_be_null=True, null_values=list(schema.missing_values)
        )
        with pa_csv.open_csv(path, convert_options=convert) as reader:
            return pa.Table.from_batches([budget.take(batch, path) for batch in reader], reader.schema)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: its header is no UTF-8 ({error.reason}); save it as UTF-8") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())[:500]}") from error
