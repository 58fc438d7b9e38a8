"""Fields that have the ids of another field: one vocabulary, learned from the cells of all of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dcrnn_fast.data import PackedMeta, open_packed, prepare
from dcrnn_fast.data.schema.table import load_schema
from dcrnn_fast.errors import DataError

SHARED = {"column": "last_item", "same_ids_as": "item"}


@pytest.fixture
def items(table):
    """A log of items and the item before. The last_item of a first row is missing."""
    rows = [("", "p", 0), ("p", "q", 1), ("q", "p", 0), ("", "r", 1), ("r", "q", 0), ("q", "q", 1)]
    for name in ("train.csv", "test.csv"):
        table.write(name, "last_item,item,click", rows)
    table.schema |= {"categorical": [SHARED, "item"], "numeric": []}
    return table


def test_the_vocabulary_counts_the_cells_of_all_fields_that_have_it(items):
    data = items.prepare(min_count=2)
    assert data.meta.vocabulary["item"] == ["<oov>", "q", "p", "<missing>", "r"]
    assert data.meta.vocabulary["last_item"] == data.meta.vocabulary["item"]
    assert data.meta.fields == {"last_item": 5, "item": 5}
    assert data.meta.shared == {"last_item": "item"}
    assert data.split("train").ids.tolist() == [[3, 2], [2, 1], [1, 2], [3, 4], [4, 1], [1, 1]]


def test_without_sharing_each_field_counts_its_own_cells(items):
    meta = items.prepare(min_count=2, categorical=["last_item", "item"]).meta
    assert meta.vocabulary == {"last_item": ["<oov>", "<missing>", "q"], "item": ["<oov>", "q", "p"]}
    assert meta.shared == {}


def test_validation_and_test_rows_teach_a_shared_vocabulary_nothing(items):
    items.write("test.csv", "last_item,item,click", [("new", "newer", 1)] * 9)
    data = items.prepare()
    assert not {"new", "newer"} & set(data.meta.vocabulary["item"])
    assert data.split("test").ids.tolist() == [[0, 0]] * 9


def test_min_count_is_that_of_the_field_whose_ids_they_are(items):
    meta = items.prepare(categorical=[SHARED, {"column": "item", "min_count": 3}]).meta
    assert meta.vocabulary["last_item"] == ["<oov>", "q", "p"]


def test_a_field_with_the_ids_of_a_hashed_one_is_hashed_alike(items):
    data = items.prepare(categorical=[{"column": "item", "hash_buckets": 1000}, SHARED])
    assert data.meta.fields == {"item": 1001, "last_item": 1001}
    assert data.meta.vocabulary == {"item": [], "last_item": []}
    ids = data.split("train").ids
    assert ids[2, 0] == ids[1, 1] > 0
    assert ids[0, 1] == 0


def test_a_cross_may_share_its_ids_with_another(items):
    derived = [{"name": name, "cross": list(cross)} for name, cross in (("a", ("item", "click2")), ("b", ("last_item", "click2")))]
    for name in ("train.csv", "test.csv"):
        items.write(name, "last_item,item,click2,click", [("p", "q", 1, 0), ("q", "p", 1, 1)])
    meta = items.prepare(derived=derived, categorical=["a", {"column": "b", "same_ids_as": "a"}]).meta
    assert meta.vocabulary["b"] == ["<oov>", "p|1", "q|1"]


def test_the_folder_and_the_encoding_say_which_fields_share(items):
    first = items.prepare()
    assert open_packed(first.path, verify=True).meta == first.meta
    assert first.meta.encoding["shared"] == {"last_item": "item"}
    other = prepare(items.save(min_count=3), cache_dir=items.folder / "cache", valid_fraction=0.0, encoding=first.meta.encoding)
    assert other.meta.vocabulary == first.meta.vocabulary
    np.testing.assert_array_equal(other.split("test").ids, first.split("test").ids)


@pytest.mark.parametrize("categorical", [["last_item", "item"], ["last_item", {"column": "item", "same_ids_as": "last_item"}]])
def test_an_encoding_in_which_other_fields_share_is_refused(items, categorical):
    encoding = items.prepare().meta.encoding
    with pytest.raises(DataError, match=r"column '(last_)?item' has the ids of .* in its schema, and of .* in the data whose encoding"):
        prepare(items.save(categorical=categorical), cache_dir=items.folder / "cache", encoding=encoding)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shared": {"last_item": "shop"}}, "shared says that 'last_item' has the ids of 'shop', expected a field and another one"),
        ({"shared": {"last_item": "item", "item": "last_item"}}, "expected a field and another one that has its own"),
        ({"vocabulary": {"last_item": ["<oov>", "x"], "item": ["<oov>", "y"]}}, "but their vocabularies differ"),
        ({"fields": {"last_item": 5, "item": 6}}, "but their vocabularies differ"),
        ({"shared": ["item"]}, "shared is .* expected a field by field"),
        ({"derived": {"item": 3}}, "derived is .* expected a definition by column"),
    ],
)
def test_a_sealed_meta_whose_sharing_is_impossible_is_refused(items, change, said):
    file = items.prepare().path / "meta.json"
    content = {**json.loads(file.read_text()), **change}
    content["digest"] = PackedMeta(**content).computed_digest()
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"meta\.json.*{said}"):
        open_packed(file.parent)


def test_an_encoding_whose_sharing_is_impossible_is_refused(items):
    encoding = items.prepare().meta.encoding | {"vocabulary": {"last_item": ["<oov>"], "item": ["<oov>", "p"]}}
    with pytest.raises(DataError, match=r"encoding: shared says .* but their vocabularies differ"):
        prepare(items.save(), cache_dir=items.folder / "cache", encoding=encoding)


@pytest.mark.parametrize(
    ("categorical", "said"),
    [
        ([SHARED, "city"], "`same_ids_as` names 'item', which is no categorical column; expected one of city"),
        ([{"column": "item", "same_ids_as": "item"}, "city"], "names 'item', which has the ids of 'item' itself; expected one of city"),
        ([SHARED, {"column": "item", "same_ids_as": "city"}, "city"], "names 'item', which has the ids of 'city' itself"),
        ([{**SHARED, "min_count": 3}, "item"], "'last_item' has the ids of 'item': state `min_count` or `hash_buckets` there"),
        ([{**SHARED, "hash_buckets": 3}, "item"], "'last_item' has the ids of 'item': state `min_count` or `hash_buckets` there"),
    ],
)
def test_a_field_that_names_no_field_with_ids_of_its_own_is_refused(items, categorical, said):
    with pytest.raises(DataError, match=rf"shop\.yaml.*{said}"):
        load_schema(items.save(categorical=categorical))
