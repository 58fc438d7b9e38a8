"""What is kept of the rows behind histories, and each user's last values of them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import past
from dcrnn_fast.data.schema.table import schema_of
from dcrnn_fast.errors import DataError

ROWS = {
    "user": ["u1", "u1", None, "u2", "u1"],
    "item": ["a", "b", "a", None, "c"],
    "time": [1, 2, 3, 4, 4],
    "event": ["view", "buy", "view", "buy", "buy"],
    "seconds": [5.0, 40.0, 50.0, 60.0, None],
    "click": [0, 1, 1, 1, 0],
}


def schema(**history):
    history = {"name": "last", "of": "item", "by": "user", "time": "time", "last": 2} | history
    derived = [{"name": "pair", "cross": ["item", "event"]}]
    content = {
        "name": "shop",
        "files": {"all": "rows.parquet"},
        "categorical": ["item", "pair"],
        "derived": derived,
        "histories": [history],
    }
    return schema_of(content | {"split": {"time": "time", "test": 0.2}, "tasks": [{"name": "click", "column": "click"}]}, "of a test")


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ({}, ["c", "b"]),
        ({"last": 5}, ["c", "b", "a"]),
        ({"where": "click"}, ["b"]),
        ({"where": {"column": "event", "positive": ["buy"]}}, ["c", "b"]),
        ({"where": {"column": "seconds", "threshold": 30}}, ["b"]),
        ({"lag": 1.5}, ["b", "a"]),
    ],
    ids=str,
)
def test_a_users_last_values_follow_where_and_lag(history, expected):
    made = schema(**history)
    found = past.last_values(pa.table(ROWS), made, made.histories[0])
    assert found.to_pydict() == {"user": ["u1"], "last": [expected]}


def test_a_history_of_a_derived_column_is_refused():
    made = schema(of="pair")
    with pytest.raises(DataError, match="history 'last' reads 'pair', a derived column"):
        past.last_values(pa.table(ROWS), made, made.histories[0])


def test_the_latest_rows_are_kept_in_their_order_and_other_columns_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(past, "MAX_ROWS", 3)
    pq.write_table(pa.table(ROWS).take([4, 0, 3, 1, 2]), tmp_path / "rows.parquet")
    rows = past.kept_rows(schema(), [tmp_path / "rows.parquet"])
    assert rows.to_pydict() == {"item": ["c", None, "a"], "time": [4, 4, 3], "user": ["u1", "u2", None]}


def test_rows_whose_columns_have_no_common_type_are_refused(tmp_path):
    for number, users in enumerate((["u1"], [7])):
        pq.write_table(pa.table({"user": users, "item": ["a"], "time": [1]}), tmp_path / f"{number}.parquet")
    with pytest.raises(DataError, match="give new rows the types of the earlier ones"):
        past.kept_rows(schema(), [tmp_path / "0.parquet", tmp_path / "1.parquet"])
