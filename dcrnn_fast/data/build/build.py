"""Builds a packed folder from the files of a schema, in three steps: read the rows, learn from the train rows, encode batch by batch.

DuckDB parses CSV files and counts texts. Arrow and NumPy do the rest, because SQL would learn other values: a float as text is `1.0`
in DuckDB and `1` here, and its average of hillstrom's log1p(history) differs in the 13th digit.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from ...errors import DataError
from ..packed.arrays import PackedWriter, writing_packed
from ..packed.meta import FORMAT_VERSION, SPLITS, PackedMeta
from ..read.csv_files import FILE, Rejects
from ..read.text_queries import open_database
from ..schema.table import TableSchema
from .apply import EncodedRows, FittedSchema
from .history_leaks import collected
from .splits import PAST, split_rows
from .staging import Progress, read_tables
from .train_rows import Fitting

WORKERS = 2


def build(
    target: Path,
    schema: TableSchema,
    paths: Mapping[str, Sequence[Path]],
    *,
    seed: int,
    valid_fraction: float,
    encoding: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> int:
    """Encode the files of each role in `paths` into the folder `target`, and return how many rows were rejected.

    Memory does not grow with the files, but for a few bytes a row; meanwhile the disk of `target` holds the columns once more. Raises
    DataError for what :func:`dcrnn_fast.data.prepare` says.
    """
    with writing_packed(target) as folder, ThreadPoolExecutor(WORKERS) as pool:
        staging = folder / "staging"
        staging.mkdir()
        rejects = Rejects(schema.max_rejects)
        try:
            with open_database(staging) as database:
                staged, roles = read_tables(schema, paths, staging, database, rejects, pool, progress)
                splits = split_rows(schema, staged, roles, database, seed=seed, valid_fraction=valid_fraction)
                fitting = Fitting(staged, splits, database)
                encoder = FittedSchema.fit(schema, fitting, progress) if encoding is None else FittedSchema.restore(schema, encoding)
                here: dict[str, Any] = {"schema": schema, "staged": staged, "splits": splits, "database": database, "folder": staging}
                collect = partial(collected, **here, progress=progress, teaches=encoding is None)
                rows = EncodedRows(encoder, staged, database, collect)
        except duckdb.Error as error:
            raise DataError(f"data set {schema.name!r} cannot be prepared: {' '.join(str(error).split())[:500]}") from error
        counts = {name: int((splits == split).sum()) for split, name in enumerate(SPLITS)}
        with PackedWriter(folder, _meta(schema, encoder, counts)) as writer:
            for batch in staged.batches:
                progress("encoding rows", batch.start, staged.rows)
                of_batch = splits[batch.here]
                if (of_batch == PAST).all():  # a batch is of one file
                    continue
                arrays = rows.arrays(batch)
                for split in np.unique(of_batch):
                    writer.append(SPLITS[split], {kind: array[of_batch == split] for kind, array in arrays.items()})
            progress("encoding rows", staged.rows, staged.rows)
            writer.finish()
        rejects.write_file(folder / FILE)
        shutil.rmtree(staging)
    return len(rejects)


def _meta(schema: TableSchema, encoder: FittedSchema, rows: dict[str, int]) -> PackedMeta:
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
        vocabulary={field.column: field.entries() for field in encoder.fields},
        scaling={scale.column: {"treatment": scale.treatment, "mean": scale.mean, "std": scale.std} for scale in encoder.dense},
        checksums={},
        format_version=FORMAT_VERSION,
        shared=schema.shared,
        derived=schema.derived_features,
        pooled=schema.pooled,
    )
