"""Fields with several values: list columns and separated text become columns of ids that share one vocabulary."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import Encoder, data_report, open_packed
from dcrnn_fast.data.inspect.oov import id_shares
from tests.data.conftest import CLICKS, GENRES, LISTS

TEXTS = ["a|b", "", "b|c|a|b", None, "b", "d|a"]
IDS = [[1, 2, 0], [0, 0, 0], [2, 3, 1], [0, 0, 0], [2, 0, 0], [4, 1, 0]]


def test_each_value_has_a_column_of_ids_and_the_folder_says_so(films):
    data = films.prepare(categorical=[{**GENRES, "pooling": "sum"}])
    assert data.meta.fields == {"genres[0]": 5, "genres[1]": 5, "genres[2]": 5}
    assert data.split("train").ids.tolist() == IDS
    content = json.loads((data.path / "meta.json").read_text())
    assert content["pooled"] == {"genres": {"columns": ["genres[0]", "genres[1]", "genres[2]"], "pooling": "sum"}}
    assert content["derived"]["genres[1]"] == {"column": "genres", "value": 1, "separator": "|"}
    assert list(content["vocabulary"]) == ["genres[0]"]
    assert open_packed(data.path).meta == data.meta


def test_the_vocabulary_counts_all_values_that_a_row_keeps(films):
    """The fourth value of the third row is left out: with it, b would be more frequent than a."""
    meta = films.prepare().meta
    assert meta.vocabulary["genres[0]"] == meta.vocabulary["genres[2]"] == ["<oov>", "a", "b", "c", "d"]
    assert films.prepare(min_count=4).meta.fields["genres[0]"] == 1
    assert films.prepare(min_count=3).meta.vocabulary["genres[0]"] == ["<oov>", "a", "b"]


def test_lists_and_text_of_parquet_and_csv_files_give_the_same_bits(films):
    lists, text = films.prepare(), films.fill(TEXTS).prepare()
    films.write("films.csv", "genres,click", [(cell or "", click) for cell, click in zip(TEXTS, CLICKS, strict=True)])
    for other in (text, films.prepare(files={"train": "films.csv", "test": "films.csv"})):
        assert other.split("train").ids.tobytes() == lists.split("train").ids.tobytes()
        assert other.meta.vocabulary == lists.meta.vocabulary


@pytest.mark.parametrize(
    "cells",
    [
        pa.array(LISTS, pa.large_list(pa.large_string())),
        pa.array(LISTS, pa.list_(pa.string_view())),
        pa.array(LISTS, pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        pa.array([["x"], *LISTS], pa.list_(pa.string()))[1:],
        pa.array(TEXTS).dictionary_encode(),
        pa.array(TEXTS, pa.binary()),
    ],
    ids=["large", "views", "dictionary", "slice", "coded texts", "bytes"],
)
def test_every_layout_of_lists_and_texts_is_read_alike(films, cells):
    encoder = Encoder.load(films.prepare().path)
    assert encoder.encode(pa.table({"genres": cells})).ids.tolist() == IDS


def test_null_nan_and_the_empty_text_are_no_values_and_take_no_place(films):
    encoder = Encoder.load(films.prepare().path)
    assert encoder.encode({"genres": [["", None, "a", "", "b"], [""], [None]]}).ids.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert encoder.encode({"genres": ["||a||b|", "|", "c| a"]}).ids.tolist() == [[1, 2, 0], [0, 0, 0], [3, 0, 0]]


@pytest.mark.parametrize(
    ("cells", "separator", "vocabulary", "ids"),
    [
        ([[7, 8], [8], [], [8, 9], None, [7]], "|", ["8", "7", "9"], [[2, 1, 0], [1, 0, 0], [0, 0, 0], [1, 3, 0], [0, 0, 0], [2, 0, 0]]),
        ([[1.5, float("nan"), 2.5], [float("nan")]], "|", ["1.5", "2.5"], [[1, 2, 0], [0, 0, 0]]),
        ([["<missing>", "<oov>"], ["<missing>"], [None]], "|", ["\\<missing>", "\\<oov>"], [[1, 2, 0], [1, 0, 0], [0, 0, 0]]),
        (["a::b", "b:c"], "::", ["a", "b", "b:c"], [[1, 2, 0], [3, 0, 0]]),
    ],
    ids=["whole numbers", "numbers", "texts that read missing", "a separator of two characters"],
)
def test_lists_of_each_kind_of_cells_have_their_texts_as_values(films, cells, separator, vocabulary, ids):
    data = films.fill(cells).prepare(categorical=[{**GENRES, "separator": separator}])
    assert data.meta.vocabulary["genres[0]"] == ["<oov>", *vocabulary]
    assert data.split("train").ids.tolist() == ids


def test_a_history_shares_the_items_ids_and_a_missing_item_is_no_value(films):
    films.fill(LISTS, item=["b", None, "a", None, "x", "b"])
    categorical = ["item", {**GENRES, "same_ids_as": "item"}]
    data = films.prepare(categorical=categorical)
    meta, ids = data.meta, data.split("train").ids
    vocabulary = meta.vocabulary["item"]
    assert meta.shared == dict.fromkeys(["genres[0]", "genres[1]", "genres[2]"], "item")
    assert ids[1].tolist() == [vocabulary.index("<missing>"), 0, 0, 0]
    assert ids[0].tolist() == [vocabulary.index("b"), vocabulary.index("a"), vocabulary.index("b"), 0]
    films.fill(LISTS, item=["b", "a", "a", "b", None, "b"])
    counted = films.prepare(categorical=categorical, min_count=2).meta.vocabulary["item"]
    assert counted == ["<oov>", "b", "a"], "the places without a value count as missing items"


def test_another_column_may_have_the_ids_of_a_field_of_several_values(films):
    films.fill(LISTS, main=["b", None, "c", "e", None, "b"])
    data = films.prepare(categorical=[GENRES, {"column": "main", "same_ids_as": "genres"}])
    vocabulary = data.meta.vocabulary["main"]
    assert vocabulary == data.meta.vocabulary["genres[0]"] == ["<oov>", "b", "a", "c", "d", "e"]
    assert data.split("train").ids[:, 3].tolist() == [1, 0, 3, 5, 0, 1]


def test_a_hashed_field_of_several_values_learns_nothing_and_counts_rows(films):
    data = films.prepare(categorical=[{**GENRES, "hash_buckets": 1000}])
    ids = data.split("train").ids
    assert data.meta.vocabulary == {field: [] for field in data.meta.fields}
    assert ((ids == 0) == (np.array(IDS) == 0)).all()
    assert ids[0, 1] == ids[4, 0]
    assert id_shares(data.split("train"), data.meta) == {"genres": {"oov": None, "missing": 2 / 6}}
    assert np.array_equal(Encoder.load(data.path).encode({"genres": LISTS}).ids, ids)


def forms(rows):
    lists = rows.to_pydict()
    return {
        "lists": lists,
        "tuples": {**lists, "genres": [cell and tuple(cell) for cell in lists["genres"]]},
        "texts": {**lists, "genres": TEXTS},
        "pandas": rows.to_pandas(),
        "pandas with NaN": pd.DataFrame({**lists, "genres": [np.nan if cell is None else cell for cell in lists["genres"]]}),
        "Arrow": rows,
        "Arrow in chunks": pa.concat_tables([rows.slice(0, 2), rows.slice(2)]),
    }


def test_rows_in_memory_get_the_bits_that_prepare_gives_them(films):
    rows = pq.read_table(films.fill(LISTS, item=["b", None, "a", None, "x", "b"]).folder / "films.parquet")
    data = films.prepare(categorical=[{**GENRES, "same_ids_as": "item"}, "item"])
    encoder = Encoder.load(data.path)
    assert encoder.columns == ("item", "genres")
    for form, table in forms(rows).items():
        assert np.array_equal(encoder.encode(table).ids, data.split("train").ids), form


def test_the_report_judges_the_field_by_its_first_values(films):
    report = data_report(films.fill([["a"], ["b"], ["a", "b"]] * 40).prepare())
    assert list(report["fields"]) == list(report["single_feature_auc"]["click"]["fields"]) == ["genres"]
    assert (report["fields"]["genres"]["oov"]["train"], report["fields"]["genres"]["missing"]["train"]) == (0.0, None)
    assert not [line for line in report["warnings"] if "field" in line]
    empty = data_report(films.fill([["a"], [], []] * 10).prepare())
    assert any("field 'genres': 66.7% of the train rows have no value, or" in line for line in empty["warnings"])


def test_a_value_alone_may_be_a_category_of_its_own(films):
    meta = films.prepare(derived=[{"name": "first", "column": "genres", "value": 0}], categorical=["first"]).meta
    assert (meta.vocabulary, meta.pooled) == ({"first": ["<oov>", "<missing>", "b", "a", "d"]}, {})
