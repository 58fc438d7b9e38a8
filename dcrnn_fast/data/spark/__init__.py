"""Prepares tables on Spark, with the bits of `prepare`: what is learned is a sum, which the parts of a table add up to in any order.

Needs dcrnn_fast[spark] and Java, and dcrnn_fast[train] on every machine, for the Python that `PYSPARK_PYTHON` names there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ..build.apply import FittedSchema
from ..build.splits import TEST, TRAIN, VALID
from ..catalog import opened
from ..packed.meta import SPLITS, PackedMeta
from ..schema.fields import zoned_columns
from .encoding import encoded
from .frames import kept, without_histories
from .learning import fit, learn
from .packing import new_folder, write_parts
from .splitting import splits_of
from .staging import facts_of, staged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["encoded", "learn", "prepare"]


def prepare(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path, learned: str | Path | None = None) -> PackedMeta:
    """Split, learn and pack: the rows that `prepare` makes of files that hold those of `frame`, in parts. Return their meta.json.

    `output`, which must not exist, is a path that every machine has, or an address that pyarrow writes to, such as s3://bucket/packed. It
    gets a part for each partition, in their order, each with a meta.json that has the whole vocabulary. A task writes its part to the
    machine's temporary folder first. `learned` is a folder that `learn` wrote, or another packed folder of the same schema: the rows are
    then encoded by what was learned there, such as a further day's, and need not be of all splits.

    Until it ends, Spark keeps the rows in its workers' memory and on their disks, so the frame is read once, and by a split by time once
    more, the times alone, in five jobs. The driver holds the vocabularies.

    Raises DataError as :func:`learn` does, for a schema whose `prepare` draws test or validation rows, for a split by a derived column, for
    rows without a time, without rows of a split that its column names, and for what was learned by another schema.
    """
    table = without_histories(schema)
    fitted = None if learned is None else FittedSchema.restore(table, opened(learned).meta.encoding)
    with new_folder(output) as folder:
        by, splits = splits_of(frame, table)
        with kept(staged(frame, table, splits, zoned_columns(table.derived_features) if fitted is None else fitted.zoned)) as pieces:
            rows, zoned = facts_of(pieces)
            if table.split is None and fitted is None and (lacking := [split for split in (TRAIN, VALID, TEST) if not rows[split]]):
                raise DataError(f"split column {by!r} names no {SPLITS[lacking[0]]} rows, expected {', '.join(SPLITS)}: Spark draws none")
            return write_parts(pieces, fitted or fit(table, pieces, rows, zoned), output, folder)
