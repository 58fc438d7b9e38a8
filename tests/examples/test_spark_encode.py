"""examples/spark_encode.py encodes on Spark what `prepare` encodes here. Runs where Java and pyspark are."""

import datetime
import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dcrnn_fast.data import prepare

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install pyspark")
pytestmark = pytest.mark.skipif(not (shutil.which("java") or os.environ.get("JAVA_HOME")), reason="there is no Java")

EXAMPLE = Path(__file__).parents[2] / "examples" / "spark_encode.py"
ROWS = 300
SCHEMA = {
    "name": "shop",
    "files": {"train": "log.parquet", "test": "log.parquet"},
    "derived": [{"name": "hour", "column": "time", "as": "hour"}, {"name": "city_x_hour", "cross": ["city", "hour"]}],
    "categorical": [
        {"column": "city", "min_count": 40},
        {"column": "item", "hash_buckets": 100},
        {"column": "last", "max_values": 2, "same_ids_as": "item"},
        "city_x_hour",
        "flag",
    ],
    "numeric": [{"column": "price", "buckets": 8, "dense": "log1p"}, {"column": "hour", "buckets": 24}],
    "tasks": [{"name": "click", "column": "click"}],
}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The folder of a table in several row groups, and the table as `prepare` packs it."""
    folder, rng = tmp_path_factory.mktemp("log"), np.random.default_rng(0)
    start = datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc)
    table = pa.table(
        {
            "row": range(ROWS),
            "time": pa.array([start + datetime.timedelta(minutes=37 * row) for row in range(ROWS)], pa.timestamp("us", "UTC")),
            "city": [("Oslo", "Rome", "é", "<missing>", None)[number] for number in rng.integers(0, 5, ROWS)],
            "item": rng.integers(0, 1000, ROWS),
            "last": [None if row % 7 == 0 else [f"{row % 30:03}"] * (row % 4) for row in range(ROWS)],
            "flag": [(True, False, None)[row % 3] for row in range(ROWS)],
            "price": [None if row % 11 == 0 else float(row % 50) / 3 for row in range(ROWS)],
            "click": rng.integers(0, 2, ROWS),
        }
    )
    pq.write_table(table, folder / "log.parquet", row_group_size=50)
    (folder / "shop.yaml").write_text(yaml.safe_dump(SCHEMA))
    return folder, prepare(folder / "shop.yaml", cache_dir=folder / "cache", valid_fraction=0.0)


def test_spark_gives_the_ids_and_dense_values_of_prepare(log, monkeypatch):
    """On a session whose time zone is not UTC: times with a zone are instants, and stay the same."""
    folder, data = log
    for variable in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        monkeypatch.setenv(variable, sys.executable)
    monkeypatch.setattr(sys, "argv", ["spark_encode", "--encoder", str(data.path), "--keep", "row,click"])
    sys.argv += ["--input", str(folder / "log.parquet"), "--output", str(folder / "encoded")]
    from pyspark.sql import SparkSession

    options = {
        "spark.master": "local[2]",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.session.timeZone": "America/New_York",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "32",
        "spark.sql.files.maxPartitionBytes": "4096",
        "spark.sql.files.openCostInBytes": "0",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    SparkSession.builder.config(map=options).getOrCreate()  # which the example then takes, and stops
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert len([*(folder / "encoded").glob("*.parquet")]) > 1, "one task encodes all rows"
    rows, train = pq.read_table(folder / "encoded").sort_by("row"), data.split("train")
    assert rows["row"].to_pylist() == list(range(ROWS))
    assert rows["click"].to_pylist() == train.labels[:, 0].tolist()
    np.testing.assert_array_equal(rows["ids"].to_pylist(), train.ids)
    np.testing.assert_array_equal(np.array(rows["dense"].to_pylist(), np.float32), train.dense)
