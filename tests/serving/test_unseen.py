"""A field that has lost the ids which it had in the train rows is said by whatever scores: once, or as an error."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dcrnn_fast import Ranker
from dcrnn_fast.cli.commands import app
from dcrnn_fast.errors import DataError, ExportError
from dcrnn_fast.serving import load_exported, score_files
from dcrnn_fast.serving import ranker as ranker_module
from dcrnn_fast.serving.unseen import WINDOW
from tests.serving.archives import rewritten, with_json

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


def test_the_rows_of_the_table_it_was_trained_on_give_no_warning(load, table):
    assert said(load().predict, table) == []


def test_a_field_that_lost_its_ids_is_a_warning_once(load, table):
    ranker = load()
    (line,) = said(ranker.predict, lost(table))
    assert line.startswith(LOST)
    assert "as 7 and 007, or Oslo and oslo, are two categories" in line
    assert said(ranker.predict, lost(table)) == []


def test_a_field_without_cells_is_a_warning(load, table):
    (line,) = said(load().predict, table.assign(shape=None))
    assert line.startswith("field 'shape': 100.0% of the scored cells are out of vocabulary or missing, but 0.0% of the train cells")
    (line,) = said(load().predict, table.assign(size=np.nan))
    assert line.startswith("field 'size': 100.0% of the scored cells are missing")


def test_a_strict_ranker_refuses_the_rows_each_time(load, table):
    ranker = load(strict=True)
    for _ in range(2):
        with pytest.raises(DataError, match=r"field 'colour': 100\.0% of the scored cells"):
            ranker.predict(lost(table))
        assert said(ranker.predict, table) == [], "the rows that were refused count no more"


def test_rows_that_come_one_by_one_are_counted_too(load, table):
    ranker, rows = load(), lost(table)
    lines = [line for row in range(64) for line in said(ranker.predict, rows[row : row + 1])]
    assert [line.partition(": ")[0] for line in lines] == ["field 'colour'"]


def test_small_tables_are_counted_as_one_by_one(load, table):
    ranker, other = load(), load()
    for start in range(0, 990, 3):
        said(ranker.predict, table[start : start + 3])
        said(other.predict, table[start : start + 99] if start % 99 == 0 else table[:0])
    one, another = ranker.unseen.rates(), other.unseen.rates()
    assert one.keys() == another.keys()
    assert all(one[field][kind] == pytest.approx(another[field][kind], abs=1e-9) for field in one for kind in one[field])


def test_the_candidates_of_a_new_user_are_no_warning(load, table):
    """One unknown text in all rows of a small table may be one user's."""
    rows = table.assign(colour="new")
    assert said(load().predict, rows[:500]) == []
    assert len(said(load().predict, rows)) == 1, "a table of 1,500 rows is no user's"


def test_the_candidates_of_a_user_whose_cell_is_missing_are_no_warning(load, table):
    assert said(load().predict, table[:500].assign(colour=None, size=None)) == []


