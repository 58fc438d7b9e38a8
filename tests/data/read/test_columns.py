"""Columns of Parquet tables: which types are text or numbers, and how the others are refused."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import DataError

HASHED = Encoder(tasks=["click"], num_embeddings={"item": 100_001}, dense=[], vocabulary={"item": []}, scaling={})


def of_parquet(table, columns, **changes):
    """The data of a Parquet file of these columns, which train and test rows are read from."""
    return table.parquet("t.parquet", columns).prepare(files={"train": "t.parquet", "test": "t.parquet"}, **changes)


def test_decimals_in_parquet_become_the_nearest_float(table):
    prices = pa.array(["95.85", "180.95", "0.10"]).cast(pa.decimal128(9, 2))
    found = [of_parquet(table, {"city": list("abc"), "price": p, "click": [0, 1, 0]}) for p in (prices, [95.85, 180.95, 0.1])]
    assert found[0].meta.vocabulary["price"] == found[1].meta.vocabulary["price"]


CELLS = {
    "struct": pa.array([{"a": 1}]),
    "list": pa.array([[1]]),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
    "bytes": pa.array([b"\xff"]),
    "bytes called text": pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers()),
    "unknown time zone": pa.array([0], pa.timestamp("us", tz="Nowhere/Land")),
}


USES = {
    "category": {"categorical": ["x"]},
    "label": {"tasks": [{"name": "click", "column": "x", "positive": "1"}]},
    "group": {"group": "x"},
    "split": {"files": {"all": "t.parquet", "split_column": "x"}},
    "number": {"numeric": [{"column": "x", "dense": "log1p"}]},
}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("use", USES)
def test_a_parquet_column_of_neither_text_nor_numbers_is_refused_by_name(table, kind, use):
    table.parquet("t.parquet", {"city": ["a"], "price": [1.0], "click": [0], "x": CELLS[kind]})
    with pytest.raises(DataError) as caught:
        table.prepare(**({"files": {"train": "t.parquet", "test": "t.parquet"}} | USES[use]))
    assert f"column 'x' is used as {'a number and ' if use == 'number' else 'text and is of type '}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_dictionary_with_repeated_and_unused_entries_is_read_as_cells(table):
    codes, entries = pa.array([0, 1, 2, None, None], pa.int8()), pa.array(["a", "b", "a", "unused"])
    cities = pa.DictionaryArray.from_arrays(codes, entries)
    data = of_parquet(table, {"city": cities, "price": pa.array(range(5)), "click": pa.array([0, 1, 0, 1, 0])})
    assert data.meta.vocabulary["city"] == ["<oov>", "<missing>", "a", "b"]
    assert data.split("test").ids[:, list(data.meta.fields).index("city")].tolist() == [2, 3, 2, 1, 1]


@pytest.mark.parametrize(("kind", "view"), [(pa.string(), pa.string_view()), (pa.binary(), pa.binary_view())], ids=["text", "bytes"])
def test_parquet_columns_in_the_view_layout_are_read_as_others(table, kind, view):
    def digest(layout):
        cities = pa.array(["a", "b", None, "a"]).cast(kind).cast(layout)
        content = pa.table({"city": cities, "price": pa.array(range(4)), "click": [0, 1, 0, 1]})
        pq.write_table(content, table.folder / "t.parquet")
        pq.write_table(content.slice(0, 0), table.folder / "empty.parquet")
        return table.prepare(files={"train": "t.parquet", "test": "empty.parquet"}, valid_fraction=0.25).meta.digest

    assert digest(view) == digest(kind)


def test_parquet_of_other_types_is_read_alike(table):
    truths = pa.array([True, False, None, True])
    data = of_parquet(table, {"city": pa.array([1.0, None, float("nan"), 2.0]), "price": truths, "click": truths})
    assert data.meta.vocabulary["city"] == ["<oov>", "<missing>", "1", "2"]
    assert data.split("train").ids[:, list(data.meta.fields).index("price")].tolist() == [2, 1, 0, 2]
    np.testing.assert_array_equal(data.split("train").labels[:, 0], np.float32([1, 0, np.nan, 1]))


NUMBER = 12_345_678_901
SAME = {
    "int64": pa.array([NUMBER, 7, None]),
    "float64": pa.array([float(NUMBER), 7.0, None]),
    "float64 with NaN": pa.array([float(NUMBER), 7.0, float("nan")]),
    "decimal": pa.array([Decimal(NUMBER), Decimal(7), None], pa.decimal128(20, 0)),
    "decimal with digits": pa.array([Decimal(NUMBER), Decimal(7), None], pa.decimal128(20, 2)),
    "text": pa.array([str(NUMBER), "7", None]),
    "text as a float is written": pa.array([f"{NUMBER}.0", "7.0", ""]),
    "dictionary of floats": pa.array([float(NUMBER), 7.0, None]).dictionary_encode(),
    "dictionary of texts": pa.array([f"{NUMBER}.0", "7", ""]).dictionary_encode(),
    "large text": pa.array([str(NUMBER), "7", None], pa.large_string()),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_number_is_the_same_id_whatever_its_type(kind):
    texts = ["<oov>", "<missing>", "7", str(NUMBER)]
    encoder = Encoder(tasks=["click"], num_embeddings={"item": 4}, dense=[], vocabulary={"item": texts}, scaling={})
    assert encoder.encode({"item": SAME[kind]}).ids[:, 0].tolist() == [3, 2, 1]


def test_a_csv_file_that_pandas_writes_of_ids_with_gaps_has_the_same_ids(table):
    table.write("train.csv", "city,price,click", [(NUMBER, 1, 0), (7, 2, 1), (0, 2, 1)])
    pd.DataFrame({"city": [NUMBER, 7, None, 0], "price": 1, "click": 0}).to_csv(table.folder / "test.csv", index=False)
    data = table.prepare()
    assert "7.0" in (table.folder / "test.csv").read_text()
    texts = data.meta.vocabulary["city"]
    city = list(data.meta.fields).index("city")
    assert [texts[number] for number in data.split("test").ids[:, city]] == [str(NUMBER), "7", "<oov>", "0"]


@pytest.mark.parametrize(
    ("kind", "fits"),
    [(pa.float64(), 2.0**53 - 1), (pa.float32(), 2.0**24 - 1), (pa.float16(), 2.0**11 - 1)],
    ids=["float64", "float32", "float16"],
)
def test_a_float_that_may_have_lost_digits_is_no_id(kind, fits):
    def ids(cells):
        column = pa.array(np.array(cells, kind.to_pandas_dtype()))
        return HASHED.encode({"item": column}).ids[:, 0].tolist()

    assert ids([fits, -fits]) == HASHED.encode({"item": [int(fits), -int(fits)]}).ids[:, 0].tolist()
    for lost in (fits + 1, -fits - 1):
        with pytest.raises(DataError, match=f"row 2: column 'item' is used as text and holds {lost:.0f} as a float"):
            ids([1.5, lost])


NUMBERS = ["1", "+1", "-1", "+-1", " 1", "1 ", "\t1", "1_000", "1_0_0", "1_2_3_4", "1e1_0", "1.5_0", "007", "1.", ".5", "1e3", "nan", ""]


def test_texts_are_the_numbers_that_they_are_in_a_csv_file(table):
    table.write("train.csv", "city,price,click", [("a", f'"{text}"', row % 2) for row, text in enumerate(NUMBERS)])
    table.parquet("test.parquet", {"city": ["a"] * len(NUMBERS), "price": NUMBERS, "click": [0] * len(NUMBERS)})
    data = table.prepare(files={"train": "train.csv", "test": "test.parquet"}, numeric=[{"column": "price", "buckets": 100}])
    np.testing.assert_array_equal(data.split("test").ids, data.split("train").ids)
    assert len(np.unique(data.split("train").ids[:, 1])) > 9


@pytest.mark.parametrize("text", ["++1", "-+1", "_1", "1_", "1__0", "1_.5", "1 0", " ", "0x10", "1,5", "one"])
def test_texts_are_no_numbers_that_are_none_in_a_csv_file(table, text):
    table.write("bad.csv", "city,price,click", [("a", 1, 0), ("b", f'"{text}"', 1)])
    table.parquet("bad.parquet", {"city": ["a", "b"], "price": ["1", text], "click": [0, 1]})
    for file in ("bad.csv", "bad.parquet"):
        with pytest.raises(DataError, match="'price'"):
            table.prepare(files={"train": file, "test": file})


def test_an_empty_text_is_missing_in_every_file(table):
    table.parquet("t.parquet", {"city": ["a", "", None, "a"], "price": ["1", "", None, "2"], "click": ["1", "", None, "0"]})
    table.write("t.csv", "city,price,click", [("a", 1, 1), ('""', '""', '""'), ("", "", ""), ("a", 2, 0)])
    both = [table.prepare(files={"train": file, "test": file}, missing_values=["NA"]) for file in ("t.parquet", "t.csv")]
    for data in both:
        assert data.meta.vocabulary["city"] == ["<oov>", "<missing>", "a"]
        np.testing.assert_array_equal(data.split("train").ids, both[0].split("train").ids)
        np.testing.assert_array_equal(data.split("train").labels, np.float32([[1], [np.nan], [np.nan], [0]]))


def test_a_label_may_be_named_as_a_float_is_written(table):
    columns = {"city": ["a", "b", "c"], "price": [1, 2, 3], "stars": pa.array([4.0, 5.0, 3.0])}
    for positive in (["5"], ["5.0"], [5]):
        data = of_parquet(table, columns, tasks=[{"name": "love", "column": "stars", "positive": positive}])
        assert data.split("train").labels[:, 0].tolist() == [0, 1, 0]
