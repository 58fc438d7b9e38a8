"""How much longer than `prepare` does Spark take on the same cores, and does its time grow as the rows do? It prepares generated tables.

The tables are those of the measurement `scale`. Spark's time is without its start, and with the start of its Python workers.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..interleave import told
from .scale import measure, measured, schema, write_table


def schema_on_spark() -> dict:
    """The schema with a split that Spark can make."""
    return schema() | {"files": {"all": "parts/*.parquet"}, "split": {"hash": "c0", "valid": 0.1, "test": 0.2}}


def measure_spark(folder: Path, executors: int, answer: multiprocessing.connection.Connection) -> None:
    """Prepare the table on Spark, by executors of one core and 2 GB each, and send how long it took."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    from dcrnn_fast.data.spark import prepare

    options = {"spark.master": f"local-cluster[{executors},1,2048]", "spark.executor.memory": "2g", "spark.ui.enabled": "false"}
    session = SparkSession.builder.config(map=options | {"spark.driver.host": "127.0.0.1"}).getOrCreate()
    start = time.perf_counter()
    prepare(session.read.parquet(str(folder / "parts")), schema_on_spark(), folder / "packed")
    seconds = time.perf_counter() - start
    session.stop()
    answer.send({"seconds": seconds})


def run(options: Namespace) -> None:
    """Prepare each table here, then on as many executors of one core; print both times and their ratio."""
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            write_table(folder, rows, schema_on_spark())
            here = measured(measure, folder, options.cores)["seconds"]
            shutil.rmtree(folder / "packed")
            there = measured(measure_spark, folder, options.cores)["seconds"]
        times = {"seconds here": round(here, 2), "on Spark": round(there, 2), "ratio": round(there / here, 2)}
        told({"rows": rows, "cores": options.cores, **times, "rows/s here": round(rows / here), "rows/s on Spark": round(rows / there)})


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 1_200_000])
    parser.add_argument("--cores", type=int, default=2)
