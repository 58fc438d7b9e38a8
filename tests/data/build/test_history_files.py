"""Histories of several files, splits and batches, of rows of the past, of other tables and of rows in memory."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import Encoder, prepare
from dcrnn_fast.data.build import histories
from dcrnn_fast.data.build import staging as staged
from dcrnn_fast.data.read import row_files
from tests.data.event_logs import CLICKED, HISTORY, drawn, histories_of, oracle, split_log


def test_files_in_any_order_and_batches_of_any_size_give_the_same_bits(log, monkeypatch):
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


def test_a_row_sees_earlier_rows_of_every_file_and_split(log):
    log.fill([("u", "a", 1, 0), ("u", "b", 5, 0)])
    log.fill([("u", "a", 3, 0), ("u", "b", 6, 0)], "valid.parquet")
    log.fill([("u", "b", 2, 0), ("u", "new", 7, 0), ("u", "a", 8, 0)], "test.parquet")
    data = log.prepare(files={split: f"{split}.parquet" for split in ("train", "valid", "test")})
    assert histories_of(data, "train") == [[], ["a", "b", "a"]]
    assert histories_of(data, "valid") == [["b", "a"], ["b", "a", "b"]]
    assert histories_of(data, "test") == [["a"], ["b", "b", "a"], ["b", "b"]], "`new` is no item of train, and takes a place"
    assert np.asarray(data.split("test").ids)[2].tolist()[1] == 0


def test_csv_files_and_rows_in_memory_with_lists_get_the_bits_of_parquet(log):
    rows = drawn(4)
    log.fill(rows)
    data = log.prepare(min_count=20)
    assert 0 in np.asarray(data.split("train").ids)[:, 0], "no rare item"
    for name in ("train", "test"):
        pd.read_parquet(log.folder / f"{name}.parquet").to_csv(log.folder / f"{name}.csv", index=False)
    csv = log.prepare(min_count=20, files={"train": "train.csv", "test": "test.csv"})
    assert csv.split("train").ids.tobytes() == data.split("train").ids.tobytes()
    encoder = Encoder.load(data.path)
    assert encoder.columns == ("item", "last_items")
    table = {"item": [row[1] for row in rows], "last_items": oracle(rows, last=3)}
    assert np.array_equal(encoder.encode(table).ids, data.split("train").ids)


def test_the_history_of_another_table_begins_there_and_of_one_row_is_empty(log):
    encoding = log.fill([("u", "a", 1, 0), ("u", "b", 2, 0)]).prepare().meta.encoding
    assert histories_of(log.fill([("u", "b", 3, 0), ("u", "a", 4, 0)]).prepare(encoding=encoding)) == [[], ["b"]]
    data = log.fill([("u", "a", 1, 0)]).fill([], "test.parquet").prepare()
    assert (data.split("train").ids.tolist(), data.meta.rows["test"]) == ([[1, 0, 0, 0]], 0)


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
    ids=str,
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
