"""Histories that would show a model labels of rows on which it is tested, that no table can give, or that make no sense, are refused."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import Encoder
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


def test_data_on_which_a_run_is_only_tested_may_be_split_in_any_way(log):
    encoding = log.prepare(**split_log(log, SPLITS["time"])).meta.encoding
    data = log.prepare(encoding=encoding, **split_log(log, SPLITS["drawn test rows"]))
    assert any(histories_of(data, "test"))


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
