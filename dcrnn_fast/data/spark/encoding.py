"""Encodes rows on Spark, to score many of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...errors import DataError
from ..encoder.encoder import Encoder
from .frames import columns_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


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
    return columns_of(frame, {*keep, *encoder.columns}).mapInArrow(batches, StructType([*kept, *made]))


def _lists(rows: npt.NDArray[Any]) -> pa.ListArray:
    """The rows of a matrix [N, C] as N lists."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(rows).ravel()))
