"""The rows of a table, read from its files column by column onto the disk: numbers as float64, texts as codes with their distinct texts.

Reading happens once, and whatever is learned or encoded afterwards reads one column or one batch of rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..packed.arrays import Progress, raw_bytes
from ..read.columns import FloatArray, Place, Times, labels_of, numbers_of, texts_of, times_of
from ..read.csv_files import Rejects
from ..read.derive import with_derived
from ..read.row_files import RowReader, expected_rows
from ..schema.fields import zoned_columns
from ..schema.table import TableSchema

MAPPED_TEXTS = 1 << 22
"""Distinct texts that are mapped at a time."""


class Batch(NamedTuple):
    """Rows of a staged table: `[start, start + rows)`, the `number`-th batch, read from `place`."""

    number: int
    start: int
    rows: int
    place: Place

    @property
    def here(self) -> slice:
        """The rows as a slice of an array that holds all."""
        return slice(self.start, self.start + self.rows)


class NumberColumn:
    """A column of numbers, NaN where missing."""

    def __init__(self, file: Path, parse: Callable[[pa.Array, str, Place], FloatArray] = numbers_of) -> None:
        self._file, self._parse = file, parse
        file.touch()

    def read(self, cells: pa.Array, name: str, place: Place) -> None:
        """Add the cells of a batch. Raises DataError for one that is not what the column is used as."""
        self.append(self._parse(cells, name, place))

    def append(self, values: FloatArray) -> None:
        """Add cells."""
        with self._file.open("ab") as stream:
            stream.write(raw_bytes(values, np.float64))

    def values(self, batch: Batch) -> FloatArray:
        """The batch's cells."""
        return np.fromfile(self._file, np.float64, batch.rows, offset=batch.start * 8)


class TimeColumn(NumberColumn):
    """A column of times as numbers that rise with time, NaN where missing: of dates and times, microseconds since 1970."""

    known: Times | None = None
    """Those of the latest batch that holds any; None while all are missing."""

    @property
    def moments(self) -> bool | None:
        """Whether the cells are dates or times, or numbers."""
        return None if self.known is None else self.known.moments

    def read(self, cells: pa.Array, name: str, place: Place) -> None:
        """Add the cells of a batch. Raises DataError for what is not a time, and for cells of another kind than those before."""
        times = times_of(cells, name, place)
        if not np.isnan(times.values).all():
            if self.known is not None and self.known.kind != times.kind:
                raise place.error(f"holds {times.kind} from here on, and {self.known.kind} before; write all times in one way", 0, name)
            self.known = times
        self.append(times.values)


BatchValues = Callable[[Batch], npt.NDArray[Any]]
"""Values for the rows of a batch."""


