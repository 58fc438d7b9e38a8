"""What all studies share: which runs are missing, what a row is compared with, and what the command says."""

import json
import statistics
from argparse import Namespace

import pytest

from bench.studies import __main__ as command
from bench.studies import study
from bench.studies.study import NAMES, Study, beside, complete, grouped, section


def drawn(data, setting, seed, *, options, folder):
    return {"value": seed, "folder": folder.is_dir()}


def toy(**more):
    return Study("toy", drawn, lambda row: f"{row['value']}", lambda content: [(["a", "b"], [["x", "1"]])], lambda content: "Toys.", **more)


@pytest.fixture
def options():
    return Namespace(workers=0, data=["one", "two"], settings=["a"], seeds=2, movielens=None, replace=False)


@pytest.fixture
def asked(monkeypatch):
    made = toy(finish=lambda content, options: {"count": len(content["rows"])})
    monkeypatch.setattr(study, "study", lambda name: made)
    return made


def test_every_case_is_run_once_and_a_new_one_later(asked, options, tmp_path, capsys):
    path = tmp_path / "toy.json"
    content = complete(asked, path, options)
    assert [(row["data"], row["setting"], row["seed"]) for row in content["rows"]] == [
        ("one", "a", 0), ("two", "a", 0), ("one", "a", 1), ("two", "a", 1),
    ]  # fmt: skip
    assert content["count"] == 4
    assert json.loads(path.read_text()) == content
    options.seeds = 3
    capsys.readouterr()
    assert len(complete(asked, path, options)["rows"]) == 6
    assert "[2/2] data two, setting a, seed 2: 2" in capsys.readouterr().out


@pytest.mark.parametrize("changed", [{"machine": {}}, {"configuration": 2}])
def test_rows_of_another_machine_or_configuration_are_dropped_if_asked(changed, options, tmp_path, monkeypatch):
    made = toy(about=lambda options: {"configuration": 1})
    monkeypatch.setattr(study, "study", lambda name: made)
    path = tmp_path / "toy.json"
    rows = complete(made, path, options)["rows"]
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed, "rows": [{**rows[0], "value": "old"}]}))
    before = path.read_text()
    with pytest.raises(SystemExit, match=rf"toy\.json holds 1 rows .*{next(iter(changed))}.* was .*--replace"):
        complete(made, path, options)
    assert path.read_text() == before
    options.replace = True
    assert complete(made, path, options)["rows"] == rows


def test_a_killed_command_keeps_its_rows(asked, options, tmp_path, monkeypatch):
    path, run = tmp_path / "toy.json", study._run
    monkeypatch.setattr(study, "_run", lambda name, options, case: run(name, options, case) if case[2] == 0 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        complete(asked, path, options)
    assert [row["seed"] for row in json.loads(path.read_text())["rows"]] == [0, 0]


def test_a_difference_is_told_with_its_spread():
    assert beside([0.5, 0.7], [0.5, 0.7]) == "0.6000"
    assert beside([0.52, 0.72], [0.5, 0.66]) == "0.6200 (+0.0400 ± 0.0200)"
    assert beside([0.52, 0.72], [0.5, 0.66], statistics.stdev) == "0.6200 (+0.0400 ± 0.0283)"
    assert beside([0.5], [0.4]) == "0.5000 (+0.1000)"


def test_rows_are_grouped_by_columns_and_sorted_by_seed():
    rows = [{"a": 1, "b": 2, "seed": 1}, {"a": 1, "b": 2, "seed": 0}, {"a": 3, "b": 2, "seed": 0}]
    assert grouped(rows, "a", "b") == {(1, 2): [rows[1], rows[0]], (3, 2): [rows[2]]}
    assert list(grouped(rows, "b")) == [2]


@pytest.mark.parametrize("name", NAMES)
def test_every_study_shows_its_committed_results(name):
    text = section(name)
    assert text.startswith("| ")
    assert text.endswith(f"`bench/results/{name}.json`.")


@pytest.mark.parametrize("name", NAMES)
def test_every_study_lists_its_options(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main([name, "--help"])
    assert stopped.value.code == 0
    assert f"python -m bench.studies {name}" in capsys.readouterr().out


def test_without_its_wheel_movielens_is_left_out(monkeypatch, capsys, tmp_path):
    found = []
    monkeypatch.setattr(command, "complete", lambda asked, path, options: found.extend(options.data) or {})
    monkeypatch.setattr(command, "section", lambda name, content: "the table")
    command.main(["ablation", "--settings", "no gate", "--output", str(tmp_path / "x.json")])
    assert "movielens-100k" not in found
    assert len(found) == 4
    assert "without MovieLens-100K" in capsys.readouterr().out
