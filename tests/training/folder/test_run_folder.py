"""Who may write into a run folder: one run at a time, of one configuration; and what is tidied up after a killed one."""

import json
from pathlib import Path

import pytest
import yaml

from dcrnn_fast.errors import CheckpointError, RunFolderError
from dcrnn_fast.support.locks import locked
from dcrnn_fast.training import evaluate, train
from dcrnn_fast.training.folder.layout import MAY_CHANGE, RunFolder, stored_config
from tests.damage import edit_json, flip_a_bit
from tests.training.runs import Notes, each_step, interrupted, outcome
from tests.training.tiny import files_below, tiny_config, write_table

IN_USE = "another run writes to {} now; wait until it has ended, stop it, or choose another --output"


@pytest.mark.parametrize(("resume", "step"), [(False, 1), (True, 10)])
def test_a_second_run_in_a_folder_in_use_is_refused(schema, finished, tmp_path, resume, step):
    refusals = []

    def intrude(now):
        if now == step:
            before = files_below(tmp_path / "run")
            with pytest.raises(RunFolderError) as caught:
                train(tiny_config(schema), tmp_path / "run", resume=resume)
            refusals.append(str(caught.value))
            after = files_below(tmp_path / "run")
            for name in [name for name in before if name.startswith("tensorboard/")]:  # the first run's, from a thread of its own
                assert after.pop(name).startswith(before.pop(name))
            assert after == before

    train(tiny_config(schema), tmp_path / "run", report=each_step(intrude))
    assert refusals == [IN_USE.format(tmp_path / "run")]
    assert outcome(tmp_path / "run") == outcome(finished)


def test_a_run_is_evaluated_and_not_trained_while_another_writes_to_it(copied, command):
    with locked(RunFolder(copied).lock):
        assert command("train", "--resume", "--output", copied) == (2, "", f"error: {IN_USE.format(copied)}\n")
        assert evaluate(copied, split="valid")["split"] == "valid"


def test_files_that_a_killed_process_left_half_written_are_deleted(schema, finished, tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".lock", ".config.yaml.77.tmp"):  # killed before it wrote its configuration
        (tmp_path / "run" / name).touch()
    interrupted(tiny_config(schema), tmp_path / "run", 10)
    for name in ("config.yaml", "metrics.json", "model.safetensors", "encoder.json", "curves.svg"):
        (tmp_path / "run" / f".{name}.77.tmp").write_bytes(b"half")
    train(tiny_config(schema), tmp_path / "run", resume=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in finished.iterdir()}


def edit_config(folder, **values):
    """Edit config.yaml as a user would; a dot in a key is written as two underscores. Returns the content as ``train`` receives it."""
    config = RunFolder(folder).config
    content = yaml.safe_load(config.read_text())
    for dotted, value in values.items():
        *parents, key = dotted.split("__")
        section = content
        for parent in parents:
            section = section[parent]
        section[key] = value
    config.write_text(yaml.safe_dump(content))


EDITS = {
    "seed": 7,
    "model__steps": 3,
    "optimiser__lr": 0.01,
    "optimiser__batch_size": 64,
    "optimiser__epochs": 4,
    "early_stopping__patience": 1,
}
NAMED = "seed is 7 and was 0; model.steps is 3 and was 2; optimiser.lr is 0.01 and was 0.02; optimiser.batch_size is 64 and was 128"


@pytest.mark.parametrize("stage", ["unfinished", "finished", "results lost"])
def test_a_configuration_edited_after_the_start_is_refused_with_the_keys(schema, copied, tmp_path, command, stage):
    folder = copied
    if stage == "unfinished":
        folder = tmp_path / "unfinished"
        interrupted(tiny_config(schema), folder, 5)
    elif stage == "results lost":
        RunFolder(folder).metrics.unlink()
    edit_config(folder, **EDITS)
    before = files_below(folder)
    code, out, err = command("train", "--resume", "--output", folder)
    assert (code, out) == (2, "")
    assert f"was written with another configuration than {RunFolder(folder).config} holds now: {NAMED}; " in err
    assert "optimiser.epochs is 4 and was 3; early_stopping.patience is 1 and was 2; put the old values back" in err
    changed = {name for name, data in files_below(folder).items() if before.get(name) != data and not name.startswith("tensorboard")}
    assert changed == set()


def test_keys_that_change_no_weight_may_be_edited(schema, finished, tmp_path, monkeypatch):
    interrupted(tiny_config(schema), tmp_path / "run", 5)
    write_table(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    edits = {"data": "moved/tiny.yaml", "checkpoint_every": 5, "log_every": 3, "threads": 1, "backend": "reference", "cuda_graph": False}
    assert set(edits) == set(MAY_CHANGE)
    edit_config(tmp_path / "run", **edits)
    train(stored_config(tmp_path / "run"), tmp_path / "run", resume=True)
    assert RunFolder(tmp_path / "run").weights.read_bytes() == RunFolder(finished).weights.read_bytes()


def empty(path):
    path.write_bytes(b"")


def lower_an_auc(metrics):
    metrics["test"]["click"]["auc"] -= 0.125


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edit_json(lower_an_auc), "was changed after it was written: its digest does not match"),
        (edit_json(lambda metrics: metrics.pop("digest")), "has no digest"),
        (flip_a_bit, "cannot be read"),
        (empty, "cannot be read"),
        *((lambda path, text=text: path.write_text(text), "cannot be read") for text in ("[]", '{"auc": NaN}', "[" * 10**5)),
        (lambda path: path.write_text("{}"), "has no digest"),
    ],
)
def test_results_that_are_damaged_are_written_again(schema, finished, copied, damage, said):
    damage(RunFolder(copied).metrics)
    notes = Notes()
    result = train(tiny_config(schema), copied, resume=True, report=notes)
    assert f"writing the results of the finished run {copied} again: {copied}/metrics.json {said}" in notes.lines[0]
    assert outcome(copied) == outcome(finished)
    assert RunFolder(copied).read_metrics() == result == json.loads(json.dumps(result))


@pytest.mark.parametrize("damage", [Path.unlink, empty])
def test_a_lost_file_of_the_optimisers_is_written_again(schema, finished, copied, damage):
    damage(RunFolder(copied).optimiser)
    train(tiny_config(schema), copied, resume=True)
    assert RunFolder(copied).optimiser.read_bytes() == RunFolder(finished).optimiser.read_bytes()


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("all", r"metrics\.json cannot be read .* holds none: restore one, or train in another folder"),
        ("the older, and the newer is empty", r"no earlier checkpoint: restore this one, or train in another folder$"),
    ],
)
def test_damaged_results_without_a_checkpoint_train_nothing_anew(schema, copied, lost, said):
    empty(RunFolder(copied).metrics)
    oldest, newest = sorted(RunFolder(copied).checkpoints.iterdir())
    oldest.unlink()
    newest.unlink() if lost == "all" else empty(newest)
    before = files_below(copied)
    with pytest.raises(CheckpointError, match=said):
        train(tiny_config(schema), copied, resume=True)
    assert files_below(copied) == before
