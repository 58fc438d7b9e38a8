"""Columns of Parquet tables: which types are text or numbers, and how the others are refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.errors import DataError


def test_decimals_in_parquet_become_the_nearest_float(table):
    prices = pa.array(["95.85", "180.95", "0.10"]).cast(pa.decimal128(9, 2))
    table.parquet("t.parquet", {"city": ["a", "b", "c"], "price": prices, "click": [0, 1, 0]})
    data = table.prepare(files={"train": "t.parquet", "test": "t.parquet"})
    assert data.meta.vocabulary["price"] == [95.85, 180.95]


CELLS = {
    "struct": pa.array([{"a": 1}]),
    "list": pa.array([[1]]),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
    "bytes": pa.array([b"\xff"]),
    "bytes called text": pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers()),
    "unknown time zone": pa.array([0], pa.timestamp("us", tz="Nowhere/Land")),
}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(
    ("use", "said"),
    [
        ({"categorical": ["x"]}, "t.parquet: column 'x' is used as text and is of type "),
        ({"tasks": [{"name": "click", "column": "x", "positive": "1"}]}, "t.parquet: column 'x' is used as text and is of type "),
        ({"group": "x"}, "t.parquet: column 'x' is used as text and is of type "),
        ({"files": {"all": "t.parquet", "split_column": "x"}}, "t.parquet: column 'x' is used as text and is of type "),
        ({"numeric": [{"column": "x", "dense": "log1p"}]}, "column 'x' is used as a number and "),
    ],
    ids=["category", "label", "group", "split", "number"],
)
def test_a_parquet_column_that_is_neither_text_nor_numbers_is_refused_by_name(table, kind, use, said):
    table.parquet("t.parquet", {"city": ["a"], "price": [1.0], "click": [0], "x": CELLS[kind]})
    with pytest.raises(DataError) as caught:
        table.prepare(**({"files": {"train": "t.parquet", "test": "t.parquet"}} | use))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_dictionary_with_repeated_and_unused_entries_is_read_as_its_cells(table):
    codes, entries = pa.array([0, 1, 2, None, None], pa.int8()), pa.array(["a", "b", "a", "unused"])
    content = {"city": pa.DictionaryArray.from_arrays(codes, entries), "price": pa.array(range(5)), "click": pa.array([0, 1, 0, 1, 0])}
    table.parquet("t.parquet", content)
    data = table.prepare(files={"train": "t.parquet", "test": "t.parquet"})
    assert data.meta.vocabulary["city"] == ["<oov>", "<missing>", "a", "b"]
    assert data.split("test").ids[:, list(data.meta.fields).index("city")].tolist() == [2, 3, 2, 1, 1]


@pytest.mark.parametrize(("kind", "view"), [(pa.string(), pa.string_view()), (pa.binary(), pa.binary_view())], ids=["text", "bytes"])
def test_parquet_columns_in_the_view_layout_are_read_as_those_in_the_usual_one(table, kind, view):
    def digest(layout):
        cities = pa.array(["a", "b", None, "a"]).cast(kind).cast(layout)
        content = pa.table({"city": cities, "price": pa.array(range(4)), "click": [0, 1, 0, 1]})
        pq.write_table(content, table.folder / "t.parquet")
        pq.write_table(content.slice(0, 0), table.folder / "empty.parquet")
        return table.prepare(files={"train": "t.parquet", "test": "empty.parquet"}, valid_fraction=0.25).meta.digest

    assert digest(view) == digest(kind)


def test_parquet_of_other_types_is_read_alike(table):
    content = {
        "city": pa.array([1.0, None, float("nan"), 2.0]),
        "price": pa.array([True, False, None, True]),
        "click": pa.array([True, False, None, True]),
    }
    table.parquet("t.parquet", content)
    data = table.prepare(files={"train": "t.parquet", "test": "t.parquet"})
    assert data.meta.vocabulary["city"] == ["<oov>", "<missing>", "1", "2"]
    assert data.split("train").ids[:, list(data.meta.fields).index("price")].tolist() == [2, 1, 0, 2]
    np.testing.assert_array_equal(data.split("train").labels[:, 0], np.float32([1, 0, np.nan, 1]))
