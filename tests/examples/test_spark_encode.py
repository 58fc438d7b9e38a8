"""Spark learns and encodes, in executors of their own, what `prepare` learns and encodes here. Runs where Java and pyspark are."""

import datetime
import os
import runpy
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dcrnn_fast.data import Encoder, known_data_sets, prepare
from dcrnn_fast.data.catalog import EMBEDDED
from dcrnn_fast.data.packed.meta import read_meta
from dcrnn_fast.errors import DataError
from dcrnn_fast.training import load_config, train

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
        {"column": "last", "max_values": 2},
        {"column": "seen", "same_ids_as": "last"},
        "city_x_hour",
        "flag",
    ],
    "numeric": [{"column": "price", "buckets": 8, "dense": "log1p"}, {"column": "hour", "buckets": 24}],
    "tasks": [{"name": "click", "column": "click"}],
}
LEARNED = ("tasks", "fields", "dense", "vocabulary", "scaling", "shared", "derived", "pooled")


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
            "seen": [None if row % 5 == 0 else f"{row % 40:03}" for row in range(ROWS)],
            "flag": [(True, False, None)[row % 3] for row in range(ROWS)],
            "price": [None if row % 11 == 0 else float(row % 50) / 3 for row in range(ROWS)],
            "click": rng.integers(0, 2, ROWS),
        }
    )
    pq.write_table(table, folder / "log.parquet", row_group_size=50)
    (folder / "shop.yaml").write_text(yaml.safe_dump(SCHEMA))
    return folder, prepare(folder / "shop.yaml", cache_dir=folder / "cache", valid_fraction=0.0)


@pytest.fixture
def spark(log, monkeypatch):
    """A session with two executors, each a process. Its time zone is not UTC: times with a zone are instants, and stay the same."""
    from pyspark.sql import SparkSession

    for variable in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        monkeypatch.setenv(variable, sys.executable)
    options = {
        "spark.master": "local-cluster[2,1,1024]",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.session.timeZone": "America/New_York",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "32",
        "spark.sql.files.maxPartitionBytes": "4096",
        "spark.sql.files.openCostInBytes": "0",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.warehouse.dir": str(log[0] / "warehouse"),
    }
    session = SparkSession.builder.config(map=options).getOrCreate()
    yield session
    session.stop()


def run_example(monkeypatch, **options):
    monkeypatch.setattr(sys, "argv", ["spark_encode", *(part for name, value in options.items() for part in (f"--{name}", str(value)))])
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def assert_learned(found, expected, names=LEARNED):
    assert {name: getattr(found, name) for name in names} == {name: getattr(expected, name) for name in names}


def assert_same_rows(there, here, kinds=("ids", "dense", "labels")):
    for split, kind in product(here.splits, kinds):
        np.testing.assert_array_equal(np.asarray(getattr(there.split(split), kind)), getattr(here.split(split), kind))


def test_spark_learns_and_encodes_as_prepare_does(log, spark, monkeypatch):
    folder, data = log
    run_example(
        monkeypatch, schema=folder / "shop.yaml", train=folder / "log.parquet", encoder=folder / "learned", keep="row,click",
        input=folder / "log.parquet", output=folder / "encoded",
    )  # fmt: skip
    assert_learned(read_meta(folder / "learned" / "meta.json"), data.meta)
    assert len([*(folder / "encoded").glob("*.parquet")]) > 1, "one task encodes all rows"
    rows, train = pq.read_table(folder / "encoded").sort_by("row"), data.split("train")
    assert rows["row"].to_pylist() == list(range(ROWS))
    assert rows["click"].to_pylist() == train.labels[:, 0].tolist()
    np.testing.assert_array_equal(rows["ids"].to_pylist(), train.ids)
    np.testing.assert_array_equal(np.array(rows["dense"].to_pylist(), np.float32), train.dense)


@pytest.mark.parametrize("name", known_data_sets())
def test_spark_learns_of_an_embedded_set_what_prepare_learns(name, spark, tmp_path):
    from dcrnn_fast.data.spark import learn

    content = yaml.safe_load((EMBEDDED / f"{name}.yaml").read_text())
    source = pq.read_table(EMBEDDED / f"{name}.parquet")
    pq.write_table(source.slice(0, 20_000), tmp_path / "train.parquet", row_group_size=3_000)
    content = {key: value for key, value in content.items() if key != "split"} | {
        "files": {"train": "train.parquet", "test": "train.parquet"}
    }
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(content))
    here = prepare(tmp_path / "schema.yaml", cache_dir=tmp_path / "cache", valid_fraction=0.0).meta
    there = learn(spark.read.parquet(str(tmp_path / "train.parquet")).repartition(7), content, tmp_path / "learned")
    assert isinstance(there, Encoder)
    assert_learned(read_meta(tmp_path / "learned" / "meta.json"), here)


