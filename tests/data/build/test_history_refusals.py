"""Histories that would show a model labels of rows on which it is tested, that no table can give, or that make no sense, are refused."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import Encoder
from dcrnn_fast.data.schema.table import load_schema
from dcrnn_fast.errors import DataError
from tests.data.event_logs import HISTORY, histories_of, split_log

SPLITS = {
    "time": {"split": {"time": "time", "valid": 0.1, "test": 0.2}},
    "user": {"split": {"hash": "user", "valid": 0.2, "test": 0.2}},
    "item": {"split": {"hash": "item", "valid": 0.2, "test": 0.2}},
    "time, drawn validation rows": {"split": {"time": "time", "test": 0.2}},
    "drawn test rows": {"files": {"all": "all.parquet", "test_fraction": 0.3}},
}


@pytest.mark.parametrize("split", ["time", "user"])
def test_where_may_read_labels_if_no_train_row_comes_after_a_row_that_is_held_out(log, split):
    assert any(histories_of(log.prepare(valid_fraction=0.1, **split_log(log, SPLITS[split]))))


@pytest.mark.parametrize("split", ["item", "time, drawn validation rows", "drawn test rows"])
def test_labels_of_held_out_rows_do_not_get_into_train_rows(log, split):
    changes = split_log(log, SPLITS[split])
    said = (
        r"history 'last_items' shows labels of validation and test rows .*`where` reads a label, and \d+ train rows .* Cut the rows by time"
    )
    with pytest.raises(DataError, match=said):
        log.prepare(valid_fraction=0.1, **changes)
    data = log.prepare(valid_fraction=0.1, **changes | {"histories": [HISTORY]})
    assert any(histories_of(data)), "the items alone say nothing of a label"


def test_the_number_of_rows_that_would_see_a_label_is_exact(log):
    """Only of user u a train row comes after a positive test row: the two last ones."""
    log.fill([("u", "a", 1, 1), ("u", "a", 3, 1), ("u", "a", 4, 0), ("v", "a", 9, 1), ("w", "a", 2, 1)])
    log.fill([("u", "a", 2, 1), ("u", "a", 3, 0), ("v", "a", 9, 1), ("w", "a", 1, 0)], "test.parquet")
    with pytest.raises(DataError, match=r"and 2 train rows come after"):
        log.with_history(where="click")


def test_data_on_which_a_run_is_only_tested_may_be_split_in_any_way(log):
    encoding = log.prepare(**split_log(log, SPLITS["time"])).meta.encoding
    data = log.prepare(encoding=encoding, **split_log(log, SPLITS["drawn test rows"]))
    assert any(histories_of(data, "test"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"histories": []}, "`past` in `files` holds rows that histories alone read, and there are no `histories`"),
        ({"files": {"past": "train.parquet"}}, r"the past files and the train files name .*train\.parquet"),
    ],
)
def test_a_past_that_nothing_reads_or_that_has_another_role_is_refused(log, changes, said):
    log.fill([("u", "a", 1, 0)])
    files = {"past": "test.parquet", "train": "train.parquet", "test": "test.parquet"} | changes.get("files", {})
    with pytest.raises(DataError, match=said):
        log.prepare(**changes | {"files": files})


def test_another_length_is_another_column(log):
    log.fill([("u", "a", 1, 0), ("u", "b", 2, 0)])
    encoding = log.prepare().meta.encoding
    with pytest.raises(DataError, match="column 'last_items' is read as"):
        log.prepare(encoding=encoding, histories=[{**HISTORY, "last": 2}])


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        ([("u", "a", 1, 0)], {"time": "day"}, r"train\.parquet lacks the columns day that schema 'log' uses; it has"),
        ([("u", "a", 1, 0)], {"by": "member"}, r"train\.parquet lacks the columns member that schema 'log' uses"),
        (
            [("u", "a", 1, 0), ("u", "b", None, 0)],
            {},
            r"train\.parquet, row 2: column 'time' orders history 'last_items' and is empty; fill it",
        ),
        ([("u", "a", "soon", 0)], {}, r"train\.parquet, row 1: column 'time' is used as a time and holds 'soon', expected"),
        ([("u", "a", 10**12, 0)], {"lag": 60}, r"row 1: column 'time' holds 1000000000000\.0, .*name theirs, such as `unit: ms`"),
        ([("u", "a", 20240531, 0)], {"lag": 60}, "column 'time' holds numbers that look like dates, such as 20240531"),
        ([(None, "a", 1, 0)], {}, "history 'last_items' is empty: no row has 'item' and 'user'"),
        ([("u", "a", 1, 0)], {"where": "click"}, "history 'last_items' is empty: no row has 'item' and 'user' and an event by its `where`"),
        (
            [("u", "a", 1, 0)],
            {"where": {"column": "time"}},
            r"test\.parquet, row 2: a history's `where`: column 'time' holds 2, expected 0 and 1",
        ),
    ],
)
def test_tables_from_which_no_history_can_be_made_are_refused_in_words(log, rows, changes, said):
    log.fill(rows)
    if changes.get("where") != {"column": "time"}:
        log.fill(rows, "test.parquet")
    with pytest.raises(DataError, match=said):
        log.with_history(**changes)


def test_times_and_numbers_in_one_column_are_refused(log):
    log.fill([("u", "a", "2024-05-31", 0)])
    with pytest.raises(DataError, match=r"test\.parquet, row 1: column 'time' holds numbers from here on, and times before; write all"):
        log.prepare()


def test_a_file_may_not_hold_a_column_of_a_historys_name(log):
    log.fill([("u", "a", 1, 0)])
    table = pq.read_table(log.folder / "train.parquet")
    pq.write_table(table.append_column("last_items", table["item"]), log.folder / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet has the columns last_items, which schema 'log' derives"):
        log.prepare()


def test_text_where_rows_in_memory_or_a_csv_file_should_hold_a_list_is_refused_with_what_a_history_can_have(log):
    log.fill([("u", "a", 1, 0), ("u", "b", 2, 0)])
    encoder = Encoder.load(log.prepare().path)
    said = (
        r"column 'last_items' holds text, and its field has several values; give lists, as Parquet files hold them, or, if the schema has"
    )
    with pytest.raises(DataError, match=said):
        encoder.encode({"item": ["a"], "last_items": ["a|b"]})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"last": 0}, r"histories\.0\.last: got 0"),
        ({"last": 1001}, r"histories\.0\.last: got 1001"),
        ({"last": True}, r"histories\.0\.last: got True"),
        ({"lag": -1}, r"histories\.0\.lag: got -1"),
        ({"lag": float("inf")}, r"histories\.0\.lag: got inf"),
        ({"lag": True}, r"histories\.0\.lag: got True"),
        ({"unit": "ms"}, "history 'last_items': `unit` says what numbers in `time` count where there is a `lag`, and there is none"),
        ({"unit": "h", "lag": 1}, r"histories\.0\.unit: got 'h'"),
        ({"pooling": "max"}, r"histories\.0\.pooling: got 'max'"),
        ({"of": "user"}, "history 'last_items': `of` names 'user', which is no categorical column; expected one of item"),
        ({"of": "tags"}, "history 'last_items': `of` names 'tags', which has several values a row; expected one of item"),
        ({"where": "order"}, "history 'last_items': `where` names the task 'order', expected one of click; or give a rule"),
        ({"where": 3}, r"histories\.0\.where.*got 3"),
        (
            {"where": {"column": "kind", "threshold": 1, "positive": ["a"]}},
            "a history's `where`: `positive` and `threshold` exclude each other",
        ),
        ({"where": {"column": "kind", "positives": ["a"]}}, r"unknown key 'positives'; the known keys are column, positive, threshold"),
        ({"name": "item"}, "field named twice: item"),
        ({"name": "user"}, "history 'user' has the name of a column that the schema reads"),
        ({"name": "hour"}, "history 'hour' has the name of a column that the schema reads or derives"),
        ({"by": "clicked"}, "column 'clicked' is a label and cannot be a feature"),
        ({"time": "clicked"}, "column 'clicked' is a label and cannot be a feature"),
        ({"until": 3}, r"unknown key 'until'; the known keys are name, of, by, time, last, where, lag, unit, pooling"),
    ],
)
def test_histories_that_make_no_sense_are_refused_in_words(log, changes, said):
    path = log.save(
        categorical=["item", {"column": "tags", "max_values": 2}],
        group="hour",
        derived=[{"name": "hour", "column": "time", "as": "hour"}],
        histories=[HISTORY | changes],
    )
    with pytest.raises(DataError, match=rf"log\.yaml.*({said})"):
        load_schema(path)


def test_two_histories_of_one_name_are_refused(log):
    with pytest.raises(DataError, match="field named twice: last_items"):
        load_schema(log.save(histories=[HISTORY, dict(HISTORY)]))
