"""Prepares tables on Spark, with the bits of `prepare`: what is learned is a sum, which the parts of a table add up to in any order.

Needs dcrnn_fast[spark] and Java, and dcrnn_fast[train] on every machine, for the Python that `PYSPARK_PYTHON` names there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..packed.meta import PackedMeta
from ..schema.fields import zoned_columns
from .encoding import encoded
from .frames import kept, without_histories
from .learning import fit, learn
from .packing import new_folder, pack, write_parts
from .splitting import check_named, split, splits_of
from .staging import facts_of, staged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["encoded", "learn", "pack", "prepare", "split"]


def prepare(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path) -> PackedMeta:
    """Split, learn and pack: the rows that `prepare` makes of files that hold those of `frame`, in parts. Return their meta.json.

    Until it ends, Spark keeps the rows in its workers' memory and on their disks, so the frame is read once, and by a split by time once
    more, the times alone.

    Raises DataError as :func:`split`, :func:`learn` and :func:`pack` do.
    """
    table = without_histories(schema)
    with new_folder(output) as folder:
        by, splits = splits_of(frame, table)
        with kept(staged(frame, table, splits, zoned_columns(table.derived_features))) as pieces:
            rows, zoned = facts_of(pieces)
            if table.split is None:
                check_named(by, [split for split, held in enumerate(rows) if held])
            return write_parts([pieces], fit(table, pieces, rows, zoned), output, folder)
