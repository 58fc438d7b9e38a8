"""Builds a packed folder from the files of a schema, in three steps: read the rows, learn from the train rows, encode batch by batch.

DuckDB parses CSV files and counts texts. Arrow and NumPy do the rest, because SQL would learn other values: a float as text is `1.0`
in DuckDB and `1` here, and its average of hillstrom's log1p(history) differs in the 13th digit.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from ...errors import DataError, one_line
from ...support.files import write_text
from ..packed.arrays import PackedWriter, Progress, no_progress, open_whole
from ..packed.folders import writing_packed
from ..packed.meta import FORMAT_VERSION, SCHEMA, SPLITS, PackedMeta
from ..read.csv_files import FILE, Rejects
from ..read.text_queries import open_database
from ..schema.table import TableSchema
from .apply import EncodedRows, FittedSchema
from .histories import collected
from .splits import PAST, SplitArray, split_rows
from .staging import read_tables
from .train_rows import StagedTrainRows

MOST_WORKERS = 8
"""Threads unless more are asked for."""


def build(
    target: Path,
    schema: TableSchema,
    paths: Mapping[str, Sequence[Path]],
    *,
    seed: int,
    valid_fraction: float,
    encoding: Mapping[str, Any] | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> None:
    """Encode the files of each role in `paths` into the folder `target`.

    Memory grows with the files by a few bytes a row alone; meanwhile the disk of `target` holds the columns once more. Raises
    DataError for what :func:`dcrnn_fast.data.prepare` says.
    """
    workers = min(_usable_cores(), MOST_WORKERS) if workers is None else workers
    with writing_packed(target) as folder, ThreadPoolExecutor(workers) as pool:
        if open_whole(target) is not None:  # another process was faster
            return
        shutil.rmtree(target, ignore_errors=True)  # a damaged entry of the cache
        staging = folder / "staging"
        staging.mkdir()
        rejects = Rejects(schema.max_rejects)
        try:
            with open_database(staging) as database:
                staged, roles = read_tables(schema, paths, staging, database, rejects, pool, progress, encoding)
                learns = encoding is None
                splits = split_rows(schema, staged, roles, database, seed=seed, valid_fraction=valid_fraction, learns=learns)
                if encoding is None:
                    encoder = FittedSchema.fit(schema, StagedTrainRows(staged, splits, database), staged.zoned, progress)
                else:
                    encoder = FittedSchema.restore(schema, encoding)
                here: dict[str, Any] = {"schema": schema, "staged": staged, "splits": splits, "database": database, "folder": staging}
                collect = partial(collected, **here, progress=progress, teaches=learns)
                rows = EncodedRows(encoder, staged, database, collect)
        except duckdb.Error as error:
            raise DataError(f"data set {schema.name!r} cannot be prepared: {one_line(error, 500)}") from error
        write_rows(folder, rows, splits, workers, progress)
        rejects.write_file(folder / FILE)
        shutil.rmtree(staging)


def write_rows(folder: Path, rows: EncodedRows, splits: SplitArray, workers: int = 1, progress: Progress = no_progress) -> PackedMeta:
    """Encode the rows of a staged table into a folder, by so many of its workers, and return the folder's meta.json."""
    encoder, staged = rows.encoder, rows.staged
    counts = {name: int((splits == split).sum()) for split, name in enumerate(SPLITS)}
    writer = PackedWriter(folder, meta_of(encoder, counts))
    batches = [batch for batch in staged.batches if (splits[batch.here] != PAST).any()]  # a batch is of one file
    encoded = _ahead(staged.pool, lambda batch: _by_split(rows.arrays(batch), splits[batch.here]), batches, workers)
    for batch, parts in zip(batches, encoded, strict=True):
        progress("encoding rows", batch.start, staged.rows)
        for split, arrays in parts.items():
            writer.append(split, arrays)
    progress("encoding rows", staged.rows, staged.rows)
    meta = writer.finish()
    write_text(folder / SCHEMA, encoder.schema.to_yaml())
    return meta


def _usable_cores() -> int:
    """Those that the process may use, where the system says so; Linux does."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ahead(pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any], most: int) -> Iterator[Any]:
    """The function's values for the items, in their order; the pool works on at most so many ahead."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _by_split(arrays: Mapping[str, npt.NDArray[Any]], splits: SplitArray) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """The rows of each split, the arrays by kind."""
    return {SPLITS[split]: {kind: array[splits == split] for kind, array in arrays.items()} for split in np.unique(splits)}


def meta_of(encoder: FittedSchema, rows: dict[str, int]) -> PackedMeta:
    """What meta.json says of so many rows of each split, without the checksums and the digest."""
    schema = encoder.schema
    return PackedMeta(
        name=schema.name,
        tasks=tuple(task.name for task in schema.tasks),
        funnel=schema.funnel,
        relation=schema.suggested_relation,
        fields={field.column: field.num_embeddings for field in encoder.fields},
        dense=tuple(scale.column for scale in encoder.dense),
        group=schema.group,
        has_weight=schema.weight is not None,
        rows=rows,
        vocabulary={field.column: field.entries for field in encoder.fields},
        scaling={scale.column: {"treatment": scale.treatment, "mean": scale.mean, "std": scale.std} for scale in encoder.dense},
        checksums={},
        format_version=FORMAT_VERSION,
        shared=schema.shared,
        derived=encoder.derived,
        pooled=schema.pooled,
    )
