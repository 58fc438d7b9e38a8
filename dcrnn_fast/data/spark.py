"""Learns and encodes on Spark, with the bits of `prepare`: what is learned is a sum, which the parts of a table add up to in any order.

Needs dcrnn_fast[spark] and Java, and dcrnn_fast[train] on every machine, for the Python that `PYSPARK_PYTHON` names there.
"""

from __future__ import annotations

import json
import operator
import pickle
import re
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from ..errors import DataError, one_line
from ..support.files import path_of, write_text
from .build.apply import FittedSchema
from .build.build import build, meta_of
from .build.splits import TEST, TRAIN, VALID, first_places, no_time, splits_by_hash, splits_by_name
from .catalog import opened, table_schema
from .codes.numbers import FloatArray, Place
from .codes.sums import NumberCounts, Total
from .encoder.encoder import Encoder
from .packed.arrays import PackedWriter, file_sha256, write_meta
from .packed.meta import META, SCHEMA, SPLITS, PackedMeta, read_meta
from .packed.remote import file_system, is_remote
from .packed.shards import joined
from .read.columns import numbers_of, texts_of, times_of
from .read.derive import with_derived
from .read.text_queries import open_database
from .schema.fields import Derived
from .schema.table import TableSchema, schema_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

T = TypeVar("T", NumberCounts, Total)
JOBS = 4
"""Columns that are learned at the same time."""
PLACE = Place(Path("a batch on Spark"), 0)
AT = "dcrnn_fast_splits_by"
"""The column that :func:`split` adds: integers, which are the rows' splits, or lie in the order of their times."""


def prepare(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path) -> PackedMeta:
    """Split, learn and pack: the rows that `prepare` makes of files that hold those of `frame`, in parts. Return their meta.json.

    Raises DataError as :func:`split`, :func:`learn` and :func:`pack` do.
    """
    _new_folder(output)
    frames = split(frame, schema)
    with tempfile.TemporaryDirectory() as scratch:
        learn(frames["train"], schema, Path(scratch) / "learned")
        return pack(frames, schema, Path(scratch) / "learned", output)


def split(frame: DataFrame, schema: str | Path | Mapping[str, Any]) -> dict[str, DataFrame]:
    """The train, valid and test rows of a frame by the schema's `split` or `split_column`, with the columns that the schema uses.

    A split by time counts the rows by their times, in nine jobs. Raises DataError for a schema whose `prepare` draws test or validation
    rows, for one with `histories`, for a frame without rows or without the column, and for rows without a time.
    """
    from pyspark.sql.functions import col
    from pyspark.sql.types import LongType, StructField, StructType

    table = _without_histories(schema)
    rule = table.split
    by = table.files.split_column if rule is None else rule.time or rule.hash
    if by is None or (rule is not None and rule.valid is None):
        raise DataError(f"schema {table.name!r} lets `prepare` draw rows, which is not done on Spark: give its `split` a `valid` part")
    timed = rule if rule is not None and rule.time is not None else None
    wanted = _columns(frame, set().union(*table.file_columns()))
    if by not in wanted.columns:
        raise DataError(f"frame lacks the column {by} by which schema {table.name!r} splits")

    def numbered(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with tempfile.TemporaryDirectory() as scratch, open_database(Path(scratch)) as database:
            for part in parts:
                if timed is not None:
                    at = _in_order(times_of(part.column(by), by, PLACE).values, by)
                else:
                    codes, texts = texts_of(part.column(by), by, PLACE)
                    names = pa.chunked_array([texts])
                    at = (splits_by_name(names) if rule is None else splits_by_hash(rule, names, database))[codes].astype(np.int64)
                    if (at < 0).any():
                        raise DataError(f"split column {by!r} holds {texts[codes[at.argmin()]]}, expected {', '.join(SPLITS)}")
                yield part.append_column(AT, pa.array(at))

    whole = wanted.mapInArrow(numbered, StructType([*wanted.schema.fields, StructField(AT, LongType(), False)]))
    starts = [TRAIN, VALID, TEST]
    if timed is not None:
        with _errors():
            rows = whole.count()
            if not rows:
                raise DataError(f"schema {table.name!r}: the frame has no rows")
            starts[1:] = [_at_place(whole.select(AT), place) for place in first_places(timed, rows)]
    train, valid = col(AT) < starts[1], col(AT) < starts[2]
    return {"train": whole.where(train), "valid": whole.where(~train & valid), "test": whole.where(~valid)}


def _in_order(times: FloatArray, by: str) -> npt.NDArray[np.int64]:
    """Integers in the order of the times."""
    if (missing := np.isnan(times)).any():
        raise no_time(PLACE.row(missing.argmax()), by)
    bits = (times + 0.0).view(np.int64)  # the two zeros become one
    return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)


