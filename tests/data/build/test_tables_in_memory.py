"""`prepare` of a schema and of tables in memory: the same data as of the same rows in a file."""

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from dcrnn_fast.data import prepare
from dcrnn_fast.data.schema.table import TableSchema
from dcrnn_fast.errors import DataError
from tests.event_frames import events
from tests.refusals import refused, row, rows

COLUMNS = {
    "name": "shop",
    "categorical": ["user_id", "item_id", "city"],
    "numeric": [{"column": "price", "buckets": 8, "dense": "standardise"}],
    "tasks": [{"name": "click", "column": "click"}, {"name": "order", "column": "order"}],
    "funnel": True,
    "group": "user_id",
}
SCHEMA = COLUMNS | {"split": {"time": "ts", "valid": 0.1, "test": 0.2}}


@pytest.fixture(scope="module")
def frame():
    return events(400)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def of_file(frame, cache):
    """The rows in a Parquet file, as a schema's YAML names it."""
    frame.to_parquet(cache / "log.parquet")
    (cache / "shop.yaml").write_text(yaml.safe_dump(SCHEMA | {"files": {"all": "log.parquet"}}))
    return prepare(cache / "shop.yaml", cache_dir=cache).meta


def test_a_table_of_any_kind_gives_what_its_file_gives(frame, cache, of_file):
    polars = pytest.importorskip("polars")
    lists = {name: frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame}
    odd = frame.assign(**{"odd": [{}, 1, "a", None] * 100, "7": 0}).rename(columns={"7": 7})  # columns that the schema does not name
    for table in (frame, polars.from_pandas(frame), pa.Table.from_pandas(frame), lists, odd, cache / "log.parquet"):
        assert prepare(SCHEMA, table, cache_dir=cache).meta.checksums == of_file.checksums


def test_the_schema_may_be_an_object_or_a_path_whose_files_are_not_read(frame, cache, of_file):
    elsewhere = SCHEMA | {"files": {"all": "nowhere.csv"}}
    (cache / "elsewhere.yaml").write_text(yaml.safe_dump(elsewhere))
    for schema in (TableSchema.model_validate(elsewhere), elsewhere, cache / "elsewhere.yaml"):
        assert prepare(schema, frame, cache_dir=cache).meta.checksums == of_file.checksums
    itself = prepare(SCHEMA | {"files": {"all": str(cache / "log.parquet")}}, cache_dir=cache)
    assert itself.meta.checksums == of_file.checksums, "without a table, a schema in Python takes the files that it names"


def test_the_same_tables_are_encoded_once(frame, cache):
    first = prepare(SCHEMA, frame, cache_dir=cache)
    assert prepare(SCHEMA, frame.copy(), cache_dir=cache).path == first.path
    assert prepare(SCHEMA, frame[:399], cache_dir=cache).path != first.path


def test_tables_by_split_are_split_whatever_the_schema_says(frame, cache):
    tables = {"train": frame[:300], "valid": pa.Table.from_pandas(frame[300:])}
    assert prepare(COLUMNS, tables, cache_dir=cache).meta.rows == {"train": 300, "valid": 100, "test": 0}
    for schema in (COLUMNS, SCHEMA, COLUMNS | {"files": {"all": "log.csv", "test_fraction": 0.5}}):
        data = prepare(schema, tables | {"test": cache / "log.parquet"}, cache_dir=cache)
        assert data.meta.rows == {"train": 300, "valid": 100, "test": 400}


test_it_is_refused = refused([
    *rows("tables that are none", lambda schema, table: prepare(schema, table), DataError, cases=[
        (SCHEMA, 7, r"tables\[all\] is of type int, expected a pandas or polars DataFrame"),
        (COLUMNS, {"train": pd.DataFrame({"ts": [1]}), "valid": 7}, r"tables\[valid\] is of type int"),
        (SCHEMA, pa.table([[1, 2], [3, 4], [5, 6]], names=["ts", "price", "price"]),
         r"tables\[all\] has the column 'price' twice; rename one"),
        (SCHEMA | {"grup": "a"}, pd.DataFrame(), "schema given as data is not valid .*'grup'"),
        (COLUMNS, pd.DataFrame({"ts": [1]}), "files given as `all` need a `split`"),
    ]),
    row("no schema", lambda frame: prepare(frame), TypeError, r"data is of type DataFrame, expected .*: prepare\(schema, table\)"),
    *rows("a column or cell that is wrong", lambda change, frame, cache: prepare(SCHEMA, change(frame), cache_dir=cache), DataError, cases=[
        (lambda frame: frame.assign(click=[0, 5] * 200), r"^tables\[all\], row 2: column 'click' holds 5, expected 0 and 1"),
        (lambda frame: frame.rename(columns={"price": "prise"}),
         r"^tables\[all\] lacks the columns price that schema 'shop' uses; it has .*prise.*did you mean 'prise'\?"),
    ]),
])  # fmt: skip


def test_a_table_in_memory_is_written_nowhere_but_to_the_cache(frame, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    prepare(SCHEMA, pd.DataFrame(frame), cache_dir=tmp_path / "cache")
    assert list((tmp_path / "temporary").iterdir()) == []
