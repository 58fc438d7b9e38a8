import json
import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dcrnn_fast.errors import CheckpointError, RunFolderError
from dcrnn_fast.training import train
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.loop import trainer
from tests.damage import truncate
from tests.processes import run_python
from tests.training.runs import StoppedError, interrupted, outcome, stop_at
from tests.training.tiny import fake_validation, files_below, tiny_config, tiny_values, write_table


# Epochs have 8 steps.
# Before the first checkpoint, on one, between two, at an epoch's last step (not yet validated), at the next one's first, at the last.
@pytest.mark.parametrize("steps", [[1], [3], [5], [8], [9], [16], [24], [4, 7, 13, 22]], ids=str)
def test_a_run_stopped_at_any_step_resumes_to_the_same_bits(schema, finished, tmp_path, steps):
    for step in steps:
        with pytest.raises(StoppedError):
            train(tiny_config(schema), tmp_path / "run", resume=True, report=stop_at(step))
    (tmp_path / "run" / "schema.yaml").unlink()  # as if it had been killed before it kept that
    train(tiny_config(schema), tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished)


def test_a_run_that_puts_off_checkpoints_resumes_to_the_same_bits(schema, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "STEPS", 3)
    monkeypatch.setattr(trainer, "PAUSE", 10**9)
    interrupted(tiny_config(schema, checkpoint_every=None), tmp_path / "run", 15)
    assert RunFolder(tmp_path / "run").newest_checkpoint().stem == "step-00000008", "the end of an epoch is not put off"
    train(tiny_config(schema, checkpoint_every=None), tmp_path / "run", resume=True)
    for name in ("model.safetensors", "curves.svg", "checkpoints/step-00000024.safetensors"):
        assert outcome(tmp_path / "run")[name] == outcome(finished)[name], name


def test_a_resumed_run_remembers_its_best_epoch_and_how_long_it_has_waited(schema, tmp_path, monkeypatch):
    overrides = {"optimiser__epochs": 5}
    fake_validation(monkeypatch, [0.9, 0.8, 0.7])
    train(tiny_config(schema, **overrides), tmp_path / "whole")
    fake_validation(monkeypatch, [0.9, 0.8])
    interrupted(tiny_config(schema, **overrides), tmp_path / "run", 18)
    fake_validation(monkeypatch, [0.7])
    result = train(tiny_config(schema, **overrides), tmp_path / "run", resume=True)
    assert (result["train"]["best_epoch"], result["train"]["epochs"]) == (1, 3)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_the_log_of_a_resumed_run_holds_every_step_once(schema, finished, tmp_path):
    interrupted(tiny_config(schema), tmp_path / "run", 11)
    train(tiny_config(schema), tmp_path / "run", resume=True)

    def points(folder, tag):
        log = EventAccumulator(str(RunFolder(folder).tensorboard)).Reload()
        return [(event.step, event.value) for event in log.Scalars(tag)]

    for tag in ("train/loss", "train/lr", "valid/click/auc", "valid/buy/log_loss"):
        assert points(tmp_path / "run", tag) == points(finished, tag), tag
    assert [step for step, _ in points(finished, "valid/click/auc")] == [0, 8, 16, 24]


def test_an_unfinished_run_is_not_restarted_without_resume(schema, tmp_path):
    interrupted(tiny_config(schema), tmp_path / "run", 5)
    before = files_below(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"already holds an unfinished run \(.*step-00000003\.safetensors\).*--resume.*overwrite=True"):
        train(tiny_config(schema), tmp_path / "run")
    assert files_below(tmp_path / "run") == before


def test_without_a_damaged_newest_checkpoint_a_run_has_the_same_bits(schema, finished, tmp_path):
    interrupted(tiny_config(schema), tmp_path / "run", 10)
    newest = RunFolder(tmp_path / "run").newest_checkpoint()
    assert newest.stem == "step-00000009"
    newest.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="fall back to step-00000008"):
        train(tiny_config(schema), tmp_path / "run", resume=True)
    newest.unlink()
    train(tiny_config(schema), tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished)


def test_a_checkpoint_of_other_rows_is_refused(schema, tmp_path):
    table = write_table(tmp_path, seed=0)
    interrupted(tiny_config(table), tmp_path / "run", 5)
    write_table(tmp_path, seed=1)
    with pytest.raises(CheckpointError, match="was trained on other rows than tiny holds"):
        train(tiny_config(table), tmp_path / "run", resume=True)


FULL_DISK = """
import json, resource, sys
from dcrnn_fast.training import Report, load_config, train

class FullDisk(Report):
    def step(self, *, step, **_):
        if step == 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20000, -1))

train(load_config(None, json.loads(sys.argv[1])), sys.argv[2], report=FullDisk())
"""


def test_a_run_goes_on_from_its_last_checkpoint_after_a_full_disk(schema, finished, tmp_path):
    process = run_python("-c", FULL_DISK, json.dumps(tiny_values(schema)), tmp_path / "run")
    assert process.returncode == 1
    assert re.search(r"RunFolderError: cannot write .*: File too large; .* go on with --resume", process.stderr)
    assert sorted(path.stem for path in RunFolder(tmp_path / "run").checkpoints.iterdir()) == ["step-00000008", "step-00000009"]
    train(tiny_config(schema), tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished)


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
@pytest.mark.parametrize("names", [["model.safetensors"], ["encoder.json"], ["metrics.json", "model.safetensors"]], ids=str)
def test_resuming_a_finished_run_writes_what_is_damaged_or_missing_again(schema, finished, copied, damage, names):
    for name in names:
        damage(copied / name)
    train(tiny_config(schema), copied, resume=True)
    assert outcome(copied) == outcome(finished)
    assert (copied / "encoder.json").read_bytes() == (finished / "encoder.json").read_bytes()
