"""Histories: the last items of a row's user, before the row's time. A slow oracle in plain Python says what each row may see."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dcrnn_fast.data import Encoder, data_report, histories, prepare, row_files, staged
from dcrnn_fast.data.schema import load_schema
from dcrnn_fast.errors import DataError

HISTORY = {"name": "last_items", "of": "item", "by": "user", "time": "time", "last": 3}
CLICKED = {**HISTORY, "where": "click"}
DAY = 86_400


class Log:
    """A table of events in Parquet files, with a history in its schema."""

    def __init__(self, table):
        self.folder = table.folder
        self.schema = {
            "name": "log",
            "files": {"train": "train.parquet", "test": "test.parquet"},
            "categorical": ["item"],
            "histories": [HISTORY],
            "tasks": [{"name": "click", "column": "clicked"}],
            "min_count": 1,
        }

    def fill(self, rows, file="train.parquet"):
        """Write rows of (user, item, time, clicked); a user or an item may be None."""
        columns = zip(*rows, strict=True) if rows else ([] for _ in range(4))
        kinds = {"user": pa.string(), "item": pa.string(), "time": None, "clicked": pa.int8()}
        arrays = [pa.array(list(column), kind) for column, kind in zip(columns, kinds.values(), strict=True)]
        pq.write_table(pa.table(arrays, names=list(kinds)), self.folder / file)

    def save(self, **changes):
        path = self.folder / "log.yaml"
        path.write_text(yaml.safe_dump(self.schema | changes))
        return path

    def prepare(self, *, valid_fraction=0.0, encoding=None, **changes):
        return prepare(self.save(**changes), cache_dir=self.folder / "cache", valid_fraction=valid_fraction, encoding=encoding)

    def with_history(self, **changes):
        return self.prepare(histories=[HISTORY | changes])


@pytest.fixture
def log(table):
    log = Log(table)
    log.fill([("tester", "a", 1, 0), ("tester", "b", 2, 1)], "test.parquet")
    return log


def drawn(seed, rows=150, users=4, items=6, moments=12):
    """Rows with many ties in time, of a few users and items of which some are missing."""
    draw = np.random.default_rng(seed)

    def names(letter, count):
        return [None if draw.random() < 0.1 else f"{letter}{number}" for number in draw.integers(0, count, rows)]

    return list(
        zip(names("u", users), names("i", items), draw.integers(0, moments, rows).tolist(), draw.integers(0, 2, rows).tolist(), strict=True)
    )


def oracle(rows, *, last, lag=0, clicked=False):
    """The items that each row may see, the most recent first: its user's earlier ones; of one time, the later row is more recent."""
    seen = []
    for user, _, time, _ in rows:
        past = [
            (row[2], number, row[1])
            for number, row in enumerate(rows)
            if user is not None and row[0] == user and row[1] is not None and row[2] + lag < time and (row[3] or not clicked)
        ]
        seen.append([item for *_, item in sorted(past, reverse=True)[:last]])
    return seen


def histories_of(data, split="train", name="last_items"):
    """The items that the ids say, of every row; an item that is out of vocabulary is <oov>."""
    columns = [position for position, column in enumerate(data.meta.fields) if column in data.meta.pooled[name]["columns"]]
    vocabulary = np.array([*data.meta.vocabulary["item"], None], object)
    return [[vocabulary[i] for i in row if i] for row in np.asarray(data.split(split).ids)[:, columns]]


def test_a_history_holds_the_users_earlier_items_the_most_recent_first(log):
    log.fill([("u", "a", 1, 0), ("v", "b", 2, 0), ("u", "c", 3, 0), ("u", "d", 4, 0), ("u", "e", 5, 0), ("u", "f", 6, 0)])
    data = log.prepare()
    assert list(data.meta.fields) == ["item", "last_items[0]", "last_items[1]", "last_items[2]"]
    assert histories_of(data) == [[], [], ["a"], ["c", "a"], ["d", "c", "a"], ["e", "d", "c"]]


def test_rows_of_one_time_do_not_see_each_other_and_the_later_one_is_the_more_recent(log):
    log.fill([("u", "a", 1, 0), ("u", "b", 1, 0), ("u", "c", 1, 0), ("u", "d", 2, 0)])
    assert histories_of(log.prepare()) == [[], [], [], ["c", "b", "a"]]


