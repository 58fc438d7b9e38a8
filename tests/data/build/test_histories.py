"""Histories: the last items of a row's user, before the row's time. An oracle in plain Python says what each row may see."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.errors import DataError
from tests.data.event_logs import HISTORY, drawn, histories_of, oracle, split_log

DAY = 86_400


def test_a_history_holds_the_users_earlier_items_the_most_recent_first(log):
    log.fill([("u", "a", 1, 0), ("v", "b", 2, 0), ("u", "c", 3, 0), ("u", "d", 4, 0), ("u", "e", 5, 0), ("u", "f", 6, 0)])
    data = log.prepare()
    assert list(data.meta.fields) == ["item", "last_items[0]", "last_items[1]", "last_items[2]"]
    assert histories_of(data) == [[], [], ["a"], ["c", "a"], ["d", "c", "a"], ["e", "d", "c"]]
    log.fill([("u", "a", 1, 0), ("u", "b", 1, 0), ("u", "c", 1, 0), ("u", "d", 2, 0)])
    assert histories_of(log.prepare()) == [[], [], [], ["c", "b", "a"]], "rows of one time do not see each other"


@pytest.mark.parametrize(
    ("seed", "changes"),
    list(enumerate([{}, {"last": 1}, {"last": 40}, {"lag": 2, "unit": "s"}, {"where": "click", "lag": 1, "unit": "s"}])),
    ids=str,
)
def test_random_tables_with_many_ties_get_what_the_oracle_says(log, seed, changes):
    rows = drawn(seed, rows=300)
    for order in (np.arange(len(rows)), np.random.default_rng(0).permutation(len(rows))):
        shuffled = [rows[i] for i in order]
        log.fill(shuffled)
        wanted = oracle(shuffled, last=changes.get("last", 3), lag=changes.get("lag", 0), clicked="where" in changes)
        assert histories_of(log.with_history(**changes)) == wanted
        assert any(wanted)


def test_a_history_has_the_items_ids_and_counts_for_no_vocabulary(log):
    log.fill([("u", item, time, 0) for time, item in enumerate(["a", "b", "b", "c", "c", "c"])])
    meta = log.prepare(min_count=2).meta
    assert meta.vocabulary["item"] == meta.vocabulary["last_items[0]"] == ["<oov>", "c", "b"]
    assert meta.shared == dict.fromkeys(["last_items[0]", "last_items[1]", "last_items[2]"], "item")
    assert meta.pooled == {"last_items": {"columns": ["last_items[0]", "last_items[1]", "last_items[2]"], "pooling": "mean"}}


def test_rows_without_a_user_or_an_item_are_in_no_history(log):
    log.fill([("u", "a", 1, 0), ("u", None, 2, 0), (None, "b", 3, 0), (None, "a", 4, 0), ("u", "b", 5, 0)])
    assert histories_of(log.prepare()) == [[], ["a"], [], [], ["a"]]


@pytest.mark.parametrize("buckets", [None, 50])
def test_several_histories_of_columns_with_ids_of_their_own_or_shared_ones(log, buckets):
    rows = drawn(3)
    log.fill(rows)
    for file in ("train", "test"):
        table = pq.read_table(log.folder / f"{file}.parquet")
        pq.write_table(table.append_column("other", table["item"]), log.folder / f"{file}.parquet")
    item = "item" if buckets is None else {"column": "item", "hash_buckets": buckets}
    data = log.prepare(
        categorical=[item, {"column": "other", "same_ids_as": "item"}],
        histories=[HISTORY, {**HISTORY, "name": "others", "of": "other", "pooling": "sum"}],
        numeric=[{"column": "time", "buckets": 3}],
    )
    fields, ids = list(data.meta.fields), np.asarray(data.split("train").ids)
    assert fields == ["item", "other", *(f"{name}[{place}]" for name in ("last_items", "others") for place in range(3)), "time"]
    assert data.meta.pooled["others"]["pooling"] == "sum"
    assert (ids[:, 2:5] == ids[:, 5:8]).all()
    known = {row[1]: id_ for row, id_ in zip(rows, ids[:, 0], strict=True)}
    assert [[id_ for id_ in row if id_] for row in ids[:, 2:5].tolist()] == [[known[i] for i in row] for row in oracle(rows, last=3)]


@pytest.mark.parametrize(
    ("where", "column", "events"),
    [
        ("click", [1, 0, None, 1], ["d", "a"]),
        ({"column": "kind", "positive": ["buy", "view"]}, ["view", "", None, "buy"], ["d", "a"]),
        ({"column": "kind", "threshold": 2}, [2.5, 1.0, None, 2.0], ["d", "a"]),
        ({"column": "kind"}, [True, False, None, True], ["d", "a"]),
    ],
)
def test_where_counts_rows_in_which_its_event_is_known_to_have_happened(log, where, column, events):
    log.fill([("u", item, time, 0) for time, item in enumerate("abcd")] + [("u", "e", 9, 0)])
    for file in ("train", "test"):
        table = pq.read_table(log.folder / f"{file}.parquet")
        cells = pa.array(([*column, None] * 2)[: len(table)])
        table = table.append_column("kind", cells) if where != "click" else table.set_column(3, "clicked", cells)
        pq.write_table(table, log.folder / f"{file}.parquet")
    data = log.with_history(where=where)
    assert histories_of(data)[-1] == events


@pytest.mark.parametrize("kind", ["numbers", "milliseconds", "times", "text"])
def test_an_event_is_seen_only_when_the_lag_has_passed(log, kind):
    seconds = [0, DAY - 1, DAY, DAY + 1, 2 * DAY + 1]
    cells = {
        "numbers": seconds,
        "milliseconds": [1000 * second for second in seconds],
        "times": [pd.Timestamp(second, unit="s", tz="Europe/Berlin") for second in seconds],
        "text": [pd.Timestamp(second, unit="s").isoformat() for second in seconds],
    }[kind]
    log.fill([("u", item, time, 0) for item, time in zip("abcde", cells, strict=True)])
    log.fill([("tester", "a", cells[0], 0)], "test.parquet")
    unit = {"unit": "ms"} if kind == "milliseconds" else {}
    assert histories_of(log.with_history(lag=DAY, **unit)) == [[], [], [], ["a"], ["c", "b", "a"]]


def test_users_and_columns_may_have_any_name(log):
    names = {"user": "ü ser'\"", "time": "select", "item": "item"}
    log.fill([("ü", "a", 1, 0), ("ü", "b", 2, 0), ("u", "b", 3, 0)])
    for file in ("train", "test"):
        table = pq.read_table(log.folder / f"{file}.parquet")
        pq.write_table(table.rename_columns([names.get(name, name) for name in table.column_names]), log.folder / f"{file}.parquet")
    data = log.with_history(name="möre/..", by=names["user"], time="select")
    assert histories_of(data, name="möre/..") == [[], ["a"], []]


SPLITS = {
    "time": {"split": {"time": "time", "valid": 0.1, "test": 0.2}},
    "user": {"split": {"hash": "user", "valid": 0.2, "test": 0.2}},
    "item": {"split": {"hash": "item", "valid": 0.2, "test": 0.2}},
    "time, drawn validation rows": {"split": {"time": "time", "test": 0.2}},
    "drawn test rows": {"files": {"all": "all.parquet", "test_fraction": 0.3}},
}


@pytest.mark.parametrize("split", SPLITS)
def test_labels_of_held_out_rows_do_not_get_into_train_rows(log, split):
    """Which is so where no train row comes after a row of its user that is held out: a split by time, and one by the user."""
    changes = split_log(log, SPLITS[split]) | {"valid_fraction": 0.1}
    if split in ("time", "user"):
        assert any(histories_of(log.prepare(**changes)))
        return
    with pytest.raises(DataError, match=r"shows labels of validation and test rows .*`where` reads a label, and \d+ train rows .* Cut the"):
        log.prepare(**changes)
    assert any(histories_of(log.prepare(**changes | {"histories": [HISTORY]}))), "the items alone say nothing of a label"


def test_data_on_which_a_run_is_only_tested_may_be_split_in_any_way(log):
    encoding = log.prepare(**split_log(log, SPLITS["time"])).meta.encoding
    data = log.prepare(encoding=encoding, **split_log(log, SPLITS["drawn test rows"]))
    assert any(histories_of(data, "test"))
