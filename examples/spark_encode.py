"""Learns on a Spark cluster what `prepare` learns on one machine, and encodes a table of any size with it.

    export PYSPARK_PYTHON=$(which python)
    python examples/spark_encode.py --schema shop.yaml --train days.parquet --encoder learned
    python examples/spark_encode.py --encoder learned --input logs.parquet --output encoded --keep order_id,click

`--encoder` may also be a packed folder or a run folder. `encoded` holds Parquet files with the kept columns, `ids` (a list of int32, one
for each of the encoder's `num_embeddings`) and `dense` (a list of float32). Needs dcrnn_fast[spark] and Java; `PYSPARK_PYTHON` is the
Python that has dcrnn_fast, on every machine.
"""

from __future__ import annotations

import argparse

from pyspark.sql import SparkSession

from dcrnn_fast.data import Encoder
from dcrnn_fast.data.spark import encoded, learn


def main() -> None:
    """The commands at the top of this file."""
    options = argparse.ArgumentParser(description="Learn from train rows on Spark, or encode rows with what was learned.")
    options.add_argument("--schema", help="schema of the train rows; its `files` and `split` are not read")
    options.add_argument("--train", help="the train rows: Parquet files, as Spark names them")
    options.add_argument("--encoder", required=True, help="folder: with --train to write, else to read")
    options.add_argument("--input", help="the rows to encode: Parquet files, as Spark names them")
    options.add_argument("--output", help="folder to write")
    options.add_argument("--keep", default="", help="columns to copy, separated by commas")
    given = options.parse_args()
    spark = SparkSession.builder.appName("encode").getOrCreate()
    if given.train is not None:
        learn(spark.read.parquet(given.train), given.schema, given.encoder)
    if given.input is not None:
        kept = [name for name in given.keep.split(",") if name]
        encoded(spark.read.parquet(given.input), Encoder.load(given.encoder), kept).write.parquet(given.output)
    spark.stop()


if __name__ == "__main__":
    main()