def _at_place(frame: DataFrame, place: int) -> int:
    """The integer at a place of the sorted column AT, found 16 bits at a time: Spark counts no more different ones than these have."""
    from pyspark.sql.functions import shiftright

    found = 0
    for shift in (48, 32, 16, 0):
        here = frame if shift == 48 else frame.where(shiftright(AT, shift + 16) == found)
        for found, count in sorted(here.groupBy(shiftright(AT, shift).alias(AT)).count().collect()):  # noqa: B007
            if place < count:
                break
            place -= count
    return found


def learn(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path) -> Encoder:
    """Learn from train rows what `prepare` learns from them, and write it to `output`, as a packed folder without rows.

    `frame` holds the train rows alone, with the columns that features are made of. It is read once for each column, so it must give the
    same rows each time: cache what is drawn. `schema` is a path or a dict; its `files` and `split` must be valid, and are not read.
    `output` is a path or an address, such as s3://bucket/learned; `prepare(output)` opens it, and its `meta.encoding` encodes other rows
    alike. The driver learns a few columns at a time; it holds the vocabulary of each, or adds up the last parts of its distinct numbers.

    Raises DataError for an invalid schema, one with `histories`, a frame without rows or without a column, times that are used as text,
    cells that are not what their column is used as, and an `output` that exists.
    """
    table, (system, root) = _without_histories(schema), _new_folder(output)
    _check_columns("frame", frame, table)
    with ThreadPoolExecutor(JOBS) as pool, _errors():
        if frame.isEmpty():
            raise DataError(f"schema {table.name!r}: the frame has no train rows")
        fitted = FittedSchema.fit(table, SparkTrainRows(frame, table, pool), lambda what, done, total: None)
    with tempfile.TemporaryDirectory() as scratch:
        with PackedWriter(Path(scratch), meta_of(table, fitted, dict.fromkeys(SPLITS, 0))) as writer:
            writer.finish()
        try:
            _copy(scratch, system, root)
        except BaseException:
            with suppress(OSError):
                system.delete_dir(root)
            raise
        return Encoder.load(scratch)


