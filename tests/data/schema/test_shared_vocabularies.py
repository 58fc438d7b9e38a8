"""Fields that have the ids of another field: one vocabulary, learned from the cells of all of them."""

import numpy as np

from dcrnn_fast.data import open_packed
from tests.data.conftest import SHARED


def test_the_vocabulary_counts_the_cells_of_all_fields_that_have_it(items):
    data = items.prepare(min_count=2)
    assert data.meta.vocabulary["item"] == data.meta.vocabulary["last_item"] == ["<oov>", "q", "p", "<missing>", "r"]
    assert (data.meta.fields, data.meta.shared) == ({"last_item": 5, "item": 5}, {"last_item": "item"})
    assert data.split("train").ids.tolist() == [[3, 2], [2, 1], [1, 2], [3, 4], [4, 1], [1, 1]]
    own = items.prepare(min_count=2, categorical=["last_item", "item"]).meta
    assert (own.vocabulary, own.shared) == ({"last_item": ["<oov>", "<missing>", "q"], "item": ["<oov>", "q", "p"]}, {})
    meta = items.prepare(categorical=[SHARED, {"column": "item", "min_count": 3}]).meta
    assert meta.vocabulary["last_item"] == ["<oov>", "q", "p"]


def test_validation_and_test_rows_teach_a_shared_vocabulary_nothing(items):
    items.write("test.csv", "last_item,item,click", [("new", "newer", 1)] * 9)
    data = items.prepare()
    assert not {"new", "newer"} & set(data.meta.vocabulary["item"])
    assert data.split("test").ids.tolist() == [[0, 0]] * 9


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
    other = items.prepare(min_count=3, encoding=first.meta.encoding)
    assert other.meta.vocabulary == first.meta.vocabulary
    np.testing.assert_array_equal(other.split("test").ids, first.split("test").ids)