def test_what_was_learned_packs_other_rows_alike_and_a_run_trains_on_them(log, spark, tmp_path):
    from dcrnn_fast.data import spark as on_spark

    parts = pa.array(["train" if row < 200 else "valid" if row < 260 else "test" for row in range(ROWS)])
    rows = pq.read_table(log[0] / "log.parquet").append_column("price_weight", pa.array([1.0 + row % 3 for row in range(ROWS)]))
    pq.write_table(rows.append_column("part", parts), tmp_path / "rows.parquet")
    files = {"files": {"all": "rows.parquet", "split_column": "part"}}
    schema = SCHEMA | {"group": "city", "weight": "price_weight"} | files
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(schema))
    here = prepare(tmp_path / "shop.yaml", cache_dir=tmp_path / "cache")
    frame = spark.read.parquet(str(tmp_path / "rows.parquet")).repartitionByRange(9, "row").sortWithinPartitions("row")
    on_spark.learn(frame.where("part = 'train'"), schema, tmp_path / "learned")
    written = on_spark.prepare(frame, schema, (tmp_path / "packed").as_uri(), (tmp_path / "learned").as_uri())
    there = prepare((tmp_path / "packed").as_uri(), cache_dir=tmp_path / "cache")
    assert written == there.meta == prepare(tmp_path / "packed").meta
    assert len(written.shards) == 9
    assert there.meta.rows == here.meta.rows
    assert_same_rows(there, here, ("ids", "dense", "labels", "weight", "group"))
    more = on_spark.prepare(frame.where("part = 'train'"), schema, tmp_path / "more", tmp_path / "packed")
    assert more.rows == {"train": 200, "valid": 0, "test": 0}
    tiny = {"model.embedding_dim": 4, "model.tower_dims": [4], "optimiser.epochs": 1, "threads": 1}
    results = [train(load_config(None, {"data": str(one.path), **tiny}), tmp_path / str(at)) for at, one in enumerate((there, here))]
    assert results[0]["test"] == results[1]["test"]


SPLITS = {
    "time": {"split": {"time": "time", "valid": 0.2, "test": 0.3}},
    "time as numbers, of which many are alike": {"split": {"time": "score", "valid": 0.2, "test": 0.3}},
    "hash": {"split": {"hash": "item", "valid": 0.2, "test": 0.3, "seed": 7}},
    "column": {"files": {"all": "part-*.parquet", "split_column": "part"}},
}


@pytest.mark.parametrize("changes", SPLITS.values(), ids=SPLITS)
def test_spark_splits_learns_and_packs_files_as_prepare_does(changes, log, spark, tmp_path):
    from dcrnn_fast.data import spark as on_spark

    rows, draw = pq.read_table(log[0] / "log.parquet"), np.random.default_rng(1)
    rows = rows.append_column("part", pa.array([("train", "valid", "test")[number] for number in draw.integers(0, 3, ROWS)]))
    rows = rows.append_column("score", pa.array(np.round(draw.normal(size=ROWS), 1))).take(draw.permutation(ROWS))
    for part in range(3):
        pq.write_table(rows.slice(part * 100, 100), tmp_path / f"part-{part}.parquet", row_group_size=40)
    schema = SCHEMA | {"files": {"all": "part-*.parquet"}} | changes
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(schema))
    here = prepare(tmp_path / "shop.yaml", cache_dir=tmp_path / "cache", valid_fraction=0.0)
    assert all(here.meta.rows.values())
    frames = [spark.read.parquet(str(tmp_path / f"part-{part}.parquet")) for part in range(3)]
    written = on_spark.prepare(frames[0].union(frames[1]).union(frames[2]), schema, tmp_path / "packed")
    there = prepare(tmp_path / "packed")
    assert written == there.meta
    assert_learned(written, here.meta, (*LEARNED, "rows"))
    assert_same_rows(there, here)


def test_the_command_packs_on_spark_what_it_packs_here(log, tmp_path):
    rows = pq.read_table(log[0] / "log.parquet")
    for part in range(3):
        more = rows.append_column(f"unused {part}", pa.array(range(ROWS)))
        pq.write_table(more.slice(part * 100, 100), tmp_path / f"part-[{2 - part}].parquet")
    split = {"files": {"all": "part-*.parquet"}, "split": {"time": "time", "valid": 0.2, "test": 0.3}}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(SCHEMA | split))
    command = [sys.executable, "-m", "dcrnn_fast", "prepare", "--schema", "shop.yaml", "--output"]
    settings = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false pyspark-shell"}
    for more in (["here"], ["there", "--engine", "spark"]):
        subprocess.run([*command, *more], cwd=tmp_path, env={**os.environ, **settings}, check=True)
    here, there = (prepare(tmp_path / name) for name in ("here", "there"))
    assert len(there.meta.shards) == 3  # one for each file, which is a partition
    assert_same_rows(there, here)


