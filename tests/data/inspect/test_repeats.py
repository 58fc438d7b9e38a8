"""Columns that say nothing new: nearly unique ones, and those that another one determines one to one."""

import numpy as np
import pytest

from dcrnn_fast.data import data_report
from dcrnn_fast.data.inspect.repeats import nearly_unique, one_to_one

from .test_data_report import packed

ROWS = 2000
DRAWN = np.random.default_rng(0)
ITEM, SESSION = DRAWN.integers(1, 101, ROWS), DRAWN.integers(1, 1800, ROWS)
TITLE = 101 - ITEM
SAME = "field 'title' says the same as field 'item_id', one to one; leave one of them out"
UNIQUE = "field 'session_id' is nearly unique: it groups the rows and is no feature; leave it out"


@pytest.mark.parametrize(("title", "found"), [(TITLE, True), (TITLE // 2 + 1, False), (np.where(ITEM < 60, TITLE, 0), False)])
def test_one_to_one_is_so_both_ways_and_in_nearly_all_rows(title, found):
    assert one_to_one({"item": ITEM, "title": title}) == ({"title": "item"} if found else {})


def test_one_to_one_leaves_missing_cells_aside():
    assert one_to_one({"item": np.where(DRAWN.random(ROWS) < 0.05, 0, ITEM), "title": TITLE}) == {"title": "item"}


def test_one_row_in_another_way_is_not_one_to_one():
    assert one_to_one({"item": ITEM, "title": np.where(np.arange(ROWS) == 1501, TITLE % 100 + 1, TITLE)}) == {}


def test_ids_of_which_some_are_frequent_are_not_nearly_unique():
    assert nearly_unique(np.ones(1000, int))
    assert not nearly_unique(np.append(np.ones(1000, int), [100] * 4))


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


def test_missing_cells_do_not_hide_that_ids_are_nearly_unique():
    assert report({"session_id": np.where(np.arange(ROWS) % 2, SESSION, 1)}) == [UNIQUE]


def test_ids_that_another_field_shares_count_together():
    assert report({"session_id": SESSION, "last_session": SESSION}, shared={"last_session": "session_id"}) == []


def test_fields_with_several_values_are_not_judged():
    pooled = {"items": {"columns": ["item_id", "session_id"], "pooling": "mean"}}
    assert report({"item_id": ITEM, "session_id": SESSION}, pooled=pooled, shared={"session_id": "item_id"}) == []
