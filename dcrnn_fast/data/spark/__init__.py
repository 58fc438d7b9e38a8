"""Prepares tables on Spark, with the bits of `prepare`: what is learned is a sum, which the parts of a table add up to in any order.

Needs dcrnn_fast[spark] and Java, and dcrnn_fast[train] on every machine, for the Python that `PYSPARK_PYTHON` names there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from ..build.apply import FittedSchema
from ..build.build import meta_of
from ..build.splits import TRAIN
from ..catalog import opened, table_schema
from ..encoder.encoder import Encoder
from ..packed.arrays import PackedWriter
from ..packed.meta import SPLITS, PackedMeta
from .encoding import encoded, new_folder, write_parts
from .frames import check_columns, kept
from .learning import fit
from .staging import facts_of, splits_of, staged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["encoded", "learn", "prepare"]


def learn(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path) -> Encoder:
    """Learn from train rows what `prepare` learns from them, and write it to `output`, as a packed folder without rows.

    `frame` holds the train rows alone, with the columns that features are made of. It is read once: until learning ends, Spark keeps what
    is read in its workers' memory and on their disks. `schema` is a path or a dict; its `files` and `split` must be valid, and are not
    read. `output` is a path or an address, such as s3://bucket/learned; `prepare(output)` opens it, and its `meta.encoding` encodes other
    rows alike. The driver holds the vocabularies.

    Raises DataError for an invalid schema, one with `histories`, a frame without rows or without a column, times that are used as text,
    cells that are not what their column is used as, and an `output` that exists.
    """
    table = table_schema(schema)[0]
    check_columns(frame, table, learns=True)
    with new_folder(output) as folder:
        with kept(staged(frame, table, lambda batch, _: np.full(batch.num_rows, TRAIN, np.int8))) as pieces:
            fitted = fit(table, pieces, *facts_of(pieces))
        PackedWriter(folder, meta_of(fitted, dict.fromkeys(SPLITS, 0))).finish()
        return Encoder.load(folder)


def prepare(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path, learned: str | Path | None = None) -> PackedMeta:
    """Split, learn and pack: the rows that `prepare` makes of files that hold those of `frame`, in parts. Return their meta.json.

    `output`, which must not exist, is a path that every machine has, or an address that pyarrow writes to, such as s3://bucket/packed. It
    gets a part for each partition, in their order, each with a meta.json that has the whole vocabulary. A task writes its part to the
    machine's temporary folder first. `learned` is a folder that `learn` wrote, or another packed folder of the same schema: the rows are
    then encoded by what was learned there, such as a further day's, and need not be of all splits.

    Until it ends, Spark keeps the rows in its workers' memory and on their disks, so the frame is read once, and by a split by time once
    more, the times alone, in nine jobs. The driver holds the vocabularies.

    Raises DataError as :func:`learn` does, for a schema whose `prepare` draws test or validation rows, for a split by a derived column, for
    rows without a time, without rows of a split that its column names, and for what was learned by another schema.
    """
    table = table_schema(schema)[0]
    fitted = None if learned is None else FittedSchema.restore(table, opened(learned).meta.encoding)
    with new_folder(output) as folder, kept(staged(frame, table, splits_of(frame, table), fitted)) as pieces:
        rows, zoned = facts_of(pieces)
        lacking = [name for name, count in zip(SPLITS, rows, strict=True) if not count]
        if table.split is None and fitted is None and lacking:
            by = table.files.split_column
            raise DataError(f"split column {by!r} names no {lacking[0]} rows, expected {', '.join(SPLITS)}: Spark draws none")
        return write_parts(pieces, fitted or fit(table, pieces, rows, zoned), output, folder)
