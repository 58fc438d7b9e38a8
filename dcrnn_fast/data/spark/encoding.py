"""Encodes rows on Spark: as columns, to score many rows, or as a packed data set, with a part for each partition."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow.fs import FileSelector, FileType, LocalFileSystem, copy_files

from ...errors import DataError, one_line
from ...support.files import path_of, write_text
from ..build.apply import EncodedRows, FittedSchema
from ..build.build import meta_of, write_rows
from ..encoder.encoder import Encoder
from ..packed.arrays import file_sha256, write_meta
from ..packed.meta import META, SCHEMA, PackedMeta
from ..packed.remote import file_system, is_remote
from ..packed.shards import joined
from .frames import columns_of, errors
from .staging import opened

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def encoded(frame: DataFrame, encoder: Encoder, keep: Sequence[str] = ()) -> DataFrame:
    """The rows of a frame as ids and dense values, with the columns `keep`; Spark calls the encoder on batches of rows.

    `ids` is a list of int32, one for each of the encoder's `num_embeddings`, `dense` a list of float32. Raises DataError for a column that
    the frame lacks.
    """
    from pyspark.sql.types import ArrayType, FloatType, IntegerType, StructField, StructType

    if missing := [name for name in (*keep, *encoder.columns) if name not in frame.columns]:
        raise DataError(f"frame lacks the columns {', '.join(missing)}")
    everywhere = frame.sparkSession.sparkContext.broadcast(encoder)

    def batches(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in parts:
            ids, dense = everywhere.value.encode(part)
            columns = {name: part.column(name) for name in keep}
            columns["ids"] = _lists(ids.numpy().astype(np.int32))
            columns["dense"] = _lists(np.empty((len(ids), 0), np.float32) if dense is None else dense.numpy())
            yield pa.RecordBatch.from_pydict(columns)

    kept = [frame.schema[name] for name in keep]
    made = [StructField("ids", ArrayType(IntegerType(), False), False), StructField("dense", ArrayType(FloatType(), False), False)]
    return columns_of(frame, {*keep, *encoder.columns}).mapInArrow(batches, StructType([*kept, *made]))


def _lists(rows: npt.NDArray[Any]) -> pa.ListArray:
    """The rows of a matrix [N, C] as N lists."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(rows).ravel()))


def write_parts(pieces: DataFrame, fitted: FittedSchema, output: str | Path, folder: Path) -> PackedMeta:
    """Write a staged frame to `output`, a part for each partition, and the meta.json of the whole, which this returns, to `folder`."""
    system, root = file_system(output)
    address, call = str(output) if is_remote(output) else root, secrets.token_hex(4)
    everywhere = pieces.sparkSession.sparkContext.broadcast(fitted)

    def packed(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        name = f"{call}-{TaskContext.get().taskAttemptId()}"  # a task that failed, and runs again, has another one
        with opened(pieces, everywhere.value.schema) as (table, splits, database), tempfile.TemporaryDirectory() as scratch:
            if table.rows:
                meta = write_rows(Path(scratch), EncodedRows(everywhere.value, table, database), splits)
                _copy(scratch, address, name)
                found = json.dumps([name, meta.rows, meta.checksums, file_sha256(Path(scratch) / META)])
                yield pa.RecordBatch.from_pydict({"part": [found]})

    with errors():
        written = [json.loads(row.part) for row in pieces.drop("facts").mapInArrow(packed, "part string").collect()]
    everywhere.unpersist()
    metas = [replace(meta_of(fitted, rows), checksums=checksums) for _, rows, checksums, _ in written]
    whole = joined((name, meta, own) for (name, *_, own), meta in zip(written, metas, strict=True))
    there = {one.base_name: one.path for one in system.get_file_info(FileSelector(root, allow_not_found=True))}
    if lost := whole.shards.keys() - there.keys():
        raise DataError(
            f"{output} lacks the part {min(lost)}, which a task has written: give a path that all machines share, or an address"
        )
    for name in there.keys() - whole.shards.keys():  # of a task that failed or ran twice
        system.delete_dir(there[name])
    write_meta(folder, whole)
    write_text(folder / SCHEMA, fitted.schema.to_yaml())
    return whole


@contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """A folder of this machine, whose files a path or address gets at the end, unless an error deletes what it has by then.

    Raises DataError if `output` exists or cannot be reached or written.
    """
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
            yield Path(scratch)
            _copy(scratch, output)
    except BaseException:
        with suppress(OSError):
            system.delete_dir(root)
        raise


def _copy(folder: str, output: str | Path, part: str = "") -> None:
    """Copy the files of a folder of this machine to a path or address, or to a part of it."""
    system, root = file_system(output)
    to = f"{root}/{part}" if part else root
    try:
        system.create_dir(to)
        copy_files(folder, to, source_filesystem=LocalFileSystem(), destination_filesystem=system)
    except OSError as error:
        raise DataError(f"{to} cannot be written: {one_line(error)}") from error
