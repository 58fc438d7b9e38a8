"""Splits by files, a column, time and the hash of a column, and hashed fields, whose numbers never change."""

import hashlib

import numpy as np
import pytest

from dcrnn_fast.data import data_report


def logs(table, times, users=None):
    rows = [(f"c{i}", i, i % 2, time, (users or ["u"] * len(times))[i]) for i, time in enumerate(times)]
    table.write("logs.csv", "city,price,click,time,user", rows)
    return {"files": {"all": "logs.csv"}, "numeric": []}


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
def test_the_latest_rows_are_test_rows_and_those_before_validation_rows(table, times):
    data = table.prepare(**logs(table, times), split={"time": "time", "valid": 0.1, "test": 0.2})
    assert data.meta.rows == {"train": 7, "valid": 1, "test": 2}
    assert sorted(data.meta.vocabulary["city"][1:]) == ["c0", "c1", "c3", "c5", "c7", "c8", "c9"]


@pytest.mark.parametrize(
    ("times", "valid", "test", "rows", "warned"),
    [
        ([1, 1, 2, 2, 2, 3, 3, 3, 3, 3], 0, 0.2, (5, 0, 5), ["the test rows are 50% of all, not 20%"]),
        ([1, 1, 1, 2, 2, 2, 2, 2, 2, 3], 0.3, 0.1, (3, 6, 1), ["the valid rows are 60% of all, not 30%"]),
        (range(10), 0.2, 0, (8, 2, 0), []),
    ],
)
def test_rows_of_one_time_stay_in_one_split_and_a_shift_is_told(table, times, valid, test, rows, warned):
    data = table.prepare(**logs(table, list(times)), split={"time": "time", "valid": valid, "test": test})
    assert tuple(data.meta.rows.values()) == rows
    assert [line.partition(":")[0] for line in data_report(data)["warnings"] if "rows of one time stay together" in line] == warned


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


def test_hashed_fields_have_fixed_ids_and_the_same_in_other_data(table):
    """The last 8 bytes of the MD5 of the text's UTF-8, as a little-endian number, modulo the number of buckets; 0 is missing."""
    fixed = {"": 0, "a": 13_938, "b": 835_387, "007": 822_180, "Köln": 356_791}
    table.write("train.csv", "city,price,click", [(city, 1, 0) for city in fixed])
    hashed = [{"column": "city", "hash_buckets": 1_000_000}]
    data = table.prepare(categorical=hashed, numeric=[])
    assert (data.meta.fields, data.meta.vocabulary["city"]) == ({"city": 1_000_001}, [])
    assert data.split("train").ids[:, 0].tolist() == list(fixed.values())
    assert data_report(data)["fields"]["city"]["kind"] == "hashed"
    again = table.prepare(categorical=hashed, numeric=[], encoding=data.meta.encoding)
    np.testing.assert_array_equal(again.split("test").ids, data.split("test").ids)


def test_own_validation_rows_and_a_split_column_are_used_as_they_are(table):
    table.write("valid.csv", "city,price,click", [("b", 2, 1)])
    data = table.prepare(files={"train": "train.csv", "valid": "valid.csv", "test": "test.csv"}, valid_fraction=0.5)
    assert data.meta.rows == {"train": 8, "valid": 1, "test": 2}
    table.write("all.csv", "city,price,click,part", [("a", 1, 0, "train"), ("b", 2, 1, "test"), ("c", 3, 1, "train"), ("a", 4, 0, "valid")])
    assert table.prepare(files={"all": "all.csv", "split_column": "part"}).meta.rows == {"train": 2, "valid": 1, "test": 1}


def test_fractions_cut_one_file_by_the_test_seed_without_losing_a_row(table):
    table.write("all.csv", "city,price,click", [("a", i, i % 2) for i in range(100)])

    def prices(test_seed):
        files = {"all": "all.csv", "test_fraction": 0.3, "test_seed": test_seed}
        data = table.prepare(files=files, valid_fraction=0.2, numeric=[{"column": "price", "dense": "standardise"}])
        assert data.meta.rows == {"train": 56, "valid": 14, "test": 30}
        scale = data.meta.scaling["price"]
        return {name: np.round(one.dense[:, 0] * scale["std"] + scale["mean"]).tolist() for name, one in data.splits.items()}

    assert sorted(price for part in prices(1).values() for price in part) == list(range(100))
    assert prices(1) == prices(1)
    assert prices(1)["test"] != prices(2)["test"]
