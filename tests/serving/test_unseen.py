"""A field that has lost the ids which it had in the train rows is said by whatever scores: once, or as an error."""

import warnings

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dcrnn_fast import Ranker
from dcrnn_fast.cli.commands import app
from dcrnn_fast.errors import DataError
from dcrnn_fast.serving import load_exported, score_files
from dcrnn_fast.serving.unseen import WINDOW

LOST = "field 'colour': 100.0% of the scored cells are out of vocabulary or missing, but 0.0% of the train cells"


@pytest.fixture(params=["run", "exported"])
def load(request, shop, exported):
    """Loads a ranker of its own."""
    path = shop / "run" if request.param == "run" else exported
    return lambda **options: (Ranker.load if request.param == "run" else load_exported)(path, **options)


def said(what, *arguments):
    """The warnings that a call gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        what(*arguments)
    return [str(one.message) for one in caught]


def lost(table):
    """The table with other texts in one column."""
    return table.assign(colour="C" + table["colour"])


def half_lost(table):
    """The table with other texts in half of a column's cells."""
    return table.assign(colour=table["colour"].where(table.index % 2 == 0, "C" + table["colour"]))


def of_few_users(table, rows):
    """The candidates of five users, two of which are new."""
    return table[: 5 * rows].assign(colour=np.repeat(["c1", "new1", "c2", "new2", "c3"], rows))


GONE = "100.0% of the scored cells are"
HALF = "field 'colour': 50.0% of the scored cells are out of vocabulary or missing, but 0.0% of the train and 0.0% of"
WARNED = {
    "other texts": (lost, LOST),
    "no cells": (lambda table: table.assign(shape=None), f"field 'shape': {GONE} out of vocabulary or missing, but 0.0% of the train"),
    "no numbers": (lambda table: table.assign(size=np.nan), f"field 'size': {GONE} missing"),
    "one new text in a table of many users": (lambda table: table.assign(colour="new"), LOST),
    "half of the cells": (half_lost, HALF),
    "every other cell of a large table": (lambda table: half_lost(pd.concat([table] * 2, ignore_index=True)[:3000]), "field 'colour': "),
    "half of the cells of a few rows": (lambda table: half_lost(table)[:500], HALF),
    "a late part of a large table": (lambda table: pd.concat([table] * 10 + [lost(table)] * 6), "field 'colour': 37.5% of the scored"),
    "a larger unit": (lambda table: table.assign(size=100 * (20 + table["size"]))[:500],
        "number 'size': 100.0% of the scored values are above 99% of the train values: compare their units"),
    "a smaller unit": (lambda table: table.assign(size=-100 * (20 + table["size"]))[:500], "number 'size': 100.0% of the scored values"),
}  # fmt: skip
QUIET = {
    "the train rows": lambda table: table,
    "the candidates of a new user": lambda table: table.assign(colour="new")[:500],
    "the candidates of a user without cells": lambda table: table[:500].assign(colour=None, size=None),
    "a fifth of the cells": lambda table: table.assign(colour=table["colour"].where(table.index % 5 > 0, "new")),
    "some new users in a small table": lambda table: of_few_users(table, 200),
    "some new users": lambda table: of_few_users(table, 240),
}


@pytest.mark.parametrize(("rows", "start"), WARNED.values(), ids=WARNED)
def test_a_field_or_number_that_lost_its_values_is_a_warning_once(load, table, rows, start):
    ranker = load()
    (line,) = said(ranker.predict, rows(table))
    assert line.startswith(start)
    assert said(ranker.predict, rows(table)) == []


@pytest.mark.parametrize("rows", QUIET.values(), ids=QUIET)
def test_what_may_be_so_by_chance_is_no_warning(load, table, rows):
    assert said(load().predict, rows(table)) == []


@pytest.mark.parametrize(
    "requests",
    [
        lambda table: (lost(table)[row : row + 1] for row in range(64)),
        lambda table: (table[:100].assign(colour=f"new{user}") for user in range(40)),
    ],
    ids=["rows", "users"],
)
def test_requests_that_come_one_by_one_are_counted_together(load, table, requests):
    ranker = load()
    lines = [line for rows in requests(table) for line in said(ranker.predict, rows)]
    assert [line.partition(": ")[0] for line in lines] == ["field 'colour'"]


def test_a_strict_ranker_refuses_the_rows_each_time(load, table):
    ranker = load(strict=True)
    for _ in range(2):
        with pytest.raises(DataError, match=r"field 'colour': 100\.0% of the scored cells"):
            ranker.predict(lost(table))
        assert said(ranker.predict, table) == [], "the rows that were refused count no more"


def test_the_user_and_the_items_of_a_ranking_are_counted(shop, table):
    ranker = Ranker.load(shop / "run")
    items = table[["shape", "size"]][:300]
    for user in range(19):
        assert said(ranker.score, {"colour": f"new{user}"}, items) == []
    assert ranker.unseen.rates()["colour"]["oov"] == 1.0
    assert ranker.unseen.rates()["shape"]["oov"] == 0.0
    lines = said(ranker.score, {"colour": "new"}, items.assign(shape="S" + items["shape"]).loc[np.repeat(items.index, 70)])
    assert [line.partition(":")[0] for line in lines] == ["field 'shape'"]


def test_rates_are_those_of_the_last_rows(shop, table):
    ranker = Ranker.load(shop / "run")
    ranker.predict(table)
    assert ranker.unseen.rates()["colour"]["oov"] == 0.0
    strict = Ranker.load(shop / "run", strict=True)
    strict.predict(table)
    assert len(said(strict.predict, lost(table)[:1000])) == 1, "one request of new items is no lost field"
    lines = [line for start in range(0, WINDOW // 2, 100) for line in said(ranker.predict, lost(table)[start : start + 100])]
    assert 0.3 < ranker.unseen.rates()["colour"]["oov"] < 0.5
    assert len(lines + [line for _ in range(10) for line in said(ranker.predict, lost(table)[:500])]) == 1


def test_half_of_the_users_of_many_requests_is_a_warning(shop, table):
    ranker, items = Ranker.load(shop / "run"), table[["shape", "size"]][:200]
    lines = [said(ranker.score, {"colour": f"new{user}" if user % 2 else f"c{user % 9}"}, items) for user in range(120)]
    assert sum(map(len, lines[:60])) == 0, "60 users may be new by chance"
    assert [line.partition(":")[0] for said_ in lines for line in said_] == ["field 'colour'"]


def test_some_requests_of_the_largest_numbers_are_no_warning(shop, table):
    ranker, items = (
        Ranker.load(shop / "run"),
        table.sort_values("size")[["shape", "size"]][-200:].assign(size=lambda rows: 9 + rows["size"]),
    )
    assert [line for user in range(9) for line in said(ranker.score, {"colour": f"c{user}"}, items)] == []


def test_files_are_watched_and_the_command_says_it_or_stops(shop, table, tmp_path):
    lost(table).to_parquet(tmp_path / "today.parquet")
    inputs = ["--run", str(shop / "run"), "--input", str(tmp_path / "today.parquet"), "--output", str(tmp_path / "scores.parquet")]
    (line,) = said(score_files, Ranker.load(shop / "run"), [tmp_path / "today.parquet"], tmp_path / "other.parquet")
    assert line.startswith(LOST)
    result = CliRunner().invoke(app, ["predict", *inputs, "--quiet"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith(f"warning: {LOST}")
    assert len(result.stderr.splitlines()) == 1
    (tmp_path / "scores.parquet").unlink()
    result = CliRunner().invoke(app, ["predict", *inputs, "--strict"])
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "scores.parquet").exists()
