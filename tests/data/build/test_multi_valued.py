"""Fields with several values: list columns and separated text become columns of ids that share one vocabulary."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcrnn_fast import DCRNN
from dcrnn_fast.data import Encoder, data_report, draft_schema, open_packed, prepare
from dcrnn_fast.data.inspect.oov import id_shares
from dcrnn_fast.errors import DataError
from tests.data.conftest import CLICKS, GENRES, LISTS

TEXTS = ["a|b", "", "b|c|a|b", None, "b", "d|a"]
IDS = [[1, 2, 0], [0, 0, 0], [2, 3, 1], [0, 0, 0], [2, 0, 0], [4, 1, 0]]


def test_each_value_has_a_column_of_ids_and_missing_ones_are_0(films):
    data = films.prepare()
    assert data.meta.fields == {"genres[0]": 5, "genres[1]": 5, "genres[2]": 5}
    assert data.split("train").ids.tolist() == IDS


def test_the_vocabulary_counts_all_values_that_a_row_keeps_and_no_missing_one(films):
    """The fourth value of the third row is left out: with it, b would be more frequent than a."""
    meta = films.prepare().meta
    assert meta.vocabulary["genres[0]"] == meta.vocabulary["genres[2]"] == ["<oov>", "a", "b", "c", "d"]
    assert films.prepare(min_count=4).meta.fields["genres[0]"] == 1
    assert films.prepare(min_count=3).meta.vocabulary["genres[0]"] == ["<oov>", "a", "b"]


def test_lists_and_separated_text_of_parquet_and_csv_files_give_the_same_bits(films):
    lists = films.prepare()
    films.fill(TEXTS)
    text = films.prepare()
    films.write("films.csv", "genres,click", [(cell or "", click) for cell, click in zip(TEXTS, CLICKS, strict=True)])
    csv = films.prepare(files={"train": "films.csv", "test": "films.csv"})
    for other in (text, csv):
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


def test_lists_of_numbers_are_categories_by_their_text_as_other_columns_are(films):
    films.fill([[7, 8], [8], [], [8, 9], None, [7]])
    assert films.prepare().meta.vocabulary["genres[0]"] == ["<oov>", "8", "7", "9"]


def test_null_nan_and_the_empty_text_are_no_values_and_take_no_place(films):
    encoder = Encoder.load(films.prepare().path)
    assert encoder.encode({"genres": [["", None, "a", "", "b"], [""], [None]]}).ids.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert encoder.encode({"genres": ["||a||b|", "|", "c| a"]}).ids.tolist() == [[1, 2, 0], [0, 0, 0], [3, 0, 0]]
    films.fill([[1.5, float("nan"), 2.5], [float("nan")]])
    assert films.prepare().split("train").ids.tolist() == [[1, 2, 0], [0, 0, 0]]


def test_a_value_that_reads_missing_is_a_value(films):
    films.fill([["<missing>", "<oov>"], ["<missing>"], [None]])
    data = films.prepare()
    assert data.meta.vocabulary["genres[0]"] == ["<oov>", "\\<missing>", "\\<oov>"]
    assert data.split("train").ids.tolist() == [[1, 2, 0], [1, 0, 0], [0, 0, 0]]


def test_a_separator_may_be_longer_than_a_character(films):
    films.fill(["a::b", "b:c"])
    data = films.prepare(categorical=[{**GENRES, "separator": "::"}])
    assert data.meta.vocabulary["genres[0]"] == ["<oov>", "a", "b", "b:c"]


def test_a_history_shares_the_items_ids_and_an_item_that_is_missing_is_no_value_of_it(films):
    films.fill(LISTS, item=["b", None, "a", None, "x", "b"])
    data = films.prepare(categorical=["item", {**GENRES, "same_ids_as": "item"}])
    meta, ids = data.meta, data.split("train").ids
    vocabulary = meta.vocabulary["item"]
    assert meta.shared == dict.fromkeys(["genres[0]", "genres[1]", "genres[2]"], "item")
    assert "<missing>" in vocabulary
    assert ids[1].tolist() == [vocabulary.index("<missing>"), 0, 0, 0]
    assert ids[0].tolist() == [vocabulary.index("b"), vocabulary.index("a"), vocabulary.index("b"), 0]


def test_the_places_without_a_value_do_not_count_as_missing_items(films):
    films.fill(LISTS, item=["b", "a", "a", "b", None, "b"])
    categorical = ["item", {**GENRES, "same_ids_as": "item"}]
    assert films.prepare(categorical=categorical, min_count=2).meta.vocabulary["item"] == ["<oov>", "b", "a"]


def test_another_column_may_have_the_ids_of_a_field_of_several_values(films):
    films.fill(LISTS, main=["b", None, "c", "e", None, "b"])
    data = films.prepare(categorical=[GENRES, {"column": "main", "same_ids_as": "genres"}])
    vocabulary = data.meta.vocabulary["main"]
    assert vocabulary == data.meta.vocabulary["genres[0]"] == ["<oov>", "b", "a", "c", "d", "e"]
    assert data.split("train").ids[:, 3].tolist() == [1, 0, 3, 5, 0, 1]


def test_a_hashed_field_of_several_values_learns_nothing(films):
    data = films.prepare(categorical=[{**GENRES, "hash_buckets": 1000}])
    ids = data.split("train").ids
    assert data.meta.vocabulary == {field: [] for field in data.meta.fields}
    assert ((ids == 0) == (np.array(IDS) == 0)).all()
    assert ids[0, 1] == ids[4, 0]
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


@pytest.mark.parametrize("form", ["lists", "tuples", "texts", "pandas", "pandas with NaN", "Arrow", "Arrow in chunks"])
def test_rows_in_memory_get_the_bits_that_prepare_gives_them(films, form):
    rows = pq.read_table(films.fill(LISTS, item=["b", None, "a", None, "x", "b"]).folder / "films.parquet")
    data = films.prepare(categorical=[{**GENRES, "same_ids_as": "item"}, "item"])
    encoder = Encoder.load(data.path)
    assert encoder.columns == ("item", "genres")
    assert np.array_equal(encoder.encode(forms(rows)[form]).ids, data.split("train").ids)


def test_an_encoder_says_what_a_model_with_such_a_field_is_built_from(films):
    encoder = Encoder.load(films.prepare().path)
    assert encoder.pooled == {"genres": {"columns": ["genres[0]", "genres[1]", "genres[2]"], "pooling": "mean"}}
    model = DCRNN(encoder.num_embeddings, tasks=encoder.tasks, shared_embeddings=encoder.shared, pooled=encoder.pooled, embedding_dim=4)
    features = model.features(encoder.encode({"genres": [["a", "nobody knows"], ["a"], []]}).ids).x0
    assert features.shape == (3, 4)
    assert features[0].tolist() == features[1].tolist() == model.features.embedding.weight[1].tolist()
    assert not features[2].any()


def test_the_folder_says_so_and_holds_the_vocabulary_once(films):
    data = films.prepare(categorical=[{**GENRES, "pooling": "sum"}])
    content = json.loads((data.path / "meta.json").read_text())
    assert content["pooled"] == {"genres": {"columns": ["genres[0]", "genres[1]", "genres[2]"], "pooling": "sum"}}
    assert content["derived"]["genres[1]"] == {"column": "genres", "value": 1, "separator": "|"}
    assert list(content["vocabulary"]) == ["genres[0]"]
    assert open_packed(data.path).meta == data.meta


def test_without_such_a_field_the_folder_does_not_say_so(table):
    meta = table.prepare().meta
    assert meta.pooled == {}
    assert "pooled" not in meta.content().keys() | meta.encoding.keys()


def test_another_table_is_encoded_alike_and_one_of_another_schema_refused(films):
    meta = films.prepare().meta
    films.fill([["new", "c"], ["a"]])
    other = films.prepare(encoding=meta.encoding)
    assert other.split("train").ids.tolist() == [[0, 3, 0], [1, 0, 0]]
    assert other.meta.encoding == meta.encoding
    for change in ({"max_values": 2}, {"pooling": "sum"}):
        with pytest.raises(DataError, match=r"column 'genres' is read as .* give a schema of the same columns"):
            prepare(films.save(categorical=[{**GENRES, **change}]), cache_dir=films.folder / "cache", encoding=meta.encoding)


def test_an_encoder_of_a_field_that_does_not_fit_its_columns_is_refused():
    given = {"tasks": ["click"], "dense": [], "vocabulary": {"a[0]": ["<oov>"]}, "scaling": {}}
    for pooled, said in (
        ({"a": ["a[0]"]}, r"\['a'\] is \['a\[0\]'\]"),
        ({"a": {"columns": ["b"], "pooling": "sum"}}, r"its columns are \['b'\]"),
    ):
        with pytest.raises(DataError, match=f"pooled.*{said}"):
            Encoder(num_embeddings={"a[0]": 1}, pooled=pooled, **given)


def test_the_report_judges_the_field_by_its_first_values_and_does_not_warn_of_later_ones(films):
    films.fill([["a"], ["b"], ["a", "b"]] * 40)
    report = data_report(films.prepare())
    assert list(report["fields"]) == ["genres"]
    assert report["fields"]["genres"]["oov"]["train"] == 0.0
    assert report["fields"]["genres"]["missing"]["train"] is None
    assert not [line for line in report["warnings"] if "field" in line]
    assert list(report["single_feature_auc"]["click"]["fields"]) == ["genres"]


def test_a_field_that_is_mostly_empty_is_told_in_words(films):
    films.fill([["a"], [], []] * 10)
    report = data_report(films.prepare())
    assert any("field 'genres': 66.7% of the train rows have no value, or" in line for line in report["warnings"])


def test_of_a_hashed_field_a_row_without_values_is_missing(films):
    data = films.prepare(categorical=[{**GENRES, "hash_buckets": 50}])
    assert id_shares(data.split("train"), data.meta) == {"genres": {"oov": None, "missing": 2 / 6}}


def test_a_value_alone_may_be_a_category_of_its_own(films):
    derived = [{"name": "first", "column": "genres", "value": 0}]
    data = films.prepare(derived=derived, categorical=["first"])
    assert data.meta.vocabulary == {"first": ["<oov>", "<missing>", "b", "a", "d"]}
    assert data.meta.pooled == {}


def test_a_drafted_schema_makes_a_field_of_lists(films):
    films.fill(LISTS, nested=[[["a"]]] * 6)
    draft = draft_schema([str(films.folder / "films.parquet")])
    assert re.search(r'\{column: "genres", max_values: \d+\}  # varchar\[\], ', draft)
    assert re.search(r'"nested": varchar\[\]\[\], .*: (one value|no field)', draft)