def test_new_users_one_after_another_are_a_warning(load, table):
    ranker = load()
    lines = [line for user in range(40) for line in said(ranker.predict, table[:100].assign(colour=f"new{user}"))]
    assert len(lines) == 1


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
    lines = [line for start in range(0, WINDOW // 2, 100) for line in said(ranker.predict, lost(table)[start : start + 100])]
    assert 0.3 < ranker.unseen.rates()["colour"]["oov"] < 0.5
    assert len(lines + [line for _ in range(10) for line in said(ranker.predict, lost(table)[:500])]) == 1


def test_one_request_of_new_items_is_no_lost_field(shop, table):
    ranker = Ranker.load(shop / "run", strict=True)
    ranker.predict(table)
    assert len(said(ranker.predict, lost(table)[:1000])) == 1, "half of the cells are a warning"
    assert 0.3 < ranker.unseen.rates()["colour"]["oov"] < 0.6


def half_lost(table):
    """The table with other texts in half of a column's cells."""
    return table.assign(colour=table["colour"].where(table.index % 2 == 0, "C" + table["colour"]))


@pytest.mark.parametrize("rows", [1500, 500])
def test_half_of_a_fields_cells_are_a_warning_once(load, table, rows):
    ranker = load(strict=True)
    (line,) = said(ranker.predict, half_lost(table)[:rows])
    assert line.startswith("field 'colour': 50.0% of the scored cells are out of vocabulary or missing, but 0.0% of the train and 0.0% of")
    assert said(ranker.predict, half_lost(table)[:rows]) == []
    assert ranker.unseen.rates()["colour"]["oov"] == pytest.approx(0.5)


def test_a_large_table_is_judged_by_rows_that_are_spread_over_it(load, table):
    ranker = load(strict=True)
    (line,) = said(ranker.predict, pd.concat([table] * 10 + [lost(table)] * 6))
    assert line.startswith("field 'colour': 37.5% of the scored cells are out of vocabulary or missing")


def test_a_fifth_of_a_fields_cells_is_no_warning(load, table):
    assert said(load().predict, table.assign(colour=table["colour"].where(table.index % 5 > 0, "new"))) == []


def test_half_of_the_users_of_many_requests_is_a_warning(shop, table):
    ranker, items = Ranker.load(shop / "run"), table[["shape", "size"]][:200]
    lines = [said(ranker.score, {"colour": f"new{user}" if user % 2 else f"c{user % 9}"}, items) for user in range(120)]
    assert sum(map(len, lines[:60])) == 0, "60 users may be new by chance"
    assert [line.partition(":")[0] for said_ in lines for line in said_] == ["field 'colour'"]


@pytest.mark.parametrize("rows", [200, 240])
def test_some_new_users_of_a_table_of_few_are_no_warning(load, table, rows):
    """Five users with their candidates, in a small table and in one that is judged by itself."""
    colours = np.repeat(["c1", "new1", "c2", "new2", "c3"], rows)
    assert said(load().predict, table[: len(colours)].assign(colour=colours)) == []


@pytest.mark.parametrize(("factor", "where"), [(100, "above"), (-100, "below")])
def test_a_number_in_another_unit_is_a_warning_once(load, table, factor, where):
    ranker, size = load(), 20 + table["size"]
    other = table.assign(size=factor * size)
    (line,) = said(ranker.predict, other[:500])
    assert line.startswith(f"number 'size': 100.0% of the scored values are {where} 99% of the train values: compare their units")
    assert said(ranker.predict, other) == []


def test_some_requests_of_the_largest_numbers_are_no_warning(shop, table):
    ranker, items = (
        Ranker.load(shop / "run"),
        table.sort_values("size")[["shape", "size"]][-200:].assign(size=lambda rows: 9 + rows["size"]),
    )
    assert [line for user in range(9) for line in said(ranker.score, {"colour": f"c{user}"}, items)] == []


def test_a_run_of_an_earlier_version_knows_no_range(shop, table, monkeypatch):
    real = ranker_module.load_sealed

    def earlier(*arguments, **options):
        model, about, digest = real(*arguments, **options)
        return model, {key: value for key, value in about.items() if key not in ("valid_shares", "dense_ranges")}, digest

    monkeypatch.setattr(ranker_module, "load_sealed", earlier)
    assert said(Ranker.load(shop / "run").predict, half_lost(table).assign(size=1000 + table["size"])) == []


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


@pytest.mark.parametrize(
    "cells",
    [
        None,
        7,
        [7],
        [["colour", 0, 1, 0.0]],
        [["colour", 9, 1, 0.0, 0.0, None, None]],
        [["colour", 0, -1, 0.0, 0.0, None, None]],
        [["colour", 0, 1, 1.5, 0.0, None, None]],
        [["colour", 0, 1, 0.0, "0", None, None]],
        [[None] * 7],
    ],
    ids=json.dumps,
)
def test_a_file_whose_fields_are_none_is_refused(exported, tmp_path, cells):
    changed = rewritten(exported, tmp_path / "changed.pt2", {"extra/dcrnn_fast.json": with_json(lambda about: about.update(cells=cells))})
    with pytest.raises(ExportError, match="is no file of `dcrnn-fast export`"):
        load_exported(changed)
