"""Scores files of any size: read, encode and score batch by batch, and write the scores next to the columns that name the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from ..data.encoder.memory import Piece
from ..data.packed.arrays import Progress, no_progress
from ..data.read.csv_files import Rejects
from ..data.read.row_files import RowReader, expand, expected_rows, named_twice
from ..data.read.text_queries import open_database
from ..data.schema.files import Csv
from ..errors import DataError, one_line, shown
from ..support.checks import check_count
from ..support.files import output_path, path_of, scratch_folder, writing_output
from .export.load import ExportedRanker
from .ranker import Ranker

PART_ROWS = 32_768
"""So many rows are encoded while those before are scored."""

Job = Callable[[], tuple[pa.RecordBatch, torch.Tensor, "torch.Tensor | None"]]


def score_files(
    ranker: Ranker | ExportedRanker,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    keys: Sequence[str] = (),
    csv: Csv | None = None,
    missing_values: tuple[str, ...] = ("",),
    max_rejects: int = 0,
    progress: Progress = no_progress,
) -> tuple[int, int]:
    """Write a row of scores for each row of the input files, in their order.

    Args:
        ranker: it encodes and scores.
        inputs: CSV and Parquet files, patterns and folders. Labels need not be there.
        output: a .parquet or .csv file, replaced when all is written. Its columns are ``keys`` and ``ranker.names`` (float32).
        keys: columns of the inputs that the output repeats, such as a user's and an item's id; of CSV files as text, or as numbers
            (float64) if the ranker reads them as numbers.
        csv: how CSV files are written; None: with commas, as UTF-8.
        missing_values: the texts of CSV files that mean a missing cell.
        max_rejects: how many CSV rows that cannot be read may be left out. They go to ``OUTPUT.rejects.parquet``.
        progress: called with what is done, how many rows are done, and how many there are.

    Returns:
        The numbers of rows that were scored and rejected.

    Raises:
        DataError: an argument, a file, a column or a cell cannot be used; the message names it.
        TypeError, ValueError: an input is not a path, or ``max_rejects`` no number of rows.
    """
    if not hasattr(ranker, "encoder"):
        raise DataError(f"ranker: got {shown(ranker)}, expected a Ranker or an ExportedRanker; load one from its run or file")
    output = output_path("output", output, ".parquet", ".csv")
    for name, given in (("inputs", inputs), ("keys", keys), ("missing_values", missing_values)):
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            raise DataError(f"{name}: got {shown(given)}, expected a list; put a single one in a list")
    inputs, keys = list(inputs), list(keys)
    check_count("max_rejects", max_rejects, minimum=0)
    if csv is not None and not isinstance(csv, Csv):
        raise DataError(f"csv: got {shown(csv)}, expected a dcrnn_fast.data.schema.files.Csv, such as Csv(delimiter=';')")
    if unnamed := [key for key in keys if not isinstance(key, str)]:
        raise DataError(f"keys: got {shown(unnamed[0])}, expected the name of a column")
    if taken := [key for key in keys if key in ranker.names or keys.count(key) > 1]:
        raise DataError(f"keys: {taken[0]!r} is given twice, or is the name of a score; rename the column, or leave it out")
    files = [file for given in inputs for file in expand("the input", path_of("inputs", given))]
    if not files:
        raise DataError("inputs: expected at least one file, pattern or folder")
    if twice := named_twice(files):
        raise DataError(f"inputs name {twice} twice; name each file once")
    rejected = output.with_name(f"{output.name}.rejects.parquet")
    if lost := {output.resolve(), rejected.resolve()}.intersection(file.resolve() for file in files):
        raise DataError(f"output {output}: {min(lost)} is one of the input files and would be lost; choose another output")
    rejects = Rejects(max_rejects, rejected.name)
    text = {*ranker.encoder.text_columns, *(key for key in keys if key not in ranker.columns)}
    with scratch_folder() as scratch, open_database(scratch) as database:
        reader = RowReader(
            text=text,
            keys=keys,
            numbers={*ranker.columns} - text,
            csv=csv or Csv(),
            missing_values=missing_values,
            wanted_by="the run or a key",
            scratch=scratch,
            database=database,
            rejects=rejects,
        )
        expected, done = expected_rows(files), 0
        with writing_output("output", output) as beside, closing(_Writer(beside, output.suffix)) as writer:
            for batch, ids, dense in _ahead(_jobs(ranker, reader, files)):
                scores = {name: pa.array(values) for name, values in ranker.predict_encoded(ids, dense).items()}
                columns = {key: batch.column(key) for key in keys} | scores
                writer.write(pa.RecordBatch.from_pydict(columns))
                done += batch.num_rows
                progress("scoring rows", done, expected)
            if not done:
                raise DataError(f"{files[0]} holds no rows to score")
            writer.close()
            rejected.unlink(missing_ok=True)
            rejects.write_file(rejected)
    return done, len(rejects)


def _jobs(ranker: Ranker | ExportedRanker, reader: RowReader, files: Sequence[Path]) -> Iterator[Job]:
    for path in files:
        for batch, place in reader.batches(path):
            for start in range(0, batch.num_rows, PART_ROWS):
                part, at = batch.slice(start, PART_ROWS), place._replace(before=place.before + start)
                piece = Piece({name: part.column(name) for name in ranker.columns}, part.num_rows, at)
                yield lambda part=part, piece=piece: (part, *ranker.encoder.encode_pieces([piece]))  # type: ignore[misc]


def _ahead(jobs: Iterator[Job]) -> Iterator[tuple[pa.RecordBatch, torch.Tensor, torch.Tensor | None]]:
    """The results of the jobs in their order. Another thread reads and does the next one meanwhile."""

    def following() -> Any:
        job = next(jobs, None)
        return None if job is None else job()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(following)
        while (found := waiting.result()) is not None:
            waiting = pool.submit(following)
            yield found


class _Writer:
    """Writes batches as Parquet or CSV; the first one decides the columns' types."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind = path, kind
        self._file: Any = None
        self._schema: pa.Schema | None = None

    def close(self) -> None:
        """End the file, once."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows. Raises DataError for columns of other types than the first ones, and for cells that the file cannot hold."""
        first = batch.schema if self._schema is None else self._schema
        for here, there in zip(batch.schema, first, strict=True):
            if here.type != there.type and not {here.type, there.type} <= {pa.string(), pa.large_string(), pa.string_view()}:
                raise DataError(
                    f"keys: the input files have other types in column {here.name!r}: {there.type}, then {here.type}; write them alike"
                )
        batch = batch.cast(first)
        try:
            if self._file is None:
                self._schema = first
                self._file = (pq.ParquetWriter if self._kind == ".parquet" else pa.csv.CSVWriter)(str(self._path), first)
            self._file.write_batch(batch)
        except pa.ArrowException as error:
            kinds = ", ".join(f"{field.name!r} {field.type}" for field in first)
            raise DataError(
                f"keys: not all cells can be written as {self._kind} ({one_line(error)}); the columns are {kinds}: convert keys to text or "
                "numbers, or write .parquet"
            ) from error
