"""CSV files as batches of rows. DuckDB parses them; a row that it cannot read is rejected with its line and the reason in words.

Rejected rows count against `max_rejects`, and a file next to the arrays keeps them.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import shutil
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError, one_line, shown
from ..schema.files import Csv
from .columns import TRUTHS

HEADER_CHARACTERS = 1 << 20
BATCH_ROWS = 131_072
LINE_BYTES = 2_000_000
FILE = "rejects.parquet"
TEXT_CHARACTERS = 10_000


class CsvFile:
    """A CSV file with a header: its column names, and its rows in the order of the file.

    A cell that is empty or holds a text of `missing` is missing. A compressed file, or one in another encoding than UTF-8, is written to
    `scratch` first, as plain UTF-8. Raises DataError for a file that cannot be read or has no header.
    """

    def __init__(self, path: Path, written: Csv, missing: Sequence[str], scratch: Path, database: duckdb.DuckDBPyConnection) -> None:
        self.path, self._plain, self._written, self._missing, self._database = path, path, written, missing, database
        try:
            if path.suffix == ".gz" or written.encoding_name != "utf-8":
                self._plain = scratch / "plain.csv"
                write_plain(path, self._plain, written.encoding_name)
            self.columns, self._header_options = self._header()
        except (OSError, EOFError, UnicodeError, zlib.error) as error:
            raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error

    def _header(self) -> tuple[list[str], dict[str, str]]:
        """The names, and DuckDB's options for what follows: it skips rows, not lines, and takes the first line end for that of all rows."""
        with self._plain.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            text = io.StringIO(stream.read(HEADER_CHARACTERS), newline="")
        try:
            for number, cells in enumerate(csv.reader(text, delimiter=self._written.delimiter, quotechar=self._written.quote), 1):
                if cells:
                    (names := "".join(cells)).encode()
                    options, header = {"skip": str(number)}, text.getvalue()[: text.tell()]
                    if "\n" in names or "\r" in names:
                        options["new_line"] = r"'\r\n'" if header.endswith("\r\n") else r"'\r'" if header.endswith("\r") else r"'\n'"
                    return cells, options
        except csv.Error as error:
            raise DataError(f"{self.path} cannot be read: its header is not CSV ({error})") from error
        except UnicodeEncodeError as error:
            raise DataError(f"{self.path} cannot be read: its header is not UTF-8; save it as UTF-8, or name `csv: encoding`") from error
        raise DataError(f"{self.path} cannot be read: it is empty; expected a header line with the column names")

    def batches(self, types: Mapping[str, str], rejects: Rejects) -> Iterator[pa.RecordBatch]:
        """Batches of the columns in `types` (column to SQL type), null for a missing cell; `rejects` gets the rows that cannot be read.

        Raises DataError for more of them than `rejects` allows, and for a file that cannot be read.
        """
        stored = {"store_rejects": "true", "rejects_limit": str((rejects.left + 1) * len(self.columns))}  # A row has at most one a column.
        wanted = ", ".join(f'{self._alias(name)} AS "{name.replace(chr(34), chr(34) * 2)}"' for name in types)
        query = f"SELECT {wanted} FROM {self._source(types, self._missing, stored)}"
        try:
            self._database.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
            yield from self._database.sql(query).arrow(BATCH_ROWS)
            query = "SELECT DISTINCT ON (line) line, column_idx, error_type, csv_line FROM reject_errors ORDER BY line, column_idx"
            found = self._database.execute(query).fetchall()
        except duckdb.Error as error:
            said = one_line(error)
            if "invalid state" in said:  # what DuckDB says of the end of a line that is not like the first one's
                said = "its lines end in several ways, in CR LF and in LF alone; write all of them alike"
            raise DataError(f"{self.path} cannot be read as CSV: {said}") from error
        rejects.found += [self._reject(line, column, kind, row.lstrip("\r\n"), types) for line, column, kind, row in found]
        rejects.check()

    def truth_columns(self, labels: Collection[str]) -> set[str]:
        """The columns of `labels` whose first cell that is not missing is a truth value in words; the others hold numbers."""
        found, source = set(), self._source({}, self._missing, {"ignore_errors": "true"})
        for name in labels:
            alias = self._alias(name)
            try:
                first = self._database.execute(f"SELECT {alias} FROM {source} WHERE {alias} IS NOT NULL LIMIT 1").fetchone()
            except duckdb.Error:  # Reading the rows tells what is wrong with the file.
                continue
            if first is not None and any(first[0].lower() in words for words in TRUTHS.values()):
                found.add(name)
        return found

    def missing_among(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Columns whose cells include a text that counts as missing, other than the empty one, and that text."""
        texts = ", ".join(sql_text(text) for text in self._missing if text)
        asked = ", ".join(f"min({cell}) FILTER (WHERE {cell} IN ({texts}))" for cell in map(self._alias, names))
        with suppress(duckdb.Error):  # Reading the rows tells what is wrong with the file.
            found = self._database.execute(f"SELECT {asked} FROM {self._source({}, (), {'ignore_errors': 'true'})}").fetchone()
            yield from ((name, text) for name, text in zip(names, found or (), strict=True) if text is not None)

    def _alias(self, name: str) -> str:
        return f"c{self.columns.index(name)}"

    def _source(self, types: Mapping[str, str], missing: Sequence[str], more: Mapping[str, str]) -> str:
        """The file as a table in SQL, with a column for each name's :meth:`_alias`, of the types in `types` or else text."""
        columns = ", ".join(f"'c{number}': {sql_text(types.get(name, 'VARCHAR'))}" for number, name in enumerate(self.columns))
        options = {
            "auto_detect": "false",
            "header": "false",
            **self._header_options,
            "delim": sql_text(self._written.delimiter),
            "quote": sql_text(self._written.quote),
            "escape": sql_text(self._written.quote),
            "decimal_separator": sql_text(self._written.decimal),
            "columns": f"{{{columns}}}",
            "nullstr": f"[{', '.join(map(sql_text, dict.fromkeys(('', *missing))))}]",
            "maximum_line_size": str(LINE_BYTES),
            **more,
        }
        return f"read_csv({sql_path(self._plain)}, {', '.join(f'{key} = {value}' for key, value in options.items())})"

    def _reject(self, line: int, column: int | None, kind: str, row: str, types: Mapping[str, str]) -> Reject:
        cells = []
        with suppress(csv.Error):  # of a cell beyond Python's limit
            cells = next(csv.reader([row], delimiter=self._written.delimiter, quotechar=self._written.quote), [])
        of_cell = kind not in ("MISSING COLUMNS", "TOO MANY COLUMNS", "LINE SIZE OVER MAXIMUM")
        name = self.columns[column - 1] if of_cell and column is not None and 0 < column <= len(self.columns) else None
        cell = cells[column - 1] if column is not None and column <= len(cells) else None
        held = "text" if cell is None else shown(cell)
        number = "a number"
        if self._written.decimal == "." and re.fullmatch(r"[+-]?\d+,\d+", cell or ""):
            number = 'a number with a point; name `csv: {decimal: ","}` in the schema'
        reasons = {
            "CAST": f"column {name!r} holds {held}, expected {'true or false' if types.get(name or '') == 'BOOLEAN' else number}",
            "MISSING COLUMNS": f"it has {len(cells)} cells, expected {len(self.columns)}",
            "TOO MANY COLUMNS": f"it has {len(cells)} cells, expected {len(self.columns)}",
            "UNQUOTED VALUE": f"a quote ({self._written.quote}) is not closed, or text follows the closing one",
            "LINE SIZE OVER MAXIMUM": f"it is longer than {LINE_BYTES:,} bytes",
            "INVALID ENCODING": f"it holds bytes that are not {self._written.encoding}; save the file as UTF-8, or name `csv: encoding`",
        }
        return Reject(str(self.path), line, name, reasons.get(kind, f"it is not CSV ({kind.lower()})"), row[:TEXT_CHARACTERS])


def _unpacked(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def found_encoding(path: Path) -> str:
    """The encoding by a file's byte order mark, or the first of utf-8, cp1252 and latin-1 that fits its first 64 MiB.

    Raises OSError, EOFError or zlib.error for a file that cannot be read.
    """
    with _unpacked(path) as source:
        start = source.read(1 << 26)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder(encoding)().decode(start)
            return encoding
    return "latin-1"


def write_plain(path: Path, plain: Path, encoding: str) -> None:
    """Write a file, compressed or not, as plain UTF-8. Raises OSError, EOFError or zlib.error for one that cannot be read."""
    with _unpacked(path) as source:
        # What the encoding does not know becomes bytes that are not UTF-8, which rejects the row and not the file.
        text: IO[str] = io.TextIOWrapper(source, encoding, errors="surrogateescape", newline="")
        with plain.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
            shutil.copyfileobj(text, out, 1 << 20)


def sql_path(path: Path) -> str:
    """A path as SQL writes it; DuckDB would read one with `*`, `?` or `[` as a pattern."""
    return sql_text("".join(f"[{c}]" if c in "*?[" else c for c in str(path)))


def sql_text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


class Reject(NamedTuple):
    """A row that was left out. `line` counts from 1, the header's line included; `column` is None if the whole row is at fault.

    `text` is the row, up to 10,000 characters.
    """

    file: str
    line: int
    column: str | None
    reason: str
    text: str


class Rejects:
    """The rejected rows of a data set, at most `limit` of them, which errors say are kept in a file of the name `kept_in`."""

    def __init__(self, limit: int, kept_in: str = FILE) -> None:
        self._limit, self._kept_in = limit, kept_in
        self.found: list[Reject] = []

    def __len__(self) -> int:
        return len(self.found)

    @property
    def left(self) -> int:
        """How many more rows may be rejected."""
        return self._limit - len(self.found)

    def check(self) -> None:
        """Raise DataError that names the first row, if there are more than `limit`."""
        if self.left >= 0:
            return
        first = self.found[0]
        remedy = f"correct the file, or set `max_rejects`, now {self._limit:,}, higher in the schema: such rows go to {self._kept_in}"
        raise DataError(f"{first.file}, line {first.line:,}: {first.reason}; the line is {shown(first.text)}; {remedy}")

    def write_file(self, path: Path) -> None:
        """Write a Parquet file, if a row was rejected: file, line, column, reason, text."""
        if self.found:
            kinds = [pa.string(), pa.int64(), pa.string(), pa.string(), pa.string()]
            columns = [pa.array(column, kind) for column, kind in zip(zip(*self.found, strict=True), kinds, strict=True)]
            pq.write_table(pa.table(columns, names=list(Reject._fields)), path)
