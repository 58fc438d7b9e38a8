"""Splits by time and by the hash of a column, and hashed fields, whose numbers never change."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from dcrnn_fast.data import data_report, prepare
from dcrnn_fast.errors import DataError


def logs(table, times, users=None):
    rows = [(f"c{i}", i, i % 2, time, (users or ["u"] * len(times))[i]) for i, time in enumerate(times)]
    table.write("logs.csv", "city,price,click,time,user", rows)
    return {"files": {"all": "logs.csv"}, "numeric": []}


def cities(data, split):
    rows = data.split(split)
    names = data.meta.vocabulary["city"]
    return [names[i] for i in rows.ids[:, 0]] if split == "train" else len(rows)


@pytest.mark.parametrize(
    "times",
    [
        [5, 1, 9, 2, 8, 3, 7, 4, 6, 0],
        [10**9 * place for place in (5, 1, 9, 2, 8, 3, 7, 4, 6, 0)],
        [f"2024-01-{day:02}" for day in (6, 2, 10, 3, 9, 4, 8, 5, 7, 1)],
        [f"2024-01-01T{hour:02}:30:00" for hour in (6, 2, 10, 3, 9, 4, 8, 5, 7, 1)],
    ],
    ids=["numbers", "numbers of any size", "days", "times"],
)
def test_the_latest_rows_are_the_test_rows_and_those_before_them_the_validation_rows(table, times):
    data = table.prepare(**logs(table, times), split={"time": "time", "valid": 0.1, "test": 0.2})
    assert data.meta.rows == {"train": 7, "valid": 1, "test": 2}
    assert cities(data, "train") == ["c0", "c1", "c3", "c5", "c7", "c8", "c9"]


def test_rows_of_one_time_stay_in_one_split(table):
    data = table.prepare(**logs(table, [1, 1, 2, 2, 2, 2, 3, 3, 3, 3]), split={"time": "time", "test": 0.2})
    assert data.meta.rows == {"train": 6, "valid": 0, "test": 4}


def test_rows_of_the_time_of_a_splits_first_row_are_in_it_too(table):
    data = table.prepare(**logs(table, [1, 1, 1, 2, 2, 2, 2, 2, 2, 3]), split={"time": "time", "valid": 0.3, "test": 0.1})
    assert data.meta.rows == {"train": 3, "valid": 6, "test": 1}


def test_a_split_may_have_no_test_rows(table):
    data = table.prepare(**logs(table, list(range(10))), split={"time": "time", "valid": 0.2, "test": 0})
    assert data.meta.rows == {"train": 8, "valid": 2, "test": 0}


def test_times_of_parquet_are_split_alike(table):
    moments = pa.array([3000, 1000, 2000, 0], pa.timestamp("ns", tz="UTC"))
    content = {"city": ["d", "b", "c", "a"], "click": [0, 1, 0, 1], "time": moments}
    table.parquet("logs.parquet", content)
    data = table.prepare(files={"all": "logs.parquet"}, numeric=[], split={"time": "time", "test": 0.5})
    assert set(data.meta.vocabulary["city"]) == {"<oov>", "a", "b"}


def test_all_rows_of_a_user_are_in_one_split_whatever_else_the_table_holds(table):
    users = [f"u{i % 200}" for i in range(1000)]
    changes = logs(table, list(range(1000)), users) | {"categorical": ["user"], "split": {"hash": "user", "valid": 0.2, "test": 0.3}}
    data = table.prepare(**changes)
    found = {split: {data.meta.vocabulary["user"][i] for i in data.split(split).ids[:, 0]} - {"<oov>"} for split in data.splits}
    expected = {"train": set(), "valid": set(), "test": set()}
    for user in set(users):
        part = int.from_bytes(hashlib.md5(f"0:{user}".encode()).digest()[8:], "little") / 2**64
        expected["test" if part < 0.3 else "valid" if part < 0.5 else "train"].add(user)
    assert found["train"] == expected["train"]
    assert data.meta.rows == {split: 5 * len(users) for split, users in expected.items()}
    assert table.prepare(**changes | {"split": {"hash": "user", "valid": 0.2, "test": 0.3, "seed": 1}}).meta.rows != data.meta.rows


FIXED = {"": 0, "a": 13_938, "b": 835_387, "007": 822_180, "Köln": 356_791}


def test_hashed_fields_have_fixed_ids(table):
    """The last 8 bytes of the MD5 of the text's UTF-8, as a little-endian number, modulo the number of buckets; 0 is missing."""
    table.write("train.csv", "city,price,click", [(city, 1, 0) for city in FIXED])
    data = table.prepare(categorical=[{"column": "city", "hash_buckets": 1_000_000}], numeric=[])
    assert data.meta.fields == {"city": 1_000_001}
    assert data.meta.vocabulary["city"] == []
    assert data.split("train").ids[:, 0].tolist() == list(FIXED.values())
    assert data_report(data)["fields"]["city"]["kind"] == "hashed"


def test_a_hashed_field_is_encoded_alike_in_other_data_and_refused_where_it_is_none(table):
    hashed = [{"column": "city", "hash_buckets": 50}]
    first = table.prepare(categorical=hashed)
    encoding = {"vocabulary": first.meta.vocabulary, "scaling": first.meta.scaling}
    again = prepare(table.save(categorical=hashed), cache_dir=table.folder / "cache", encoding=encoding, valid_fraction=0.0)
    np.testing.assert_array_equal(again.split("test").ids, first.split("test").ids)
    with pytest.raises(DataError, match="column 'city' is categorical in its schema"):
        table.prepare(encoding=encoding)
    with pytest.raises(DataError, match="`min_count` and `hash_buckets` exclude each other"):
        table.prepare(categorical=[{"column": "city", "hash_buckets": 50, "min_count": 2}])
