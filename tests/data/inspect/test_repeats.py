"""Columns that say nothing new: nearly unique ones, and those that another one determines one to one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dcrnn_fast.data import data_report, draft_schema
from dcrnn_fast.data.inspect import sample
from dcrnn_fast.data.inspect.repeats import NEARLY_UNIQUE, one_to_one

from .test_data_report import packed
from .test_draft import drafted_columns

ROWS = 2000
DRAWN = np.random.default_rng(0)
ITEM, SESSION = DRAWN.integers(1, 101, ROWS), DRAWN.integers(1, 1800, ROWS)
TITLE = 101 - ITEM
SAME = "field 'title' says the same as field 'item_id', one to one; leave one of them out"
UNIQUE = "field 'session_id' is nearly unique: it groups the rows and is not a feature; leave it out"


def draft(tmp_path, **columns):
    pq.write_table(pa.table({"click": [0, 1] * (ROWS // 2), "city": ["a", "b"] * (ROWS // 2), **columns}), tmp_path / "t.parquet")
    return draft_schema([str(tmp_path / "t.parquet")])


def test_a_nearly_unique_session_is_the_group_and_no_field(tmp_path):
    text = draft(tmp_path, session_id=SESSION)
    assert (drafted_columns(text)["session_id"], yaml.safe_load(text)["group"]) == (NEARLY_UNIQUE, "session_id")
    assert drafted_columns(draft(tmp_path, user_id=SESSION // 3))["user_id"] == {}, "users of a few rows each"


@pytest.mark.parametrize(("users", "found"), [(50, {}), (51, NEARLY_UNIQUE)])
def test_at_most_50_ids_are_a_field_however_few_rows_have_them(tmp_path, users, found):
    user = pa.array(np.arange(ROWS) % users, mask=np.arange(ROWS) >= 60)
    assert drafted_columns(draft(tmp_path, user_id=user))["user_id"] == found


def test_a_draft_says_which_column_an_id_determines(tmp_path):
    lines = draft(tmp_path, title=[f"t{title}" for title in TITLE], item_id=ITEM).splitlines()
    assert [line.split('"')[1] for line in lines if line.endswith(': "item_id" says the same')] == ["title"]


def test_ids_that_the_first_rows_hold_once_may_come_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "SAMPLE_ROWS", ROWS // 2)
    text = draft(tmp_path, session_id=SESSION)
    assert drafted_columns(text)["session_id"] == {}
    assert ": nearly unique in these rows; is it so in all?\n" in text


@pytest.mark.parametrize(
    ("title", "found"),
    [
        (TITLE, True),
        (TITLE // 2 + 1, False),
        (np.where(ITEM < 60, TITLE, 0), False),
        (np.where(np.arange(ROWS) == 1501, TITLE % 100 + 1, TITLE), False),
    ],
    ids=str,
)
def test_one_to_one_is_so_both_ways_and_in_nearly_all_rows(title, found):
    assert one_to_one({"item": ITEM, "title": title}) == ({"title": "item"} if found else {})
    assert one_to_one({"item": np.where(DRAWN.random(ROWS) < 0.05, 0, ITEM), "title": TITLE}) == {"title": "item"}, "missing cells"


def report(columns, *, size=2000, **meta):
    """The warnings about fields of these ids, of which 1 is a missing cell."""
    ids = np.stack(list(columns.values()), 1)
    fields = {field: ["<oov>", "<missing>", *map(str, range(2, size))] for field in columns}
    data = packed({"train": {"ids": ids, "labels": np.arange(ROWS) % 2}}, fields=fields)
    for key, value in meta.items():
        object.__setattr__(data.meta, key, value)
    return data_report(data)["warnings"]


def test_the_report_warns_of_columns_that_say_nothing_new():
    assert report({"item_id": ITEM, "title": TITLE, "session_id": SESSION}) == [UNIQUE, SAME]
    assert report({"session_id": np.where(np.arange(ROWS) % 2, SESSION, 1)}) == [UNIQUE], "missing cells hide it"


def test_ids_of_several_fields_or_values_are_not_judged_apart():
    assert report({"session_id": SESSION, "last_session": SESSION}, shared={"last_session": "session_id"}) == []
    pooled = {"items": {"columns": ["item_id", "session_id"], "pooling": "mean"}}
    assert report({"item_id": ITEM, "session_id": SESSION}, pooled=pooled, shared={"session_id": "item_id"}) == []
