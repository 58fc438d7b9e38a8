"""What all measurements share: the command's options, and the file that it writes."""

import json

import pytest

from bench import machine
from bench.measures import __main__ as command
from bench.measures.measure import NAMES, Measure, compared, measure


@pytest.mark.parametrize("name", NAMES)
def test_every_measurement_lists_its_options(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main([name, "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert f"python -m bench.measures {name}" in printed
    assert ("--seconds" in printed) == (measure(name).seconds is not None)
    assert ("--dry" in printed) == bool(measure(name).file)


def test_the_file_holds_the_machine_and_what_was_measured_and_a_dry_run_writes_none(monkeypatch, tmp_path):
    asked = Measure("toy", lambda options: {"rows": [options.seconds]}, "toy.json", seconds=2.0)
    monkeypatch.setattr(command, "measure", lambda name: asked)
    path = tmp_path / "toy.json"
    command.main(["scale", "--dry", "--output", str(path)])
    assert not path.exists()
    command.main(["scale", "--seconds", "0.5", "--output", str(path)])
    assert json.loads(path.read_text()) == {"machine": json.loads(json.dumps(machine.description())), "rows": [0.5]}


def test_candidates_take_turns_and_the_ratio_is_ours_over_the_other():
    row = compared({"B": 3}, {"ours": lambda: None, "theirs": lambda: sum(range(10_000))}, ["ours"], seconds=0.0)
    assert (row["B"], row["rounds"]) == (3, 9)
    assert row["ours/theirs"] < 1