@pytest.mark.parametrize(
    ("seed", "changes"),
    list(enumerate([{}, {"last": 1}, {"last": 40}, {"lag": 2, "unit": "s"}, {"where": "click", "lag": 1, "unit": "s"}])),
    ids=str,
)
def test_random_tables_with_many_ties_get_what_the_oracle_says(log, seed, changes):
    rows = drawn(seed, rows=300)
    log.fill(rows)
    wanted = oracle(rows, last=changes.get("last", 3), lag=changes.get("lag", 0), clicked="where" in changes)
    assert histories_of(log.with_history(**changes)) == wanted
    assert any(wanted)


def items_of_the_present_or_future(data, rows):
    """Items in histories of rows that are not later; every item is that of one row alone."""
    times = {item: time for _, item, time, _ in rows}
    return [(row, item) for row, items in zip(rows, histories_of(data), strict=True) for item in items if times[item] >= row[2]]


def test_no_history_holds_an_item_of_the_present_or_the_future(log):
    rows = [(user or "u", f"i{number}", time, click) for number, (user, _, time, click) in enumerate(drawn(0))]
    log.fill(rows)
    assert items_of_the_present_or_future(log.with_history(last=100), rows) == []


def test_negative_control_an_order_in_which_rows_see_their_own_time_is_found(log, monkeypatch):
    """With <= in the place of <: events stand before the rows of their time that ask."""
    rows = [(user or "u", f"i{number}", time, click) for number, (user, _, time, click) in enumerate(drawn(0))]
    log.fill(rows)
    monkeypatch.setattr(histories, "_IN_ORDER", histories._IN_ORDER.replace('event, "time"', 'event DESC, "time"'))
    data = log.with_history(last=100)
    assert items_of_the_present_or_future(data, rows)
    assert histories_of(data) != oracle(rows, last=100)


def test_files_in_any_order_and_batches_of_any_size_give_the_same_bits_where_times_differ(log, monkeypatch):
    draw = np.random.default_rng(0)
    rows = [(f"u{draw.integers(5)}", f"i{draw.integers(9)}", int(time), 0) for time in draw.permutation(200)]
    seen = {}
    for name, order in {"in time": np.argsort([row[2] for row in rows]), "shuffled": draw.permutation(200)}.items():
        for part, chosen in enumerate(np.array_split(order, 3)):
            log.fill([rows[i] for i in chosen], f"{name}-{part}.parquet")
        data = log.prepare(files={"train": f"{name}-*.parquet", "test": "test.parquet"})
        seen[name] = dict(zip(order.tolist(), histories_of(data), strict=True))
    monkeypatch.setattr(row_files, "BATCH_ROWS", 7)
    monkeypatch.setattr(staged, "MAPPED_TEXTS", 5)
    monkeypatch.setattr(histories, "_ENTRIES_AT_ONCE", 3)
    small = prepare(log.save(files={"train": "shuffled-*.parquet", "test": "test.parquet"}), cache_dir=log.folder / "2", valid_fraction=0.0)
    assert seen["in time"] == seen["shuffled"]
    assert (small.path / "train.ids.npy").read_bytes() == (data.path / "train.ids.npy").read_bytes()


def test_the_order_of_rows_of_one_time_shows_no_row_another(log):
    rows = drawn(1)
    for order in (np.arange(len(rows)), np.random.default_rng(0).permutation(len(rows))):
        shuffled = [rows[i] for i in order]
        log.fill(shuffled)
        assert histories_of(log.prepare()) == oracle(shuffled, last=3)


def test_csv_files_give_the_bits_of_parquet_files(log):
    rows = drawn(2)
    log.fill(rows)
    parquet = log.prepare()
    for name in ("train", "test"):
        pd.read_parquet(log.folder / f"{name}.parquet").to_csv(log.folder / f"{name}.csv", index=False)
    csv = log.prepare(files={"train": "train.csv", "test": "test.csv"})
    assert csv.split("train").ids.tobytes() == parquet.split("train").ids.tobytes()


