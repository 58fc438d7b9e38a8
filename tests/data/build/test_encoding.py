"""What becomes of categories, numbers and labels."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcrnn_fast.data.codes.numbers import bucket_edges, bucket_ids, edges_of, steady_edges
from dcrnn_fast.data.codes.sums import NumberCounts


def field(data, split, name):
    return data.split(split).ids[:, list(data.meta.fields).index(name)].tolist()


def test_an_unseen_category_and_one_rarer_than_min_count_map_to_id_zero(table):
    data = table.prepare()
    assert data.meta.vocabulary["city"] == ["<oov>", "a", "b", "c"]
    assert field(data, "test", "city") == [1, 0]
    assert field(table.prepare(min_count=2), "train", "city") == [1, 2, 1, 0, 1, 2, 1, 2]
    assert table.prepare(categorical=[{"column": "city", "min_count": 4}]).meta.vocabulary["city"] == ["<oov>", "a"]


def test_missing_values_are_those_the_schema_lists(table):
    table.write("train.csv", "city,price,click", [("NA", 1, 0), ("?", "?", 1), ("007", 3, 1), ("7", 3, 1)])
    table.write("test.csv", "city,price,click", [("?", 1, 0), ("<other>", 1, 0)])
    data = table.prepare(missing_values=["?"])
    assert data.meta.vocabulary["city"] == ["<oov>", "007", "7", "<missing>", "NA"]
    assert field(data, "train", "price") == [1, 0, 2, 2]
    assert field(data, "test", "city") == [3, 0]


def test_everything_is_fitted_on_the_train_rows_alone(table):
    before = table.prepare(valid_fraction=0.25)
    rows = (table.folder / "train.csv").read_text().splitlines()[1:]
    held_out = {row for row in rows if not any(row.startswith(f"{r}") for r in _train_rows(before))}
    assert len(held_out) == 2
    table.write("train.csv", "city,price,click", [f"new,{10**6},1" if row in held_out else row for row in rows])
    table.write("test.csv", "city,price,click", ["newer,-1000000,0"])
    after = table.prepare(valid_fraction=0.25)
    assert before.path != after.path
    for learned in ("fields", "vocabulary", "scaling"):
        assert getattr(after.meta, learned) == getattr(before.meta, learned)
    assert field(after, "valid", "city") == [0, 0]


def _train_rows(data):
    """The text of the train rows, read back through the vocabulary and the price's scaling."""
    split, scale = data.split("train"), data.meta.scaling["price"]
    prices = np.round(split.dense[:, 0] * scale["std"] + scale["mean"]).astype(int)
    return [f"{data.meta.vocabulary['city'][c]},{p}," for c, p in zip(split.ids[:, 0], prices, strict=True)]


def test_a_missing_number_gets_id_zero_and_the_train_mean(table):
    table.write("train.csv", "city,price,click", [("a", 1, 0), ("a", "", 1), ("a", 3, 1)])
    data = table.prepare()
    assert field(data, "train", "price") == [1, 0, 2]
    np.testing.assert_allclose(data.split("train").dense[:, 0], [-1, 0, 1])


def test_standardise_gives_mean_zero_and_deviation_one_in_train(table):
    dense = table.prepare().split("train").dense
    assert (dense.mean(), dense.std()) == pytest.approx((0, 1), abs=1e-6)
    table.write("train.csv", "city,price,click", [("a", 5, 0), ("b", 5, 1)])
    assert table.prepare().split("train").dense[:, 0].tolist() == [0, 0], "a constant column"


def test_log1p_is_signed(table):
    table.write("train.csv", "city,price,click", [("a", -100, 0), ("a", 0, 1), ("a", 100, 1)])
    data = table.prepare(numeric=[{"column": "price", "dense": "log1p"}])
    values = np.array([-np.log(101), 0, np.log(101)])
    np.testing.assert_allclose(data.split("train").dense[:, 0], values / values.std(), rtol=1e-6)


def test_negative_numbers_have_buckets_as_others_do(table):
    table.write("train.csv", "city,price,click", [("a", -124, 0), ("a", 0, 1), ("a", 1, 1), ("a", "", 1)])
    assert field(table.prepare(), "train", "price") == [1, 2, 3, 0]


def test_few_values_have_a_bucket_each_and_even_ones_equal_quantiles():
    assert bucket_edges(np.array([3.0, 1.0, 1.0, 7.0]), 3).tolist() == [3.0, 7.0]
    edges = bucket_edges(np.arange(1000.0), 10)
    assert np.bincount(np.searchsorted(edges, np.arange(1000.0), side="right")).tolist() == [100] * 10
    assert bucket_edges(np.array([]), 4).tolist() == []


@pytest.mark.parametrize("heavy", [0.0, -3.5, 29.99, 1e12])
def test_a_heavy_value_shares_its_bucket_with_no_other_number(heavy):
    values = np.concatenate([np.full(900, heavy), heavy + np.linspace(-50, 50, 100)])
    edges = bucket_edges(values, 8)
    neighbours = np.array([np.nextafter(heavy, -np.inf), heavy, max(np.nextafter(heavy, np.inf), heavy + np.finfo(float).tiny)])
    below, at, above = np.searchsorted(edges, neighbours, side="right")
    assert below < at < above


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=200), st.integers(2, 40))
@example([0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 1.5], 4)  # two frequent neighbours
def test_buckets_are_all_used_and_about_as_many_as_asked_for(values, buckets):
    values = np.array(values)
    edges = bucket_edges(values, buckets)
    assert (np.diff(edges) > 0).all()
    assert len(edges) + 1 <= 2 * buckets + 1
    assert len(edges) + 1 <= max(buckets, len(np.unique(values)))
    assert (np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) > 0).all()


