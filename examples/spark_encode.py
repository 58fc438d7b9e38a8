"""Encodes a table of any size on a Spark cluster, with the bits of `prepare`, whose folder or run holds what it learned.

    export PYSPARK_PYTHON=$(which python)
    python examples/spark_encode.py --encoder packed --input logs.parquet --output encoded --keep order_id,click

`encoded` holds Parquet files with the kept columns, `ids` (a list of int32, one for each of the encoder's `num_embeddings`) and `dense` (a
list of float32). Needs dcrnn_fast[spark] and Java; `PYSPARK_PYTHON` is the Python that has dcrnn_fast, on every machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, FloatType, IntegerType, StructField, StructType

from dcrnn_fast.data import Encoder


def encoded(frame: DataFrame, encoder: Encoder, keep: Sequence[str] = ()) -> DataFrame:
    """The rows of `frame` as `ids` and `dense`, beside the columns `keep`. Spark calls the encoder on batches of rows."""
    everywhere = frame.sparkSession.sparkContext.broadcast(encoder)

    def batches(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in parts:
            ids, dense = everywhere.value.encode(part)
            columns = {name: part.column(name) for name in keep}
            columns["ids"] = _lists(ids.numpy().astype(np.int32))
            columns["dense"] = _lists(np.empty((len(ids), 0), np.float32) if dense is None else dense.numpy())
            yield pa.RecordBatch.from_pydict(columns)

    kept = [frame.schema[name] for name in keep]
    made = [StructField("ids", ArrayType(IntegerType(), False), False), StructField("dense", ArrayType(FloatType(), False), False)]
    return frame.select(*dict.fromkeys([*keep, *encoder.columns])).mapInArrow(batches, StructType([*kept, *made]))


def _lists(rows: np.ndarray) -> pa.ListArray:
    """The rows of a matrix [N, C] as N lists."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(rows).ravel()))


def main() -> None:
    """The command at the top of this file."""
    options = argparse.ArgumentParser(description="Encode Parquet files on Spark, with what `dcrnn-fast prepare` learned.")
    options.add_argument("--encoder", required=True, help="packed folder, or run folder")
    options.add_argument("--input", required=True, help="Parquet files, as Spark names them")
    options.add_argument("--output", required=True, help="folder to write")
    options.add_argument("--keep", default="", help="columns to copy, separated by commas")
    given = options.parse_args()
    spark = SparkSession.builder.appName("encode").getOrCreate()
    rows = encoded(spark.read.parquet(given.input), Encoder.load(given.encoder), [name for name in given.keep.split(",") if name])
    rows.write.parquet(given.output)
    spark.stop()


if __name__ == "__main__":
    main()
