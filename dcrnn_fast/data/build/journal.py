"""Which input files a table has been read of: a killed call leaves it with their rows, and the next call of the same table goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from ... import __version__
from ...errors import DataError
from ..schema.table import TableSchema

FILE = "read.jsonl"
MACHINE_START = Path("/proc/sys/kernel/random/boot_id")
"""Linux writes another text here at each start of the machine; before one, the disk may not have got all that was written."""


class Journal:
    """A folder's lines of JSON: of the table, then one for each input file that was read whole, with the sizes of the folder's files then.

    A line of other files, versions or start of the machine, one that is damaged, and a file that is shorter than it should be or a link,
    empty the folder. What was written after the last line is cut off or deleted.
    """

    def __init__(self, folder: Path, schema: TableSchema, paths: Mapping[str, Sequence[Path]]) -> None:
        self._folder, self._file = folder, folder / FILE
        files = {role: [_identity(file) for file in of_role] for role, of_role in paths.items()}
        start = MACHINE_START.read_text(encoding="ascii") if MACHINE_START.is_file() else None
        versions = [__version__, *(library.__version__ for library in (duckdb, np, pa))]
        first = json.dumps({"versions": versions, "start": start, "files": files, "schema": schema.model_dump(mode="json")})
        self.records: list[dict[str, Any]] = self._read(first) if start else []
        """What :meth:`add` got for the input files that need not be read again, in their order."""
        if not self.records:
            shutil.rmtree(folder)
            folder.mkdir()
        self._file.write_text("".join(f"{line}\n" for line in (first, *map(json.dumps, self.records))), encoding="ascii")

    def _read(self, first: str) -> list[dict[str, Any]]:
        if not self._file.is_file():
            return []
        there = {file.name: file for file in self._folder.iterdir() if file.name != FILE}
        try:
            line, *lines = self._file.read_text(encoding="ascii", errors="replace").split("\n")[:-1]  # the last one ends in a line feed
            records = [json.loads(line) for line in lines] if line == first else []
            sizes = records[-1]["sizes"] if records else {}
            if any(there[name].is_symlink() or there[name].stat().st_size < size for name, size in sizes.items()):
                return []
        except (ValueError, TypeError, KeyError):
            return []
        for name, file in there.items():
            if name in sizes:
                os.truncate(file, sizes[name])
            elif file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink()
        return records

    def add(self, record: Mapping[str, Any], files: Iterable[Path]) -> None:
        """Note that an input file was read whole into these files of the folder, which hold all that was written to them."""
        sizes = {file.name: file.stat().st_size for file in files}
        with self._file.open("a", encoding="ascii") as stream:
            stream.write(json.dumps({**record, "sizes": sizes}) + "\n")


def _identity(file: Path) -> tuple[str, int, int, int, int]:
    """What tells that a file is still the same: another content has another one of these."""
    try:
        found = file.stat()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    return str(file), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