def test_a_row_sees_earlier_rows_of_every_file_and_split(log):
    log.fill([("u", "a", 1, 0), ("u", "b", 5, 0)])
    log.fill([("u", "a", 3, 0), ("u", "b", 6, 0)], "valid.parquet")
    log.fill([("u", "b", 2, 0), ("u", "new", 7, 0), ("u", "a", 8, 0)], "test.parquet")
    data = log.prepare(files={split: f"{split}.parquet" for split in ("train", "valid", "test")})
    assert histories_of(data, "train") == [[], ["a", "b", "a"]]
    assert histories_of(data, "valid") == [["b", "a"], ["b", "a", "b"]]
    assert histories_of(data, "test") == [["a"], ["b", "b", "a"], ["b", "b"]], "`new` is no item of train, and takes a place"
    assert np.asarray(data.split("test").ids)[2].tolist()[1] == 0


def test_a_history_has_the_items_ids_and_its_values_count_for_no_vocabulary(log):
    log.fill([("u", item, time, 0) for time, item in enumerate(["a", "b", "b", "c", "c", "c"])])
    meta = log.prepare(min_count=2).meta
    assert meta.vocabulary["item"] == meta.vocabulary["last_items[0]"] == ["<oov>", "c", "b"]
    assert meta.shared == dict.fromkeys(["last_items[0]", "last_items[1]", "last_items[2]"], "item")
    assert meta.pooled == {"last_items": {"columns": ["last_items[0]", "last_items[1]", "last_items[2]"], "pooling": "mean"}}


def test_rows_without_a_user_have_no_history_and_those_without_an_item_take_no_place(log):
    log.fill([("u", "a", 1, 0), ("u", None, 2, 0), (None, "b", 3, 0), (None, "a", 4, 0), ("u", "b", 5, 0)])
    assert histories_of(log.prepare()) == [[], ["a"], [], [], ["a"]]


@pytest.mark.parametrize("buckets", [None, 50])
def test_several_histories_of_columns_with_ids_of_their_own_or_shared_ones(log, buckets):
    rows = drawn(3)
    log.fill(rows)
    table = pq.read_table(log.folder / "train.parquet")
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


def split_log(log, changes, rows=300):
    draw = np.random.default_rng(0)
    users, items = ([f"{letter}{number}" for number in draw.integers(0, count, rows)] for letter, count in (("u", 20), ("i", 10)))
    log.fill(list(zip(users, items, range(rows), draw.integers(0, 2, rows).tolist(), strict=True)), "all.parquet")
    return {"files": {"all": "all.parquet"}, "histories": [CLICKED]} | changes


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


def test_rows_in_memory_hold_the_history_as_a_list_and_get_the_bits_of_prepare(log):
    rows = drawn(4)
    log.fill(rows)
    data = log.prepare(min_count=20)
    encoder = Encoder.load(data.path)
    assert encoder.columns == ("item", "last_items")
    table = {"item": [row[1] for row in rows], "last_items": oracle(rows, last=3)}
    assert np.array_equal(encoder.encode(table).ids, data.split("train").ids)
    assert 0 in np.asarray(data.split("train").ids)[:, 0], "no rare item"


def test_a_log_that_holds_the_lists_itself_is_encoded_alike(log):
    rows = drawn(5)
    log.fill(rows)
    data = log.prepare()
    with_lists = pq.read_table(log.folder / "train.parquet").append_column("last_items", pa.array(oracle(rows, last=3)))
    pq.write_table(with_lists, log.folder / "lists.parquet")
    lists = {"column": "last_items", "max_values": 3, "same_ids_as": "item"}
    files = {"train": "lists.parquet", "test": "lists.parquet"}
    other = log.prepare(encoding=data.meta.encoding, files=files, categorical=["item", lists], histories=[])
    assert other.split("test").ids.tobytes() == data.split("train").ids.tobytes()
    assert other.meta.encoding == data.meta.encoding


def test_the_history_of_another_table_begins_with_that_table(log):
    log.fill([("u", "a", 1, 0), ("u", "b", 2, 0)])
    encoding = log.prepare().meta.encoding
    log.fill([("u", "b", 3, 0), ("u", "a", 4, 0)])
    assert histories_of(log.prepare(encoding=encoding)) == [[], ["b"]]


