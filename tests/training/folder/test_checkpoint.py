import errno
import json
import os
import signal

import pytest
import torch

from dcrnn_fast.errors import CheckpointError, RunFolderError
from dcrnn_fast.training.folder import checkpoint
from dcrnn_fast.training.folder.checkpoint import checkpoint_folders, load_checkpoint, recover, save_checkpoint
from tests.damage import edit_json, flip_a_bit, truncate
from tests.training.tiny import files_below

TENSORS = {
    "weight": torch.randn(5, 7, generator=torch.Generator().manual_seed(0)),
    "strided": torch.arange(24.0).reshape(4, 6)[:, ::2],
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "step": torch.tensor(3.0),
    "rng": torch.arange(9, dtype=torch.uint8),
    "count": torch.tensor([2**40], dtype=torch.int64),
    "empty": torch.zeros(0, 3),
}
STATE = {"step": 3, "loss": 0.1 + 0.2, "history": [{"epoch": 1, "auc": None}]}


@pytest.fixture
def root(tmp_path):
    """Checkpoints of steps 10 and 20."""
    for step in (10, 20):
        save_checkpoint(tmp_path / "checkpoints", step, TENSORS, STATE)
    return tmp_path / "checkpoints"


def names(root):
    return [path.name for path in checkpoint_folders(root)]


def test_what_is_saved_is_loaded_bit_for_bit(root):
    loaded = load_checkpoint(root / "step-00000020")
    assert loaded.state == STATE
    assert set(loaded.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype, name
        assert torch.equal(loaded.tensors[name], tensor), name


def test_a_checkpoint_is_one_safetensors_and_one_json_file(root):
    assert {path.name for path in (root / "step-00000020").iterdir()} == {"tensors.safetensors", "state.json"}
    json.loads((root / "step-00000020" / "state.json").read_text())


def test_the_newest_two_are_kept(root):
    save_checkpoint(root, 30, TENSORS, STATE)
    assert names(root) == ["step-00000020", "step-00000030"]


def test_the_order_is_by_step_and_not_by_name(root):
    save_checkpoint(root, 10**8, TENSORS, STATE)
    assert names(root) == ["step-00000020", "step-100000000"]


def test_leftovers_of_a_killed_process_are_no_checkpoints_and_are_removed(root):
    (root / ".step-00000030.77.tmp").mkdir()
    (root / ".step-00000030.77.tmp" / "tensors.safetensors").write_bytes(b"half")
    assert names(root) == ["step-00000010", "step-00000020"]
    recover(root)
    assert sorted(path.name for path in root.iterdir()) == ["step-00000010", "step-00000020"]


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("step", [20, 30])
def test_a_process_killed_while_it_deletes_an_old_checkpoint_leaves_whole_ones_alone(root, monkeypatch, step):
    """Step 20 replaces a checkpoint, step 30 makes that of step 10 superfluous."""

    def delete(path, ignore_errors=False):
        (path / "state.json").unlink()
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", delete)
        with pytest.raises(KilledError):
            save_checkpoint(root, step, TENSORS, STATE | {"step": step})
    assert load_checkpoint(checkpoint_folders(root)[-1]).state["step"] == step
    for folder in checkpoint_folders(root):
        load_checkpoint(folder)
    recover(root)
    assert [path.name for path in sorted(root.iterdir())] == names(root)


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_process_killed_between_the_renames_of_a_replacement_leaves_the_old_checkpoint_or_the_new_one(root, monkeypatch, renames):
    real, done = checkpoint.os.replace, []

    def replace(source, target):
        if len(done) == renames:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(source)
        real(source, target)

    if (child := os.fork()) == 0:
        try:
            monkeypatch.setattr(checkpoint.os, "replace", replace)
            save_checkpoint(root, 20, TENSORS, STATE | {"step": 4})
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    recover(root)
    assert sorted(path.name for path in root.iterdir()) == ["step-00000010", "step-00000020"]
    assert load_checkpoint(root / "step-00000020").state["step"] == (4 if renames == 2 else 3)


def test_a_checkpoint_that_cannot_be_replaced_stays(root, monkeypatch):
    before = files_below(root)
    real = checkpoint.os.replace

    def replace(source, target):
        if source.name == ".step-00000020.tmp":
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", replace)
    with pytest.raises(RunFolderError, match="Input/output error"):
        save_checkpoint(root, 20, TENSORS, STATE | {"step": 4})
    assert files_below(root) == before


def write_a_nan(path):
    path.write_text(path.read_text().replace("null", "NaN"))


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("tensors.safetensors", truncate, "is truncated"),
        ("tensors.safetensors", lambda path: path.write_bytes(b""), "is truncated"),
        ("tensors.safetensors", flip_a_bit, "was changed"),
        ("tensors.safetensors", lambda path: path.unlink(), "cannot be read"),
        ("state.json", truncate, "cannot be read"),
        ("state.json", edit_json(lambda state: state["values"].update(step=4)), "was changed"),
        ("state.json", edit_json(lambda state: state.pop("digest")), "was changed"),
        ("state.json", write_a_nan, "cannot be read"),
        ("state.json", lambda path: path.write_text("[]"), "cannot be read"),
        ("state.json", lambda path: path.unlink(), "cannot be read"),
    ],
)
def test_damage_is_named_with_its_file_and_the_checkpoint_to_fall_back_to(root, file, damage, said):
    newest = root / "step-00000020"
    damage(newest / file)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(newest)
    message = str(caught.value)
    assert f"{newest / file} {said}" in message
    assert f"delete the folder {newest} and use --resume again to fall back to step-00000010" in message
    load_checkpoint(root / "step-00000010")


def test_damage_to_the_only_checkpoint_says_that_there_is_no_earlier_one(root):
    truncate(root / "step-00000010" / "tensors.safetensors")
    with pytest.raises(CheckpointError, match="there is no earlier checkpoint"):
        load_checkpoint(root / "step-00000010")


def test_another_format_is_refused(root, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="has format 1, this version reads format 2"):
        load_checkpoint(root / "step-00000020")


@pytest.mark.parametrize("failing_write", [1, 2])
def test_a_full_disk_leaves_the_earlier_checkpoints_as_they_were_and_nothing_half_written(root, monkeypatch, failing_write):
    before = files_below(root)
    writes = []

    def sync(path):
        writes.append(path)
        if len(writes) == failing_write:
            truncate(path)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "sync", sync)
    with pytest.raises(RunFolderError, match=r"step-00000030: No space left on device; the disk is full; free some space") as caught:
        save_checkpoint(root, 30, TENSORS, STATE)
    assert isinstance(caught.value, OSError)
    assert files_below(root) == before
    assert sorted(path.name for path in root.iterdir()) == ["step-00000010", "step-00000020"]


def test_a_place_that_cannot_be_written_is_a_run_folder_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="a part of the path is a file"):
        save_checkpoint(tmp_path / "file" / "checkpoints", 1, TENSORS, STATE)
    with pytest.raises(RunFolderError, match="use a folder that can be written"):
        save_checkpoint(type(tmp_path)("/sys/dcrnn_fast"), 1, TENSORS, STATE)
