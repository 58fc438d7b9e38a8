"""The rows of CSV files that cannot be read: counted against `max_rejects`, and kept in a file beside the arrays."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError, shown

FILE = "rejects.parquet"
TEXT_CHARACTERS = 10_000


class Reject(NamedTuple):
    """A row that was left out. `line` counts from 1, the header's line included; `column` is None if the whole row is at fault."""

    file: str
    line: int
    column: str | None
    reason: str
    text: str


class Rejects:
    """The rejected rows of a data set, at most `limit` of them, which errors say are kept in a file of the name `kept_in`."""

    def __init__(self, limit: int, kept_in: str = FILE) -> None:
        self._limit, self._kept_in = limit, kept_in
        self._found: list[Reject] = []

    def __len__(self) -> int:
        return len(self._found)

    @property
    def left(self) -> int:
        """How many more rows may be rejected."""
        return self._limit - len(self._found)

    def add(self, reject: Reject) -> None:
        """Count a row; its text is kept up to 10,000 characters."""
        self._found.append(reject._replace(text=reject.text[:TEXT_CHARACTERS]))

    def check(self) -> None:
        """Raise DataError that names the first row, if there are more than `limit`."""
        if self.left >= 0:
            return
        first = self._found[0]
        remedy = f"correct the file, or set `max_rejects`, now {self._limit:,}, higher in the schema: such rows go to {self._kept_in}"
        raise DataError(f"{first.file}, line {first.line:,}: {first.reason}; the line is {shown(first.text)}; {remedy}")

    def write_file(self, path: Path) -> None:
        """Write a Parquet file, if a row was rejected: file, line, column, reason, text."""
        if self._found:
            kinds = [pa.string(), pa.int64(), pa.string(), pa.string(), pa.string()]
            columns = [pa.array(column, kind) for column, kind in zip(zip(*self._found, strict=True), kinds, strict=True)]
            pq.write_table(pa.table(columns, names=list(Reject._fields)), path)
