"""Packs rows on Spark: a part of a packed data set for each partition."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from ...errors import DataError, one_line
from ...support.files import path_of, write_text
from ..build.apply import EncodedRows, FittedSchema
from ..build.build import meta_of, write_rows
from ..packed.arrays import file_sha256, write_meta
from ..packed.meta import META, SCHEMA, PackedMeta
from ..packed.remote import file_system, is_remote
from ..packed.shards import joined
from .frames import errors
from .staging import opened

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def write_parts(pieces: DataFrame, fitted: FittedSchema, output: str | Path, folder: NewFolder) -> PackedMeta:
    """Write a staged frame to a new folder, which is `output`, a part for each partition. Return the meta.json of the whole."""
    address, parts, call = str(output) if is_remote(output) else folder.root, list[tuple[str, PackedMeta, str]](), secrets.token_hex(4)
    everywhere = pieces.sparkSession.sparkContext.broadcast(fitted)

    def packed(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        name = f"{call}-{TaskContext.get().taskAttemptId()}"  # a task that failed, and runs again, has another one
        with opened(pieces, everywhere.value.schema) as (table, splits, database), tempfile.TemporaryDirectory() as scratch:
            if table.rows:
                rows = EncodedRows(everywhere.value, table, database)
                meta = write_rows(Path(scratch), everywhere.value, rows, table, splits)
                _copy(scratch, file_system(address)[0], f"{file_system(address)[1]}/{name}")
                found = json.dumps([name, meta.rows, meta.checksums, file_sha256(Path(scratch) / META)])
                yield pa.RecordBatch.from_pydict({"part": [found]})

    with errors():
        for row in pieces.drop("facts").mapInArrow(packed, "part string").collect():
            name, rows, checksums, own = json.loads(row.part)
            parts.append((name, replace(meta_of(fitted.schema, fitted, rows), checksums=checksums), own))
    everywhere.unpersist()
    whole, named = joined(parts), {name for name, _, _ in parts}
    there = {one.base_name: one.path for one in folder.system.get_file_info(FileSelector(folder.root, allow_not_found=True))}
    if lost := named - there.keys():
        raise DataError(
            f"{output} lacks the part {min(lost)}, which a task has written: give a path that all machines share, or an address"
        )
    for name in there.keys() - named:  # of a task that failed or ran twice
        folder.system.delete_dir(there[name])
    write_meta(folder.scratch, whole)
    write_text(folder.scratch / SCHEMA, fitted.schema.to_yaml())
    return whole


class NewFolder(NamedTuple):
    """A folder that is written: its file system, its path there, and a folder of this machine whose files it gets at the end."""

    system: FileSystem
    root: str
    scratch: Path


@contextmanager
def new_folder(output: str | Path) -> Iterator[NewFolder]:
    """The folder of an address or path. An error deletes it. Raises DataError if it exists or cannot be reached or written."""
    path_of("output", output)
    system, root = file_system(output)
    try:
        exists = system.get_file_info(root).type is not FileType.NotFound
    except OSError as error:
        raise DataError(f"{output} cannot be reached: {one_line(error)}") from error
    if exists:
        raise DataError(f"{output} exists; delete it, or choose another folder")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            yield NewFolder(system, root, Path(scratch))
            _copy(scratch, system, root)
    except BaseException:
        with suppress(OSError):
            system.delete_dir(root)
        raise


def _copy(folder: str | Path, system: FileSystem, to: str) -> None:
    """Copy the files of a folder of this machine."""
    try:
        system.create_dir(to)
        copy_files(str(folder), to, source_filesystem=LocalFileSystem(), destination_filesystem=system)
    except OSError as error:
        raise DataError(f"{to} cannot be written: {one_line(error)}") from error