def test_rows_that_spark_cannot_split_are_refused(log, spark, tmp_path):
    from dcrnn_fast.data.spark import prepare as prepared

    frame, by_time = spark.read.parquet(str(log[0] / "log.parquet")), {"time": "time", "valid": 0.1, "test": 0.1}
    rows, by_day = SCHEMA | {"files": {"all": "log.parquet"}, "split": by_time}, {"split": by_time | {"time": "day"}}

    def days(cells):
        return frame.selectExpr("*", f"{cells} as day")

    refused = [
        (frame, {"split": {"time": "time", "test": 0.1}}, "lets `prepare` draw rows, .* give its `split` a `valid` part"),
        (frame, {"split": {"hash": "user", "valid": 0.1, "test": 0.1}}, "frame lacks the column user by which schema 'shop' splits"),
        (frame, {"split": {"hash": "time", "valid": 0.1, "test": 0.1}}, "'time' holds times, whose text depends on Spark's time zone"),
        (frame, {"split": by_time | {"time": "hour"}}, "frame lacks the column hour .* a derived one is not made on Spark"),
        (frame.where("row < 0"), {}, "the frame has no rows"),
        (days("if(row < 100, string(row), '2024-05-01')"), by_day, "'day' holds numbers in some rows, and times without a zone in others"),
        (days("if(row = 9, null, row)"), by_day, "'day' splits the rows by time and is"),
    ]
    for one, changes, words in refused:
        with pytest.raises(DataError, match=words):
            prepared(one, rows | changes, tmp_path / "packed")
    of_column = {key: value for key, value in rows.items() if key != "split"} | {"files": {"all": "log.parquet", "split_column": "part"}}
    with pytest.raises(DataError, match=r"split column 'part' holds \S+, expected train, valid, test"):
        prepared(frame.selectExpr("*", "city as part"), of_column, tmp_path / "packed")
    with pytest.raises(DataError, match=r"split column 'part' names no valid rows, .* Spark draws none"):
        prepared(frame.selectExpr("*", "if(row < 99, 'train', 'test') as part"), of_column, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_files_with_a_column_of_several_types_are_refused_by_their_names(log, spark, tmp_path):
    from dcrnn_fast.data.spark.frames import frame_of_files

    rows = pq.read_table(log[0] / "log.parquet")
    texts = rows.set_column(rows.column_names.index("item"), "item", rows["item"].cast(pa.string()))
    for name, part in (("a", rows), ("b", texts)):
        pq.write_table(part, tmp_path / f"{name}.parquet")
    schema = SCHEMA | {"files": {"all": "*.parquet"}, "split": {"hash": "item", "valid": 0.1, "test": 0.1}}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(schema))
    with pytest.raises(DataError, match=r"b\.parquet has item as string, and \S+a\.parquet as bigint; write all files alike"):
        frame_of_files(tmp_path / "shop.yaml", ())
    (tmp_path / "_c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    with pytest.raises(DataError, match=r"_c\.parquet cannot be read by Spark: "):
        frame_of_files(tmp_path / "shop.yaml", [str(tmp_path / "_c.parquet")])


def test_what_spark_does_not_learn_is_refused(log, spark, tmp_path):
    from dcrnn_fast.data.spark import learn

    frame = spark.read.parquet(str(log[0] / "log.parquet"))
    history = {"name": "before", "of": "item", "by": "city", "time": "time", "last": 3}
    only, huge = {"derived": [], "categorical": ["item"]}, frame.selectExpr("*", "1e200 * row as huge")
    refused = [
        (frame, {"histories": [history]}, "histories, which are not collected on Spark"),
        (frame.where("row < 0"), {}, "no train rows"),
        (frame.drop("price"), {}, "frame lacks the columns price"),
        (frame, only | {"categorical": ["time"], "numeric": []}, "'time' holds times, whose text depends on Spark's time zone"),
        (frame, only | {"numeric": [{"column": "city", "buckets": 3}]}, "column 'city' is used as a number"),
        (huge, {"numeric": [{"column": "huge", "dense": "standardise"}]}, "too large to standardise"),
        (frame, only | {"numeric": [], "tasks": [{"name": "click", "column": "city", "positive": ["Wien"]}]}, "no train row has 'city' in"),
    ]
    for rows, changes, words in refused:
        with pytest.raises(DataError, match=words):
            learn(rows, SCHEMA | changes, tmp_path / "learned")
    (tmp_path / "learned").mkdir()
    with pytest.raises(DataError, match="exists"):
        learn(frame, SCHEMA, tmp_path / "learned")