def pack(frames: Mapping[str, DataFrame], schema: str | Path | Mapping[str, Any], learned: str | Path, output: str | Path) -> PackedMeta:
    """Write a packed data set in parts, a part for each partition: what `train` takes as `data`. Return its meta.json.

    `frames` has the rows of "train", "valid" and "test" (which may be left out), with the schema's columns; partitions follow one another
    in their order. `learned` is a folder that `learn` wrote, or another packed folder of the same schema. `output`, which must not exist,
    is a path that every machine has, or an address that pyarrow writes to, such as s3://bucket/packed. A task writes its part to the
    machine's temporary folder first. Each part has a meta.json with the whole vocabulary.

    Raises DataError as `learn` does, for rows that break the schema, and for what was learned by another schema.
    """
    table, meta, (system, root) = _without_histories(schema), opened(learned).meta, _new_folder(output)
    if not frames or frames.keys() - set(SPLITS):
        raise DataError(f"frames has {', '.join(sorted(frames)) or 'nothing'}, expected some of {', '.join(SPLITS)}")
    fitted = FittedSchema.restore(table, meta.encoding)
    content, encoding = table.model_dump(mode="json", by_alias=True, exclude_unset=True), meta.encoding
    for split, frame in frames.items():
        _check_columns(f"frames[{split}]", frame, table)
    address, parts, call = str(output) if is_remote(output) else root, list[tuple[str, PackedMeta, str]](), secrets.token_hex(4)
    try:
        for split in (split for split in SPLITS if split in frames):

            def packed(batches: Iterable[pa.RecordBatch], split: str = split) -> Iterator[pa.RecordBatch]:
                from pyspark import TaskContext

                name = f"{split}-{call}-{TaskContext.get().taskAttemptId()}"  # a task that failed, and runs again, has another one
                found = _pack_part(content, split, batches, encoding, address, name)
                yield pa.RecordBatch.from_pydict({"part": pa.array([] if found is None else [json.dumps([name, *found])], pa.string())})

            wanted = _columns(frames[split], set().union(*table.file_columns()))
            with _errors():
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
            _copy(scratch, system, root)
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
        _copy(part, system, f"{root}/{name}")
        meta = read_meta(part / META)
        return meta.rows, meta.checksums, file_sha256(part / META)


def _copy(folder: str | Path, system: FileSystem, to: str) -> None:
    """Copy the files of a folder of this machine."""
    try:
        system.create_dir(to)
        copy_files(str(folder), to, source_filesystem=LocalFileSystem(), destination_filesystem=system)
    except OSError as error:
        raise DataError(f"{to} cannot be written: {one_line(error)}") from error


