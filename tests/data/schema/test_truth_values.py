"""Labels and categories that say true and false: in words, in YAML, and as Parquet's truth values."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def labels(table, cells, *, kind="csv", **rule):
    """The train rows' labels, NaN as None, of a table whose label column holds `cells`."""
    for name in ("train", "test"):
        if kind == "parquet":
            cities = pa.array(["a"] * len(cells))
            pq.write_table(pa.table({"city": cities, "click": pa.array(cells)}), table.folder / f"{name}.parquet")
        else:
            table.write(f"{name}.csv", "city,click", [("a", "" if cell is None else cell) for cell in cells])
    files = {name: f"{name}.{kind}" for name in ("train", "test")}
    data = table.prepare(files=files, numeric=[], tasks=[{"name": "click", "column": "click", **rule}], max_rejects=2)
    return [None if label != label else label for label in data.split("train").labels[:, 0].tolist()]


WORDS = [None, "true", "false", "True", "FALSE", "YES", "no", "t", "F", "y", "N"]
YES = ["true", "True", "yes", "ON", "y", "other", None, "1"]
LABELS = [
    *((kind, WORDS, None, [None, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]) for kind in ("csv", "parquet")),
    ("parquet", [True, None, False], None, [1, None, 0]),
    ("csv", ["1", "0.0", None, "1.0"], None, [1, 0, None, 1]),
    *(("csv", YES, positive, [1, 1, 1, 1, 1, 0, None, 0]) for positive in (True, [True], ["paid", True])),
    ("csv", ["No", "off", "FALSE", "yes", "0"], False, [1, 1, 1, 0, 0]),
    ("parquet", [True, False, None], [True], [1, 0, None]),
    ("csv", ["true", "True", "yes"], ["true"], [1, 0, 0]),
]


@pytest.mark.parametrize(("kind", "cells", "positive", "found"), LABELS, ids=str)
def test_labels_and_positive_say_true_and_false_in_words(table, kind, cells, positive, found):
    assert labels(table, cells, kind=kind, **{} if positive is None else {"positive": positive}) == found


def test_files_of_one_table_may_write_their_labels_in_different_ways(table):
    table.write("train.csv", "city,click", [("a", "true"), ("a", "false")])
    table.write("test.csv", "city,click", [("a", 0), ("a", 1)])
    data = table.prepare(numeric=[])
    assert (data.split("train").labels.tolist(), data.split("test").labels.tolist()) == ([[1], [0]], [[0], [1]])


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["true", "false", "maybe"], "column 'click' holds 'maybe', expected true or false"),
        (["true", "false", "2"], "column 'click' holds '2', expected true or false"),
        (["1", "0", "true"], "column 'click' holds 'true', expected a number"),
    ],
)
def test_a_label_that_is_not_written_as_the_first_one_rejects_its_row(table, cells, reason):
    assert labels(table, cells) == [1, 0]
    [path] = (table.folder / "cache").glob("shop-*/rejects.parquet")
    found = pq.read_table(path).to_pylist()
    assert {(reject["line"], reject["column"], reject["reason"]) for reject in found} == {(4, "click", reason)}


def test_categories_keep_the_text_of_the_file_and_of_parquets_truth_values(table):
    table.write("train.csv", "city,price,click", [("True", 1, 0), ("true", 2, 1), ("true", 2, 1)])
    assert table.prepare().meta.vocabulary["city"] == ["<oov>", "true", "True"]
    table.parquet("t.parquet", {"city": [True, False, None], "price": [1, 2, 3], "click": [0, 1, 1]})
    found = table.prepare(files={"train": "t.parquet", "test": "t.parquet"}).meta.vocabulary["city"]
    assert found == ["<oov>", "<missing>", "false", "true"]


def test_another_spelling_of_a_truth_value_has_its_id(table):
    table.write("train.csv", "city,click", [("true", 1), ("false", 0), ("true", 0)])
    table.write("test.csv", "city,click", [(text, 0) for text in ("1", "0.0", "True", "FALSE", "yes", "")])
    data = table.prepare(numeric=[])
    assert data.meta.vocabulary["city"] == ["<oov>", "true", "false"]
    assert data.split("test").ids[:, 0].tolist() == [1, 2, 1, 2, 0, 0]


def test_spellings_that_the_train_rows_hold_stay_apart(table):
    table.write("train.csv", "city,click", [("True", 1), ("true", 0), ("0", 0)])
    table.write("test.csv", "city,click", [(text, 0) for text in ("True", "true", "1", "false")])
    vocabulary = (data := table.prepare(numeric=[])).meta.vocabulary["city"]
    assert [vocabulary[id_] for id_ in data.split("test").ids[:, 0]] == ["True", "true", "true", "0"]