def test_rows_of_the_past_are_seen_and_are_in_no_split(log):
    log.fill([("u", "a", 1, 1), ("u", "old", 2, 1), ("v", "b", 3, 1)], "monday.parquet")
    log.fill([("u", "b", 4, 0), ("v", "b", 5, 0), ("u", "a", 6, 0)])
    data = log.prepare(files={"past": "monday.parquet", "train": "train.parquet", "test": "test.parquet"}, histories=[CLICKED])
    assert data.meta.rows == {"train": 3, "valid": 0, "test": 2}
    assert data.meta.vocabulary["item"] == ["<oov>", "b", "a"], "what is learned comes from the train rows alone"
    assert np.asarray(data.split("train").ids)[:, 1:].tolist() == [[0, 2, 0], [1, 0, 0], [0, 2, 0]]


@pytest.mark.parametrize(
    "changes",
    [
        {"split": {"time": "time", "valid": 0.1, "test": 0.2}},
        {"split": {"hash": "user", "valid": 0.2, "test": 0.2}},
        {"files": {"test_fraction": 0.3}},
        {"files": {"split_column": "part"}},
    ],
    ids=["time", "hash", "drawn", "column"],
)
def test_the_past_changes_no_split(log, changes):
    changes = split_log(log, changes) | {"histories": [HISTORY]}
    table = pq.read_table(log.folder / "all.parquet")
    parts = ["train", "valid", "test"] * len(table)
    pq.write_table(table.append_column("part", pa.array(parts[: len(table)])), log.folder / "all.parquet")
    pq.write_table(table[:50].append_column("part", pa.array(["earlier"] * 50)), log.folder / "past.parquet")
    files = {"all": "all.parquet"} | changes["files"]
    alone, behind = (log.prepare(valid_fraction=0.1, **changes | {"files": files | past}) for past in ({}, {"past": "past.parquet"}))
    assert behind.meta.rows == alone.meta.rows
    for split in alone.splits:
        assert (np.asarray(behind.split(split).ids)[:, 0] == np.asarray(alone.split(split).ids)[:, 0]).all()
        assert behind.split(split).labels.tobytes() == alone.split(split).labels.tobytes()


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


def test_the_report_knows_the_field(log):
    log.fill(drawn(6, rows=300))
    report = data_report(log.prepare(files={"train": "train.parquet", "test": "train.parquet"}))
    assert list(report["fields"]) == ["item", "last_items"]
    assert report["fields"]["last_items"]["kind"] == "categorical"
    assert not [line for line in report["warnings"] if "last_items" in line]
    assert json.dumps(report, allow_nan=False)


def test_a_table_without_rows_in_a_file_and_one_of_a_single_row_are_read(log):
    log.fill([("u", "a", 1, 0)])
    log.fill([], "test.parquet")
    data = log.prepare()
    assert data.split("train").ids.tolist() == [[1, 0, 0, 0]]
    assert data.meta.rows["test"] == 0


def test_users_and_columns_may_have_any_name(log):
    names = {"user": "ü ser'\"", "time": "select", "item": "item"}
    log.fill([("ü", "a", 1, 0), ("ü", "b", 2, 0), ("u", "b", 3, 0)])
    for file in ("train", "test"):
        table = pq.read_table(log.folder / f"{file}.parquet")
        pq.write_table(table.rename_columns([names.get(name, name) for name in table.column_names]), log.folder / f"{file}.parquet")
    data = log.with_history(name="möre/..", by=names["user"], time="select")
    assert histories_of(data, name="möre/..") == [[], ["a"], []]


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"last": 0}, r"histories\.0\.last: got 0"),
        ({"last": 1001}, r"histories\.0\.last: got 1001"),
        ({"last": True}, r"histories\.0\.last: got True"),
        ({"lag": -1}, r"histories\.0\.lag: got -1"),
        ({"lag": float("inf")}, r"histories\.0\.lag: got inf"),
        ({"lag": True}, r"histories\.0\.lag: got True"),
        ({"unit": "ms"}, "history 'last_items': `unit` says what a `lag` is counted in"),
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


def test_the_second_row_of_each_pair_sees_the_first_whatever_chunk_it_is_in(log, monkeypatch):
    """Users of two rows each: every chunk ends behind some user's first row."""
    monkeypatch.setattr(histories, "_ENTRIES_AT_ONCE", 3)
    log.fill(list(itertools.chain.from_iterable([(f"u{n}", f"i{n}", 1, 0), (f"u{n}", "x", 2, 0)] for n in range(60))))
    assert histories_of(log.prepare()) == [items for n in range(60) for items in ([], [f"i{n}"])]
