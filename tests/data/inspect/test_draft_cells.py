"""What a draft makes of columns by the words of their names and by what their cells look like."""

from decimal import Decimal

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


EVENTS = ["add_to_cart", "addToCart", "hasOrdered", "IsPaid", "is_installed", "booking_bool"]


@pytest.mark.parametrize("name", [*EVENTS, "installments", "notebook", "premium"])
def test_an_event_is_known_by_the_words_of_its_name(tmp_path, name):
    assert drafted_columns(draft(tmp_path, **{name: [0, 0, 0, 1] * (ROWS // 4)}))[name] == (EVENT if name in EVENTS else {})


CELLS = {
    "order_id": ([row if row % 10 == 0 else None for row in range(ROWS)], "every row another"),
    "coupon": (["x", None] * (ROWS // 2), {}),
    "price": ([f"{1000 + row % 50 * 7:,}.50" for row in range(ROWS)], {}),
    "tags": (["1,2", "3,14", "5"] * (ROWS // 3) + ["1"], {"max_values": 2, "separator": ","}),
    "payment": (["n", "1"] * (ROWS // 2), {}),
    "ad_hash": ([2**60 + row % 90 * 12345 if row % 5 == 0 else 0 for row in range(ROWS)], {}),
    "views": ([row * 5 % 301 for row in range(ROWS - 1)] + [2**63 - 1], {"dense": "log1p"}),
    "shop": ([b"x", b"y"] * (ROWS // 2), "bytes; where they are text, name it in categorical"),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_column_is_what_its_cells_look_like(tmp_path, name):
    cells, found = CELLS[name]
    assert drafted_columns(draft(tmp_path, **{name: cells}))[name] == found


@pytest.mark.parametrize(
    "cells",
    [["AT&amp;T", "H&amp;M", "M&amp;S", "Shell"], ["9:41;x", "8:05;y", "7:07;z", "6"], ["a;b", "a"]],
    ids=["HTML entities", "values that never come again", "a single cell"],
)
def test_a_separator_without_evidence_of_lists_cuts_none(tmp_path, cells):
    assert drafted_columns(draft(tmp_path, company=[cells[row % len(cells)] for row in range(ROWS)]))["company"] == {}


def test_texts_that_hold_durations_are_asked_about(tmp_path):
    text = draft(tmp_path, stay=[f"{row % 9} days 01:30:00" for row in range(ROWS)], size=[f"{row % 9} litres" for row in range(ROWS)])
    assert [line.split('"')[1] for line in text.splitlines() if "durations? As a number" in line] == ["stay"]


@pytest.mark.parametrize("words", [("0", "1"), ("0.0", "1.0"), ("no", "Yes"), ("false", "TRUE")])
def test_a_funnel_is_found_in_labels_of_text(tmp_path, words):
    columns = {"click": [words[row % 2] for row in range(ROWS)], "order": [words[row % 4 == 1] for row in range(ROWS)]}
    pq.write_table(pa.table({**columns, "city": ["a", "b"] * (ROWS // 2)}), tmp_path / "t.parquet")
    assert yaml.safe_load(draft_schema([str(tmp_path / "t.parquet")], tasks=["click", "order"]))["funnel"] is True


@pytest.mark.parametrize(
    "cells",
    [("0", "1"), ("0.0", "1.0"), ("no", "yes"), ("", "yes"), (Decimal(0), Decimal(1)), (0.0, 1.0)],
    ids=["text", "text of floats", "words", "a word or none", "decimals", "floats"],
)
def test_an_event_is_one_however_its_cells_are_written(tmp_path, cells):
    assert drafted_columns(draft(tmp_path, order=[cells[row % 4 == 1] for row in range(ROWS)]))["order"] == EVENT


def test_a_text_for_a_missing_cell_is_found_in_any_file_and_row(tmp_path):
    rows = [f"{row % 2},{row % 4 // 3},{row / 8}" for row in range(30_000)]
    files = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for file, lines in zip(files, (rows[:15_000], rows[15_000:]), strict=True):
        file.write_text("\n".join(["click,order,price", *lines, ""]).replace("1,1,3749.875", "1,NULL,?"))
    text = draft_schema([str(tmp_path / "*.csv")])
    assert yaml.safe_load(text)["missing_values"] == ["", "NULL", "?"]
    assert drafted_columns(text) == {"click": "label", "order": "label", "price": {"buckets": 32, "dense": "log1p"}}


def test_a_mark_beside_other_texts_is_a_category(tmp_path):
    rows = [f"{row % 2},{'SML-'[row % 4]},{row / 7 if row % 9 else '-'}" for row in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["click,size,price", *rows, ""]))
    text = draft_schema([str(tmp_path / "t.csv")])
    assert "missing_values" not in yaml.safe_load(text)
    assert drafted_columns(text)["size"] == {}


@pytest.mark.parametrize("text", ["nan", "NA", "-"])
def test_a_text_for_a_missing_code_or_decimal_is_found_however_late(tmp_path, text):
    rows = [f"{row % 2};{row % 3 if row < 25_000 else text};{row % 700},5" for row in range(30_000)]
    (tmp_path / "t.csv").write_text("\n".join(["click;code;price", *rows, ""]).replace(";699,5", f";{text}"))
    drafted = yaml.safe_load(draft_schema([str(tmp_path / "t.csv")]))
    assert drafted["missing_values"] == ["", text]
    assert drafted["csv"] == {"delimiter": ";", "decimal": ","}
    assert [one["column"] for one in drafted["categorical"] + drafted["numeric"]] == ["code", "price"]


def test_where_no_name_tells_numbers_are_labels_before_texts(tmp_path):
    columns = {"premium": ["yes", "no", "", "no"], "code": ["0", "1", "1", "0"], "y": [0, 1, 0, 1], "city": list("abcd")}
    pq.write_table(pa.table({name: cells * 99 for name, cells in columns.items()}), tmp_path / "t.parquet")
    assert [task["column"] for task in yaml.safe_load(draft_schema([str(tmp_path / "t.parquet")]))["tasks"]] == ["y"]


def test_numbers_beside_a_text_ask_whether_it_stands_for_a_missing_cell(tmp_path):
    for step in (1, 8):  # as an id that is another one in each row, and as a category
        text = draft(tmp_path, price=[f"{row // step / 8}" if row % 50 else "unknown" for row in range(ROWS)])
        assert 'numbers, except texts such as "unknown": do these stand for a missing cell?' in text
    assert "do these stand" not in draft(tmp_path, code=[f"{row % 90}" if row % 5 else "x" for row in range(ROWS)])