def encoded(frame: DataFrame, encoder: Encoder, keep: Sequence[str] = ()) -> DataFrame:
    """The rows of a frame as ids and dense values, beside the columns `keep`; Spark calls the encoder on batches of rows.

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
    return _columns(frame, {*keep, *encoder.columns}).mapInArrow(batches, StructType([*kept, *made]))


class SparkTrainRows:
    """The train rows in a frame, as :class:`.build.train_rows.TrainRows`. Each question is a job that reads the columns behind one."""

    def __init__(self, frame: DataFrame, schema: TableSchema, pool: ThreadPoolExecutor) -> None:
        self._frame, self._schema, self.pool = frame, schema, pool

    def texts(self, names: Sequence[str], min_count: int, several: Collection[str] = ()) -> list[str]:
        """As :class:`.build.train_rows.TrainRows` says."""

        def counted(name: str) -> DataFrame:
            def batches(columns: Iterator[pa.Array]) -> Iterator[pa.RecordBatch]:
                for column in columns:
                    codes, texts = texts_of(column, name, PLACE)
                    counts = np.bincount(codes, minlength=len(texts))
                    counts[-1] *= name not in several  # the last text is MISSING
                    held = pa.array(counts > 0)
                    yield pa.RecordBatch.from_pydict({"text": texts.filter(held), "n": pa.array(counts).filter(held)})

            return self._mapped(name, batches, "text string, n long")

        frame = reduce(lambda one, other: one.unionAll(other), map(counted, names))
        found = frame.groupBy("text").sum("n").toDF("text", "n").where(f"n >= {min_count}").toArrow().to_pydict()
        in_order = sorted(zip(found["n"], found["text"], strict=True), key=lambda pair: (-pair[0], pair[1]))
        return [text for _, text in in_order]

    def counts(self, name: str) -> NumberCounts:
        """As :class:`.build.train_rows.TrainRows` says."""
        return self._summed(name, NumberCounts.of)

    def total(self, name: str, of: Callable[[FloatArray], FloatArray]) -> Total:
        """As :class:`.build.train_rows.TrainRows` says."""
        with _errors():
            return self._summed(name, lambda numbers: Total.of(map(of, numbers)))

    def largest(self, name: str) -> str:
        """As :class:`.build.train_rows.TrainRows` says."""
        return f"column {name!r} holds a number"

    def _summed(self, name: str, of: Callable[[Iterator[FloatArray]], T]) -> T:
        """The sum of a part for each task."""

        def batches(columns: Iterator[pa.Array]) -> Iterator[pa.RecordBatch]:
            numbers = (numbers_of(column, name, PLACE) for column in columns)
            yield pa.RecordBatch.from_pydict({"part": [pickle.dumps(of(some[~np.isnan(some)] for some in numbers))]})

        made = self._mapped(name, batches, "part binary").rdd  # by Spark's own workers: what is unpickled comes from no file
        parts = made.map(lambda row: pickle.loads(row.part))  # noqa: S301
        return parts.treeReduce(operator.add, depth=3)

    def _mapped(self, name: str, batches: Callable[[Iterator[pa.Array]], Iterator[pa.RecordBatch]], schema: str) -> DataFrame:
        """What a function makes of the batches of a column, which may be a derived one."""
        behind, derived = {name}, list[Derived]()
        for one in reversed(self._schema.all_derived):
            if one.name in behind:
                behind.remove(one.name)
                behind.update(one.sources())
                derived.insert(0, one)

        def columns(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return batches(with_derived(part, derived, PLACE).column(name) for part in parts if part.num_rows)

        return _columns(self._frame, behind).mapInArrow(columns, schema)


def _check_columns(name: str, frame: DataFrame, schema: TableSchema) -> None:
    """Raise DataError unless the frame has the columns that features are made of, and none of them is a time that is used as text."""
    sources = {source for one in schema.all_derived for source in one.sources()}
    texts = {c.column for c in schema.id_columns} | {task.column for task in schema.tasks if task.positive is not None}
    derived = {one.name for one in schema.all_derived}
    missing = (texts | {n.column for n in schema.numeric} | sources) - derived - set(frame.columns)
    if missing:
        raise DataError(f"{name} lacks the columns {', '.join(sorted(missing))} that schema {schema.name!r} uses")
    for column in sorted(texts - derived):
        if frame.schema[column].dataType.typeName().startswith("timestamp"):
            raise DataError(f"{name}: column {column!r} holds times, whose text depends on Spark's time zone; make them text")


def _columns(frame: DataFrame, names: Collection[str]) -> DataFrame:
    """Some columns of a frame, whatever characters their names have."""
    quoted = [name.replace("`", "``") for name in frame.columns if name in names]
    return frame.select(*[f"`{name}`" for name in quoted])


@contextmanager
def _errors() -> Iterator[None]:
    """Raise what a task raised, as it would be raised here."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PythonException

    try:
        yield
    except (PythonException, Py4JJavaError) as error:
        said = re.findall(r"^(?:[\w.]*\.)?(DataError|OverflowError): (.*)$", str(error), re.MULTILINE)
        if not said:
            raise
        raise (DataError if said[-1][0] == "DataError" else OverflowError)(said[-1][1]) from error


def _without_histories(schema: str | Path | Mapping[str, Any]) -> TableSchema:
    table = table_schema(schema)[0]
    if table.histories:
        raise DataError(f"schema {table.name!r} has histories, which are not collected on Spark: add their items to the rows, as lists")
    return table


def _new_folder(output: str | Path) -> tuple[FileSystem, str]:
    path_of("output", output)
    system, root = file_system(output)
    try:
        exists = system.get_file_info(root).type is not FileType.NotFound
    except OSError as error:
        raise DataError(f"{output} cannot be reached: {one_line(error)}") from error
    if exists:
        raise DataError(f"{output} exists; delete it, or choose another folder")
    return system, root


def _lists(rows: npt.NDArray[Any]) -> pa.ListArray:
    """The rows of a matrix [N, C] as N lists."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(rows).ravel()))
