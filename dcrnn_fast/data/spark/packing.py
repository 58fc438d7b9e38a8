"""Packs rows on Spark: a part of a packed data set for each partition."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from ...errors import DataError, one_line
from ...support.files import path_of, write_text
from ..build.apply import FittedSchema
from ..build.build import build, meta_of
from ..catalog import opened
from ..packed.arrays import file_sha256, write_meta
from ..packed.meta import META, SCHEMA, SPLITS, PackedMeta, read_meta
from ..packed.remote import file_system, is_remote
from ..packed.shards import joined
from ..schema.table import schema_of
from .frames import check_columns, columns_of, errors, without_histories

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def pack(frames: Mapping[str, DataFrame], schema: str | Path | Mapping[str, Any], learned: str | Path, output: str | Path) -> PackedMeta:
    """Write a packed data set in parts, a part for each partition: what `train` takes as `data`. Return its meta.json.

    `frames` has the rows of "train", "valid" and "test" (which may be left out), with the schema's columns; partitions follow one another
    in their order. `learned` is a folder that `learn` wrote, or another packed folder of the same schema. `output`, which must not exist,
    is a path that every machine has, or an address that pyarrow writes to, such as s3://bucket/packed. A task writes its part to the
    machine's temporary folder first. Each part has a meta.json with the whole vocabulary.

    Raises DataError as `learn` does, for rows that break the schema, and for what was learned by another schema.
    """
    table, meta, (system, root) = without_histories(schema), opened(learned).meta, new_folder(output)
    if not frames or frames.keys() - set(SPLITS):
        raise DataError(f"frames has {', '.join(sorted(frames)) or 'nothing'}, expected some of {', '.join(SPLITS)}")
    fitted = FittedSchema.restore(table, meta.encoding)
    content, encoding = table.model_dump(mode="json", by_alias=True, exclude_unset=True), meta.encoding
    for split, frame in frames.items():
        check_columns(f"frames[{split}]", frame, table)
    address, parts, call = str(output) if is_remote(output) else root, list[tuple[str, PackedMeta, str]](), secrets.token_hex(4)
    try:
        for split in (split for split in SPLITS if split in frames):

            def packed(batches: Iterable[pa.RecordBatch], split: str = split) -> Iterator[pa.RecordBatch]:
                from pyspark import TaskContext

                name = f"{split}-{call}-{TaskContext.get().taskAttemptId()}"  # a task that failed, and runs again, has another one
                found = _pack_part(content, split, batches, encoding, address, name)
                yield pa.RecordBatch.from_pydict({"part": pa.array([] if found is None else [json.dumps([name, *found])], pa.string())})

            wanted = columns_of(frames[split], set().union(*table.file_columns()))
            with errors():
                for row in wanted.mapInArrow(packed, "part string").collect():
                    name, rows, checksums, own = json.loads(row.part)
                    parts.append((name, replace(meta_of(table, fitted, rows), checksums=checksums), own))
        whole, named = joined(parts), {name for name, _, _ in parts}
        if lost := named - _delete_parts(system, root, call, but=named):
            raise DataError(
                f"{output} lacks the part {min(lost)}, which a task has written: give a path that all machines share, or an address"
            )
        with tempfile.TemporaryDirectory() as scratch:
            write_meta(Path(scratch), whole)
            write_text(Path(scratch) / SCHEMA, table.to_yaml())
            copy_folder(scratch, system, root)
    except BaseException:
        with suppress(OSError):
            if not _delete_parts(system, root, call):
                system.delete_dir(root)
        raise
    return whole


def _delete_parts(system: FileSystem, root: str, call: str, but: Collection[str] = ()) -> set[str]:
    """Delete the parts of a call of `pack`, of tasks that failed or ran twice, but for some, and return the names of what is left."""
    there = {one.base_name: one.path for one in system.get_file_info(FileSelector(root, allow_not_found=True))}
    for name in [name for name in there if f"-{call}-" in name and name not in but]:
        system.delete_dir(there.pop(name))
    return set(there)


def _pack_part(
    content: Mapping[str, Any], split: str, batches: Iterable[pa.RecordBatch], encoding: Mapping[str, Any], address: str, name: str
) -> tuple[dict[str, int], dict[str, str], str] | None:
    """Write the rows of a partition as a packed folder `name`. The rows of its splits, and the checksums of its files; None for no rows."""
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: str(Path(scratch) / f"{name}.parquet") for name in SPLITS}
        first = next(iter(batches), None)
        if first is None:
            return None
        for role, file in files.items():
            with pq.ParquetWriter(file, first.schema) as writer:
                for batch in chain([first], batches) if role == split else ():
                    writer.write_batch(batch)
        schema = schema_of({key: value for key, value in content.items() if key != "split"} | {"files": files}, "given as data")
        paths, part = {role: [Path(file)] for role, file in files.items()}, Path(scratch) / "part"
        build(part, schema, paths, seed=0, valid_fraction=0.0, encoding=encoding, workers=1)
        system, root = file_system(address)
        copy_folder(part, system, f"{root}/{name}")
        meta = read_meta(part / META)
        return meta.rows, meta.checksums, file_sha256(part / META)


def copy_folder(folder: str | Path, system: FileSystem, to: str) -> None:
    """Copy the files of a folder of this machine."""
    try:
        system.create_dir(to)
        copy_files(str(folder), to, source_filesystem=LocalFileSystem(), destination_filesystem=system)
    except OSError as error:
        raise DataError(f"{to} cannot be written: {one_line(error)}") from error


def new_folder(output: str | Path) -> tuple[FileSystem, str]:
    """The file system of an address or path, and the path there. Raises DataError if it exists or cannot be reached."""
    path_of("output", output)
    system, root = file_system(output)
    try:
        exists = system.get_file_info(root).type is not FileType.NotFound
    except OSError as error:
        raise DataError(f"{output} cannot be reached: {one_line(error)}") from error
    if exists:
        raise DataError(f"{output} exists; delete it, or choose another folder")
    return system, root
