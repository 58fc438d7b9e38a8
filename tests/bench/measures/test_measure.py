"""The command of the measurements, and candidates that take turns."""

import json
from types import SimpleNamespace

import pytest

from bench import machine
from bench.measures import __main__ as command
from bench.measures.measure import compared
from bench.measures.step_parts import medians


@pytest.mark.parametrize("name", command.NAMES)
def test_every_measurement_lists_its_options(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main([name, "--help"])
    assert stopped.value.code == 0
    assert f"python -m bench.measures {name}" in capsys.readouterr().out


def test_the_file_holds_the_machine_and_what_was_measured(monkeypatch, tmp_path):
    asked = SimpleNamespace(FILE="toy.json", SECONDS=2.0, run=lambda options: {"rows": [options.seconds]})
    monkeypatch.setattr(command, "import_module", lambda name: asked)
    command.main(["scale", "--seconds", "0.5", "--output", str(tmp_path / "toy.json")])
    assert json.loads((tmp_path / "toy.json").read_text()) == {"machine": json.loads(json.dumps(machine.description())), "rows": [0.5]}


def test_candidates_take_turns_and_the_ratio_is_ours_over_the_other():
    row = compared({"B": 3}, {"ours": lambda: None, "theirs": lambda: sum(range(10_000))}, ["ours"], seconds=0.0)
    assert (row["B"], row["rounds"]) == (3, 9)
    assert row["ours/theirs"] < 1


def test_the_recurrence_is_taken_off_the_whole_step():
    found = medians([{"whole": 5.0, "recurrence, forward": 1.0, "recurrence, backward": 2.0}])
    assert found["outside the recurrence"] == pytest.approx(2.0)
