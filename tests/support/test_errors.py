"""Errors say where a table is at fault, and what they say may go to a terminal."""

import copy
import pickle

import pytest

from dcrnn_fast.errors import ConfigError, DataError, did_you_mean


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({}, "holds 3"),
        ({"column": "x"}, "column 'x' holds 3"),
        ({"table": "log.csv"}, "log.csv holds 3"),
        ({"table": "log.csv", "column": "x"}, "log.csv: column 'x' holds 3"),
        ({"table": "log.csv", "row": 1200}, "log.csv, row 1,200: holds 3"),
        ({"table": "log.csv", "row": 1200, "column": "x"}, "log.csv, row 1,200: column 'x' holds 3"),
    ],
)
def test_a_data_error_says_where_it_is(place, said):
    error = DataError("holds 3", **place)
    assert str(error) == said
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 (its own bytes)
        assert str(copied) == said
    if place.get("row"):
        error.table, error.row = "X", 2007  # a caller names them otherwise
        assert str(error).startswith("X, row 2,007: ")


@pytest.mark.parametrize("kind", [ConfigError, DataError])
def test_control_characters_are_escaped_but_for_the_ends_of_lines(kind):
    assert str(kind("a\x1b[2Jb\r\x9b\nc\u202e")) == "a\\x1b[2Jb\\r\\x9b\nc\\u202e"


def test_a_name_that_is_not_near_is_not_proposed():
    assert did_you_mean("price", ["is_prime", "city"]) == ""
    assert did_you_mean("prices", ["is_prime", "price"]) == "; did you mean 'price'?"
