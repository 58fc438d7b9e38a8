"""What a draft makes of columns by the words of their names and by what their cells look like."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dcrnn_fast.data import draft_schema

from .test_draft import drafted_columns

ROWS = 400
EVENT = "a label? As a feature it would tell the events"


def draft(tmp_path, **columns):
    """The draft of clicks beside these columns."""
    pq.write_table(pa.table({"click": [0, 1] * (ROWS // 2), "city": ["a", "b", "c", "d"] * (ROWS // 4), **columns}), tmp_path / "t.parquet")
    return draft_schema([str(tmp_path / "t.parquet")], tasks=["click"])


@pytest.mark.parametrize("name", ["add_to_cart", "addToCart", "hasOrdered", "IsPaid", "is_installed", "booking_bool"])
def test_an_event_is_known_by_the_words_of_its_name_however_they_are_joined(tmp_path, name):
    assert drafted_columns(draft(tmp_path, **{name: [0, 0, 0, 1] * (ROWS // 4)}))[name] == EVENT


@pytest.mark.parametrize("name", ["installments", "notebook", "premium"])
def test_other_words_make_a_field(tmp_path, name):
    assert drafted_columns(draft(tmp_path, **{name: [0, 0, 0, 1] * (ROWS // 4)}))[name] == {}


def test_an_id_that_few_rows_have_and_each_another_is_left_out(tmp_path):
    found = drafted_columns(
        draft(tmp_path, order_id=[row if row % 10 == 0 else None for row in range(ROWS)], coupon=["x", None] * (ROWS // 2))
    )
    assert (found["order_id"], found["coupon"]) == ("every row another", {})


def test_a_comma_that_marks_thousands_cuts_no_list(tmp_path):
    numbers = [f"{1000 + row % 50 * 7:,}.50" for row in range(ROWS)]
    found = drafted_columns(draft(tmp_path, price=numbers, tags=["1,2", "3,14", "5"] * (ROWS // 3) + ["1"]))
    assert (found["price"], found["tags"]) == ({}, {"max_values": 2, "separator": ","})


def test_a_column_of_bytes_says_how_to_read_it(tmp_path):
    assert drafted_columns(draft(tmp_path, shop=[b"x", b"y"] * (ROWS // 2)))["shop"] == "bytes; where they are text, name it in categorical"


@pytest.mark.parametrize("words", [("0", "1"), ("0.0", "1.0"), ("no", "Yes"), ("false", "TRUE")])
def test_a_funnel_is_found_in_labels_of_text(tmp_path, words):
    columns = {"click": [words[row % 2] for row in range(ROWS)], "order": [words[row % 4 == 1] for row in range(ROWS)]}
    pq.write_table(pa.table({**columns, "city": ["a", "b"] * (ROWS // 2)}), tmp_path / "t.parquet")
    assert yaml.safe_load(draft_schema([str(tmp_path / "t.parquet")], tasks=["click", "order"]))["funnel"] is True