class TextColumn:
    """A column of texts. Position p holds a text; the positions of a batch are its own, so a text has one in each batch that has it."""

    def __init__(self, codes: Path, texts: Path) -> None:
        self._codes, self._texts = codes, texts
        for file in (codes, texts):
            file.touch()
        self.positions = [0]
        self._maps = 0

    def read(self, cells: pa.Array, name: str, place: Place) -> None:
        """Add the cells of a batch. Raises DataError for cells that have no text."""
        self.append(*texts_of(cells, name, place))

    def append(self, codes: npt.NDArray[np.int32], texts: pa.StringArray) -> None:
        """Add a batch: cell i is `texts[codes[i]]`."""
        batch = pa.record_batch([texts], names=["text"])
        with self._codes.open("ab") as stream:
            stream.write(raw_bytes(codes, np.int32))
        with self._texts.open("ab") as stream, pa.ipc.new_stream(stream, batch.schema) as writer:  # one stream behind the other
            writer.write_batch(batch)
        self.positions.append(self.positions[-1] + len(texts))

    def codes(self, batch: Batch) -> npt.NDArray[np.int32]:
        """The batch's cells, as positions of its own from 0."""
        return np.fromfile(self._codes, np.int32, batch.rows, offset=batch.start * 4)

    def present(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Which of the batch's cells are not missing."""
        first, last = self.positions[batch.number : batch.number + 2]
        return self.codes(batch) < last - first - 1  # A batch's last text is MISSING.

    def texts(self) -> pa.ChunkedArray:
        """The text at each position, memory-mapped."""
        chunks: list[pa.Array] = []
        if self.positions[-1]:  # an empty file cannot be mapped
            with pa.memory_map(str(self._texts)) as source:
                while source.tell() < source.size():
                    chunks += pa.ipc.open_stream(source).read_all().column("text").chunks
        return pa.chunked_array(chunks, pa.string())

    def map(self, values_of: Callable[[pa.ChunkedArray], npt.NDArray[Any]], dtype: npt.DTypeLike) -> BatchValues:
        """The values of the cells, as `values_of` maps the texts, of which it gets some at a time, to values of `dtype`."""
        texts, kind = self.texts(), np.dtype(dtype)
        self._maps += 1
        file = self._texts.with_suffix(f".{self._maps}.map")
        with file.open("wb") as stream:
            for start in range(0, len(texts), MAPPED_TEXTS):
                stream.write(raw_bytes(values_of(texts.slice(start, MAPPED_TEXTS)), kind))

        def values(batch: Batch) -> npt.NDArray[Any]:
            first, last = self.positions[batch.number : batch.number + 2]
            return np.fromfile(file, kind, last - first, offset=first * kind.itemsize)[self.codes(batch)]

        return values


class StagedTable:
    """The columns that a schema uses, and the batches in which they were read. `pool` works on several columns at once."""

    def __init__(self, schema: TableSchema, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.texts: dict[str, TextColumn] = {}
        self.numbers: dict[str, NumberColumn] = {}
        self.times: dict[str, TimeColumn] = {}
        self.batches: list[Batch] = []
        self.zoned: dict[str, bool] = {}
        """By column from which parts of times are derived: whether its times have a zone, or are numbers."""
        self.pool, labels = pool, schema.label_columns()
        for number, name in enumerate(sorted(schema.text_columns())):  # numbered: a name may hold what no file name may
            self.texts[name] = TextColumn(folder / f"texts-{number}.codes", folder / f"texts-{number}.arrow")
        for number, name in enumerate(sorted(schema.number_columns())):
            self.numbers[name] = NumberColumn(folder / f"numbers-{number}", labels_of if name in labels else numbers_of)
        for number, name in enumerate(sorted(schema.time_columns())):
            self.times[name] = TimeColumn(folder / f"times-{number}")

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.batches[-1].start + self.batches[-1].rows if self.batches else 0

    def append(self, batch: pa.RecordBatch, place: Place) -> None:
        """Add rows. Raises DataError for a cell that is not what its column is used as."""
        columns = [*self.texts.items(), *self.numbers.items(), *self.times.items()]
        list(self.pool.map(lambda one: one[1].read(batch.column(one[0]), one[0], place), columns))
        self.batches.append(Batch(len(self.batches), self.rows, batch.num_rows, place))


def read_tables(
    schema: TableSchema,
    paths: Mapping[str, Sequence[Path]],
    folder: Path,
    database: duckdb.DuckDBPyConnection,
    rejects: Rejects,
    pool: ThreadPoolExecutor,
    progress: Progress,
    encoding: Mapping[str, Any] | None = None,
) -> tuple[StagedTable, dict[str, int]]:
    """Stage the files of every role in `folder`. Returns the table and the rows of each role, which follow each other in its order.

    Times must be as `encoding` says, if it is given. Raises DataError for a file that cannot be read, lacks a column or has it twice, and
    for more rejected rows than the schema allows.
    """
    derived, staged = schema.all_derived, StagedTable(schema, folder, pool)
    staged.zoned |= zoned_columns(schema.derived_features if encoding is None else encoding.get("derived", {}))
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
    expected, ends = expected_rows(files), [0]
    for path in files:
        for batch, place in reader.batches(path):
            staged.append(with_derived(batch, derived, place, staged.zoned), place)
            progress("reading rows", staged.rows, expected)
        ends.append(staged.rows)
    last = np.cumsum([0, *map(len, paths.values())])
    return staged, {role: ends[end] - ends[begin] for role, begin, end in zip(paths, last[:-1], last[1:], strict=True)}
