"""Prepares tables on Spark, with the bits of `prepare`: what is learned is a sum, which the parts of a table add up to in any order.

Needs dcrnn_fast[spark] and Java, and dcrnn_fast[train] on every machine, for the Python that `PYSPARK_PYTHON` names there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..packed.meta import PackedMeta
from .encoding import encoded
from .learning import learn
from .packing import new_folder, pack
from .splitting import split

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["encoded", "learn", "pack", "prepare", "split"]


def prepare(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path) -> PackedMeta:
    """Split, learn and pack: the rows that `prepare` makes of files that hold those of `frame`, in parts. Return their meta.json.

    Until it ends, Spark keeps the train rows in its workers' memory and on their disks: learning reads them once for each column. Then it
    drops them, even if you persisted the same rows before.

    Raises DataError as :func:`split`, :func:`learn` and :func:`pack` do.
    """
    new_folder(output)
    frames = split(frame, schema)
    train = frames["train"].persist()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            learn(train, schema, Path(scratch) / "learned")
            return pack(frames, schema, Path(scratch) / "learned", output)
    finally:
        train.unpersist()
