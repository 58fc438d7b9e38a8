"""What `inspect` prints, and the warnings about the data that `train` and `evaluate` give."""

import csv
import json

import pytest

from dcrnn_fast.training import evaluate, train
from tests.training.runs import Notes
from tests.training.tiny import tiny_config, write_table

LOST = "field 'colour': 100.0% of the test cells are out of vocabulary or missing, but 0.0% of the train cells: "


def resaved(folder, **changes):
    """The tiny table, with a test file in which every colour is another text."""
    path = write_table(folder, files={"train": "tiny.csv", "test": "test.csv"}, **changes)
    with open(folder / "tiny.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "test.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "colour": row["colour"] + ".0"} for row in rows)
    return path


def warned(text):
    return [line.removeprefix("warning: ") for line in text.splitlines() if line.startswith("warning: ")]


def test_inspect_prints_tables_of_everything_and_strict_json(schema, command):
    code, out, err = command("inspect", "--data", schema)
    assert (code, err) == (0, "")
    for text in ("tiny: 945 train, 105 valid, 450 test rows", "constant log loss", "buy_given_click", "OOV test", "colour", "categorical"):
        assert text in out
    for text in ("Dense columns, scaled", "GAUC groups", "Best single features", "No warnings."):
        assert text in out
    assert out.isascii()
    assert "\x1b" not in out
    report = json.loads(command("inspect", "--data", schema, "--json")[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert report["rows"] == {"train": 945, "valid": 105, "test": 450}
    assert report["warnings"] == []


def test_inspect_shows_columns_whose_names_look_like_markup(tmp_path, command):
    (tmp_path / "t.csv").write_text("[red]x,y\n" + "a,1\nb,0\n" * 30)
    schema = 'name: t\nfiles: {train: t.csv, test: t.csv}\ntasks: [{name: y, column: y}]\ncategorical: ["[red]x"]\n'
    (tmp_path / "t.yaml").write_text(schema)
    assert "[red]x" in command("inspect", "--data", tmp_path / "t.yaml")[1]


def test_inspect_and_train_warn_of_a_field_that_the_test_rows_lose(tmp_path, command):
    path = resaved(tmp_path)
    (line,) = warned(command("inspect", "--data", path)[1])
    assert line.startswith(LOST)
    (tmp_path / "run.yaml").write_text(tiny_config(path, optimiser__epochs=1).to_yaml())
    code, _, err = command("train", "--config", tmp_path / "run.yaml", "--output", tmp_path / "run")
    assert (code, warned(err)) == (0, [line])
    assert err.index(line) < err.index("epoch 1/1")


def test_prepare_warns_as_inspect_does_unless_it_is_quiet(tmp_path, command):
    tasks = [{"name": "click", "column": "clicked", "threshold": 2}, {"name": "buy", "column": "bought"}]  # no row reaches the threshold
    path = write_table(tmp_path, tasks=tasks, funnel=False, group="colour")
    code, out, _ = command("prepare", "--schema", path, "--output", tmp_path / "packed")
    assert code == 0
    inspected = command("inspect", "--data", tmp_path / "packed")[1]
    assert warned(out) == warned(inspected)
    for said in ("task 'click': all 945 known labels of the train rows are 0", "groups 'colour' of the test rows hold both classes"):
        assert any(said in line for line in warned(out)), out
    assert out.splitlines()[-1] == f"Packed folder: {tmp_path / 'packed'}"
    assert command("prepare", "--schema", path, "--output", tmp_path / "quiet", "--quiet")[:2] == (0, "")


def test_a_sound_table_and_a_resumed_run_give_no_warning(schema, tmp_path):
    for folder, path in (("sound", schema), ("resaved", resaved(tmp_path / "table"))):
        config, notes = tiny_config(path), Notes()
        train(config, tmp_path / folder, report=notes)
        assert bool(warned("\n".join(notes.lines))) == (folder == "resaved")
    (tmp_path / "resaved" / "metrics.json").unlink()
    train(config, tmp_path / "resaved", resume=True, report=(notes := Notes()))
    assert not warned("\n".join(notes.lines))


def test_all_that_reads_other_data_warns_of_a_field_that_they_lose(finished, copied, tmp_path, command):
    path = resaved(tmp_path, name="other")
    (line,) = evaluate(finished, data=str(path))["warnings"]
    assert line.startswith(LOST)
    assert warned(command("evaluate", "--run", finished, "--data", path)[1])[-1] == line
    _, out, err = command("evaluate", "--run", finished, "--data", path, "--json")
    assert json.loads(out)["warnings"] == [line]
    assert warned(err)[-1] == line
    assert evaluate(finished, data=str(path), split="train")["warnings"] == []
    lines = warned(command("compare", finished, copied, "--data", path)[1])
    assert [line.partition(LOST)[:2] for line in lines] == [("finished: ", LOST), ("run: ", LOST)]
    assert warned(command("calibrate", "--run", copied, "--data", path, "--split", "test")[1])[-1].startswith(LOST)
    one_class = [{"name": "click", "column": "clicked", "threshold": 2}, {"name": "buy", "column": "bought"}]
    (line,) = evaluate(finished, data=str(write_table(tmp_path / "one", tasks=one_class, funnel=False)))["warnings"]
    assert line.startswith("task 'click': all 450 known labels of the test rows are 0: AUC is undefined there")
