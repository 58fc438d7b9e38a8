"""prepare: finds the data, encodes it, and says what is wrong with a table."""

from __future__ import annotations

import errno
import gzip
from pathlib import Path

import numpy as np
import pytest

from dcrnn_fast.data import prepare
from dcrnn_fast.errors import DataError


def test_gzipped_csv_gives_the_same_data(table):
    plain = table.prepare()
    for name in ("train", "test"):
        (table.folder / f"{name}.csv.gz").write_bytes(gzip.compress((table.folder / f"{name}.csv").read_bytes()))
    zipped = table.prepare(files={"train": "train.csv.gz", "test": "test.csv.gz"})
    assert zipped.path != plain.path
    assert zipped.meta.digest == plain.meta.digest


def test_a_csv_of_many_read_blocks_is_encoded_whole(table):
    rows = [f"c{i % 300},{i % 1000},{i % 2},{'x' * 40}" for i in range(60_000)]
    table.write("train.csv", "city,price,click,pad", rows)
    data = table.prepare()
    cities = np.array([int(text[1:]) for text in data.meta.vocabulary["city"][1:]])
    np.testing.assert_array_equal(cities[data.split("train").ids[:, 0] - 1], np.arange(60_000) % 300)
    np.testing.assert_array_equal(data.split("train").labels[:, 0], np.arange(60_000) % 2)


def test_own_validation_rows_are_used_as_they_are(table):
    table.write("valid.csv", "city,price,click", [("b", 2, 1)])
    data = table.prepare(files={"train": "train.csv", "valid": "valid.csv", "test": "test.csv"}, valid_fraction=0.5)
    assert data.meta.rows == {"train": 8, "valid": 1, "test": 2}


def test_a_split_column_tells_the_splits_apart(table):
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


def test_a_file_that_the_system_does_not_read_is_named(table, monkeypatch):
    real = Path.open

    def refuse(path, *arguments, **options):
        if path.suffix == ".csv":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *arguments, **options)

    path = table.save()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"train\.csv cannot be read: Input/output error"):
        prepare(path, cache_dir=table.folder / "cache")
