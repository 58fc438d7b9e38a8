"""Tables in memory become what `prepare` makes of the same rows, whatever holds them."""

import datetime
import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from dcrnn_fast import DCRNN
from dcrnn_fast.data import Encoder, prepare
from dcrnn_fast.data.catalog import EMBEDDED
from dcrnn_fast.errors import DataError
from tests.refusals import refused, rows

ROOT = Path(__file__).parents[2]
TEXTS = ["a", None, "b", "<missing>", "", "07", "<oov>", r"\<missing>", "é\n", "a", "b", "<missing>\n"]
COLUMNS = {
    "text": TEXTS,
    "hashed": [*reversed(TEXTS)],
    "whole": [7, 2**62, -7, 1, 0, 7, 1, 2, 3, 4, 5, 6],
    "code": [7, None, -7, 1, 0, 7, 1, 2, 3, 4, 5, 6],
    "truth": [True, None, False, True, True, True, True, True, False, None, None, True],
    "float": [7.0, None, -0.0, 1e15, 0.1, 7.0, 1e-7, 123456789.5, float("nan"), 2.0, 2.0, 2.0],
    "day": [datetime.date(2024, 5, day + 1) if day else None for day in range(12)],
    "bucketed": [1.5, None, -2.0, 0.0, 0.0, 0.0, 3.0, -0.0, 9.0, float("nan"), 1e-300, 1.5],
    "empty": [None] * 12,
    "both": [3, None, -4, 0, 1000, 5, 6, 7, 8, 9, 10, 11],
    "log": [0.5, None, -100.0, 0.0, 1e9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
    "label": [0, 1] * 6,
}
SCHEMA = {
    "name": "kinds",
    "files": {"train": "table.parquet", "test": "table.parquet"},
    "min_count": 1,
    "categorical": ["text", {"column": "hashed", "hash_buckets": 1000}, "whole", "code", "truth", "float", "day"],
    "numeric": [
        {"column": "bucketed", "buckets": 4},
        {"column": "empty", "buckets": 4},
        {"column": "both", "buckets": 3, "dense": "standardise"},
        {"column": "log", "dense": "log1p"},
    ],
    "tasks": [{"name": "click", "column": "label"}],
}


TIME = datetime.datetime(2024, 5, 31, 23, 59)
SHOP = Encoder(
    tasks=["click"],
    num_embeddings={"city": 4, "price": 5},
    dense=["price"],
    vocabulary={"city": ["<oov>", "a", "b", "c"], "price": [2.0, 5.0, 7.0]},
    scaling={"price": {"treatment": "standardise", "mean": 4.5, "std": 2.0}},
)


class Stream:
    """A table that is known by its stream of Arrow batches alone, with text in views and small batches, as polars gives it."""

    def __init__(self, table):
        kinds = [field.with_type(pa.string_view()) if field.type == pa.string() else field for field in table.schema]
        schema = pa.schema(kinds)
        self._table = pa.Table.from_batches(table.cast(schema).to_batches(max_chunksize=max(2, len(table) // 4)), schema)

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


FORMS = {
    "Arrow table": lambda table: table,
    "Arrow table in chunks": lambda table: pa.concat_tables([table.slice(0, 5), table.slice(5)]),
    "record batch": lambda table: table.combine_chunks().to_batches()[0],
    "stream": Stream,
    "pandas": lambda table: table.to_pandas(),
    "pandas with Arrow types": lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    "lists": lambda table: table.to_pydict(),
    "Arrow arrays": lambda table: {name: table[name] for name in table.column_names},
    "NumPy arrays": lambda table: {name: table[name].to_numpy() for name in table.column_names},
    "pandas columns": lambda table: dict(table.to_pandas().items()),
}


def equal(found, split):
    assert found.ids.dtype == torch.int64
    np.testing.assert_array_equal(found.ids.numpy(), split.ids)
    if split.dense is None:
        assert found.dense is None
    else:
        assert found.dense.numpy().tobytes() == np.asarray(split.dense).tobytes()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A table with every kind of column and cell, and what `prepare` makes of it."""
    folder = tmp_path_factory.mktemp("kinds")
    table = pa.table(COLUMNS)
    pq.write_table(table, folder / "table.parquet")
    (folder / "kinds.yaml").write_text(yaml.safe_dump(SCHEMA))
    data = prepare(folder / "kinds.yaml", cache_dir=folder / "cache", valid_fraction=0.0)
    return table, data, Encoder.load(data.path)


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_memory_get_the_bits_that_prepare_gives_them(kinds, form):
    table, data, encoder = kinds
    equal(encoder.encode(FORMS[form](table)), data.split("train"))
    ids, dense = encoder.encode(FORMS[form](table.slice(0, 0)) if form != "record batch" else table.to_batches()[0].slice(0, 0))
    assert (ids.shape, dense.shape) == ((0, 10), (0, 2)), "a table without rows"


@pytest.mark.parametrize("name", ["census-income", "hillstrom"])
def test_rows_of_the_embedded_sets_get_the_bits_that_prepare_gives_them(name, request, tmp_path):
    whole = request.getfixturevalue(name.partition("-")[0])
    rows = pq.read_table(EMBEDDED / f"{name}.parquet").slice(10_000, 300)
    pq.write_table(rows, tmp_path / "rows.parquet")
    schema = yaml.safe_load((EMBEDDED / f"{name}.yaml").read_text()) | {"files": {"train": "rows.parquet", "test": "rows.parquet"}}
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump(schema))
    encoding = {"vocabulary": whole.meta.vocabulary, "scaling": whole.meta.scaling}
    expected = prepare(tmp_path / "rows.yaml", cache_dir=tmp_path, valid_fraction=0.0, encoding=encoding)
    encoder = Encoder.load(whole.path)
    for form in FORMS.values():
        equal(encoder.encode(form(rows)), expected.split("train"))


@pytest.mark.parametrize("form", ["lists", "NumPy arrays", "Arrow table"])
def test_a_row_alone_is_encoded_as_among_others(kinds, form):
    table, data, encoder = kinds
    for row in range(len(table)):
        found = encoder.encode(FORMS[form](table.slice(row, 1)))
        assert found.ids.tolist() == [data.split("train").ids[row].tolist()]
        assert found.dense.numpy().tobytes() == data.split("train").dense[row].tobytes()


def test_an_encoder_of_meta_alone_says_what_a_model_is_built_from(kinds, tmp_path):
    table, data, encoder = kinds
    (tmp_path / "meta.json").write_bytes((data.path / "meta.json").read_bytes())
    columns = tuple(name for name in COLUMNS if name != "label")
    for one in (encoder, Encoder.load(str(tmp_path)), pickle.loads(pickle.dumps(encoder))):  # noqa: S301 (its own bytes)
        assert (one.num_embeddings, one.dense, one.tasks, one.columns) == (data.meta.fields, ("both", "log"), ("click",), columns)
        model = DCRNN(one.num_embeddings, num_dense=len(one.dense), tasks=one.tasks, embedding_dim=2)
        assert model.predict(*one.encode(table))["click"].shape == (12,)
        assert torch.equal(one.encode(table).ids, encoder.encode(table).ids)


def test_unseen_cells_mixed_numbers_and_columns_that_nothing_reads(kinds, table):
    assert SHOP.encode({"city": ["nowhere", "a"], "price": [-1e9, 1e9]}).ids.tolist() == [[0, 1], [1, 4]]
    rows, data, encoder = kinds
    cells = rows.to_pydict()
    cells["both"] = tuple(None if cell is None else float(cell) if row % 2 else cell for row, cell in enumerate(cells["both"]))
    equal(encoder.encode(cells), data.split("train"))
    assert Encoder.load(table.prepare(numeric=[]).path).encode({"city": ["a"], "price": "not read"}).dense is None
    more = {"city": ["a"], "price": [2.0], "more": [object()]}
    assert SHOP.encode(pd.DataFrame(more)).ids.tolist() == SHOP.encode(more).ids.tolist() == [[1, 2]]


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A table with derived columns and a field that has the ids of another, and what `prepare` makes of it."""
    folder = tmp_path_factory.mktemp("logs")
    times = [datetime.datetime(2024, 5, day + 1, day * 2) if day else None for day in range(12)]
    items, last = ["a", "b", "c"] * 4, [None, "a", "b", "c", "x", "b"] * 2
    table = pa.table({"time": times, "item": items, "last": last, "label": [0, 1] * 6})
    pq.write_table(table, folder / "table.parquet")
    schema = {
        "name": "logs",
        "files": SCHEMA["files"],
        "min_count": 1,
        "derived": [{"name": "item_x_hour", "cross": ["item", "hour"]}, {"name": "hour", "column": "time", "as": "hour"}],
        "categorical": ["item", {"column": "last", "same_ids_as": "item"}, {"column": "item_x_hour", "hash_buckets": 1000}],
        "numeric": [{"column": "hour", "buckets": 4, "dense": "standardise"}],
        "tasks": SCHEMA["tasks"],
    }
    (folder / "logs.yaml").write_text(yaml.safe_dump(schema))
    data = prepare(folder / "logs.yaml", cache_dir=folder / "cache", valid_fraction=0.0)
    return table, data, Encoder.load(data.path)


@pytest.mark.parametrize("form", ["Arrow table in chunks", "stream", "pandas", "lists"])
def test_derived_columns_and_shared_ids_get_the_bits_of_prepare(logs, form):
    table, data, encoder = logs
    assert encoder.columns == ("item", "last", "time"), "a table needs those that others are derived from"
    equal(encoder.encode(FORMS[form](table)), data.split("train"))


def test_lists_and_arrays_of_one_plain_type_need_no_arrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for column in (["a", None], ("a", None), np.array(["a", None])):
        assert SHOP.encode({"city": column, "price": np.array([1, 2], np.int8)}).ids.tolist() == [[1, 1], [0, 2]]
    with pytest.raises(DataError, match=r"encoding column 'city' of the table, .* needs the package pyarrow: pip install"):
        SHOP.encode({"city": [1.5], "price": [1]})
    with pytest.raises(DataError, match=r"encoding tables other than mappings of lists and arrays needs the package pyarrow"):
        SHOP.encode(Stream(pa.table({"city": ["a"], "price": [1]})))


test_it_is_refused = refused([
    *rows("a table that cannot be encoded is refused in one line", lambda table: SHOP.encode(table), DataError,
        within=r"\A.*({}).*\Z", marks=pytest.mark.filterwarnings("error"), cases=[
        (["a"], "table is of type list, expected a pandas .* or a mapping of column names to lists or arrays"),
        (None, "table is of type NoneType, expected a pandas"),
        ({"price": [1]}, "table lacks the columns city, which the encoder reads; it has price"),
        ({"citty": ["a"], "price": [1]}, "it has citty, price; did you mean 'citty'"),
        ({}, "table lacks the columns city, price, which the encoder reads; it has none"),
        (pd.DataFrame({"price": [1]}), "table lacks the columns city, which the encoder reads; it has price"),
        (pa.table({"price": [1]}), "table lacks the columns city, which the encoder reads; it has price"),
        (pa.table([["a"], ["b"], [1]], names=["city", "city", "price"]), "table has the columns city more than once"),
        (pd.DataFrame([["a", "b", 1]], columns=["city", "city", "price"]), "table has the columns city more than once"),
        ({"city": ["a"], "price": [1, 2]}, "unequal length: 'city' has 1, 'price' has 2 rows"),
        ({"city": "a", "price": [1]}, "column 'city' is 'a', expected a list or a one-dimensional array of cells; put a single cell in a"),
        ({"city": ["a"], "price": 1.5}, "column 'price' is 1.5, expected a list"),
        ({"city": ["a"], "price": np.array(1.5)}, r"column 'price' is a ndarray of shape \[\], expected a list"),
        ({"city": ["a"], "price": np.ones((2, 1))}, r"column 'price' is a ndarray of shape \[2, 1\], expected a list"),
        ({"city": ["a", "b", 3], "price": [1, 2, 3]}, r"table, row 3: column 'city' holds 3 \(int\), expected cells of one type"),
        ({"city": [1, "b"], "price": [1, 2]}, r"table, row 2: column 'city' holds 'b' \(str\), expected cells of one type"),
        ({"city": ["x", None, 3], "price": [1, 2, 3]},
         r"row 3: column 'city' holds 3 .*; correct the cell, or those before it, such as 'x' \(str\)"),
        ({"city": [object], "price": [1]}, r"table, row 1: column 'city' holds <class 'object'> \(type\), expected cells of one type"),
        ({"city": ["a", "\ud800"], "price": [1, 2]}, r"table, row 2: column 'city' holds '\\ud800' \(str\)"),
        ({"city": [10**5000], "price": [1]}, r"table, row 1: column 'city' holds a int too large to show \(int\), expected"),
        ({"city": [["a"]], "price": [1]}, "table: column 'city' is used as text and is of type 'list<"),
        (pa.table({"city": [{"a": 1}], "price": [1]}), "table: column 'city' is used as text and is of type 'struct<"),
        ({"city": ["a", "b"], "price": [1.5, "dear"]}, r"table, row 2: column 'price' holds 'dear' \(str\)"),
        ({"city": ["a", "b"], "price": ["1.5", "dear"]},
         "table, row 2: column 'price' is used as a number and holds 'dear', expected a number"),
        ({"city": ["a"], "price": [[1]]}, "table: column 'price' is used as a number and is of type 'list<"),
        ({"city": ["a"], "price": [10**400]}, r"table, row 1: column 'price' holds 1000.*000 \(int\)"),
        ({"city": ["a"], "price": [2**53 + 1]},
         "table, row 1: column 'price' is used as a number and holds 9007199254740993, expected an integer"),
        ({"city": ["a", "b"], "price": [1, float("-inf")]}, "table, row 2: column 'price' holds an infinite value; make it finite"),
        (pa.table({"city": ["a", "b"], "price": [1, np.inf]}), "table, row 2: column 'price' holds an infinite value"),
        (pd.DataFrame({"city": ["a", "b"], "price": [1, np.inf]}), "table, row 2: column 'price' holds an infinite value"),
        ({"city": ["a", "b"], "price": [1, 1e300]}, r"table, row 2: column 'price' holds 1e\+300, which is too far from"),
        (Stream(pa.table({"city": ["a"] * 4, "price": [1.0, 2.0, 3.0, np.inf]})), "table, row 4: column 'price' holds an infinite value"),
        ({"city": [TIME, None, TIME.replace(tzinfo=datetime.timezone.utc)], "price": [1, 2, 3]},
         r"table, row 3: column 'city' holds .*, expected times of one"),
        ({"city": [TIME.date(), TIME], "price": [1, 2]},
         r"table, row 2: column 'city' holds .*, and .* before it, expected times of one kind"),
        (pd.DataFrame({"city": pd.Series([TIME.replace(tzinfo=datetime.timezone.utc), pd.NaT, TIME], dtype=object), "price": [1, 2, 3]}),
         r"table, row 3: column 'city' holds .*, expected times of one kind"),
        (pd.Series(["a"], name="city"), r"table is of type Series, expected a pandas .* of a row of a frame, take frame\.iloc\[\[0\]\]"),
    ]),
])  # fmt: skip