@pytest.mark.parametrize("trained", [np.float32, np.float64])
@pytest.mark.parametrize("buckets", [8, 10_000])
def test_a_number_has_the_bucket_of_the_same_number_in_float32(trained, buckets):
    rng = np.random.default_rng(0)
    prices = np.concatenate([np.round(rng.lognormal(3, 1, 5000), 2) * rng.choice([-1, 1], 5000), np.zeros(2000), np.full(2000, 9.99)])
    numbers = NumberCounts.of([prices.astype(trained).astype(np.float64)])
    edges = steady_edges(edges_of(numbers, buckets), numbers)
    assert (bucket_ids(prices, edges) == bucket_ids(prices.astype(np.float32).astype(np.float64), edges)).all()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e9, 1e9) | st.sampled_from([0.0, 0.1, 2.0**30, 2.0**30 + 1]), min_size=1, max_size=200), st.integers(2, 40))
def test_edges_that_are_moved_leave_every_train_number_in_its_bucket(values, buckets):
    numbers = NumberCounts.of([np.array(values)])
    edges = edges_of(numbers, buckets)
    moved = steady_edges(edges, numbers)
    assert (np.diff(moved) > 0).all()
    assert (bucket_ids(np.array(values), moved) == bucket_ids(np.array(values), edges)).all()


def test_a_label_is_zero_one_or_a_threshold_or_one_of_the_positive_values(table):
    tasks = [
        {"name": "click", "column": "click"},
        {"name": "dear", "column": "price", "threshold": 3},
        {"name": "north", "column": "city", "positive": ["a", "c"]},
    ]
    table.write("train.csv", "x,city,price,click", [("k", "a", 1, 0), ("k", "b", 2, 1), ("k", "c", 3, ""), ("k", "", "", 1)])
    table.write("test.csv", "x,city,price,click", [("k", "a", 1, 0)])
    labels = table.prepare(tasks=tasks, categorical=["x"], numeric=[]).split("train").labels
    np.testing.assert_array_equal(labels, np.float32([[0, 0, 1], [1, 0, 0], [np.nan, 1, 1], [1, np.nan, np.nan]]))


def test_texts_spelled_like_the_reserved_names_stay_categories(table):
    cells = ["", "<missing>", "<oov>", r"\<missing>", "a"]
    table.write("train.csv", "city,mark,user", [(cell, cell, cell) for cell in cells])
    table.write("test.csv", "city,mark,user", [(cell, cell, cell) for cell in [*cells, "unseen"]])
    tasks = [{"name": "literal", "column": "mark", "positive": "<missing>"}]
    data = table.prepare(tasks=tasks, numeric=[], group="user")
    assert data.meta.vocabulary["city"] == ["<oov>", "<missing>", r"\<missing>", r"\<oov>", r"\\<missing>", "a"]
    assert field(data, "test", "city") == [1, 2, 3, 4, 5, 0]
    np.testing.assert_array_equal(data.split("test").labels[:, 0], np.float32([np.nan, 1, 0, 0, 0, 0]))
    assert (np.asarray(data.split("test").group) == -1).tolist() == [True, False, False, False, False, False]


def test_weight_and_group_travel_with_the_rows(table):
    header = "city,price,click,user,w"
    table.write("train.csv", header, [("a", 1, 0, "u1", 1), ("b", 2, 1, "", 0.5), ("b", 3, 1, "u2", 2), ("a", 1, 0, "u1", 0)])
    table.write("test.csv", header, [("a", 1, 0, "u9", 1)])
    data = table.prepare(group="user", weight="w")
    split = data.split("train")
    assert split.weight.tolist() == [1, 0.5, 2, 0]
    assert split.group[0] == split.group[3]
    assert split.group[1] == -1
    assert len(set(split.group.tolist())) == 3
    meta = data.meta
    assert (meta.group, meta.has_weight, meta.tasks, meta.dense) == ("user", True, ("click",), ("price",))
    assert (meta.name, meta.fields, meta.rows) == ("shop", {"city": 3, "price": 4}, {"train": 4, "valid": 0, "test": 1})


def encoding_of(data):
    return {"vocabulary": data.meta.vocabulary, "scaling": data.meta.scaling}


def test_a_given_encoding_gives_the_ids_and_values_of_its_data(table):
    first = table.prepare()
    rows = [("a", 1, 0), ("b", 5, 1), ("new", 9, 1)]
    table.write("test.csv", "city,price,click", rows)
    expected = table.prepare().split("test")
    table.write("train.csv", "city,price,click", [("new", 100, 1), ("b", 200, 0), ("b", 300, 0)])
    other = table.prepare(encoding=encoding_of(first))
    assert (other.meta.vocabulary, other.meta.scaling, other.meta.fields) == (first.meta.vocabulary, first.meta.scaling, first.meta.fields)
    np.testing.assert_array_equal(other.split("test").ids, expected.ids)
    np.testing.assert_array_equal(other.split("test").dense, expected.dense)
    assert table.prepare().meta.vocabulary["city"] == ["<oov>", "b", "new"]
