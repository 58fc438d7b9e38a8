import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dcrnn_fast.errors import CheckpointError, RunFolderError
from dcrnn_fast.training.folder import checkpoint
from dcrnn_fast.training.folder.checkpoint import KEY, checkpoint_files, load_checkpoint, save_checkpoint
from tests.damage import fill_disk, flip_a_bit, truncate
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
    return [path.name for path in checkpoint_files(root)]


def test_what_is_saved_is_loaded_bit_for_bit(root):
    loaded = load_checkpoint(root / "step-00000020.safetensors")
    assert loaded.state == STATE
    assert set(loaded.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype, name
        assert torch.equal(loaded.tensors[name], tensor), name


def test_the_newest_two_are_kept(root):
    save_checkpoint(root, 30, TENSORS, STATE)
    assert names(root) == ["step-00000020.safetensors", "step-00000030.safetensors"]


def test_the_order_is_by_step_and_not_by_name(root):
    save_checkpoint(root, 10**8, TENSORS, STATE)
    assert names(root) == ["step-00000020.safetensors", "step-100000000.safetensors"]


def change(**values):
    """The damage that writes other values beside the old digest."""

    def damage(path):
        tensors, about = load_file(path), sealed(path)
        about["about"] |= values
        save_file(tensors, path, {KEY: json.dumps(about)})

    return damage


def sealed(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[KEY])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "is damaged or no safetensors file"),
        (lambda path: path.write_bytes(b""), "is damaged or no safetensors file"),
        (flip_a_bit, "was changed after it was written"),
        (change(values={"step": 4}), "was changed after it was written"),
        (lambda path: save_file(TENSORS | {"strided": torch.zeros(1)}, path), "is no checkpoint"),
    ],
)
def test_damage_is_named_with_its_file_and_the_checkpoint_to_fall_back_to(root, damage, said):
    newest = root / "step-00000020.safetensors"
    damage(newest)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(newest)
    message = str(caught.value)
    assert f"{newest} {said}" in message
    assert "delete it and use --resume again to fall back to step-00000010.safetensors" in message
    load_checkpoint(root / "step-00000010.safetensors")


def test_damage_to_the_only_checkpoint_says_that_there_is_no_earlier_one(root):
    truncate(root / "step-00000010.safetensors")
    with pytest.raises(CheckpointError, match="there is no earlier checkpoint"):
        load_checkpoint(root / "step-00000010.safetensors")


def test_another_format_is_refused(root, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    with pytest.raises(CheckpointError, match="has format 2, this version reads format 3"):
        load_checkpoint(root / "step-00000020.safetensors")


def test_a_full_disk_leaves_the_earlier_checkpoints_as_they_were_and_nothing_half_written(root, monkeypatch):
    before = files_below(root)
    fill_disk(monkeypatch)
    with pytest.raises(RunFolderError, match=r"step-00000030\.safetensors: No space left on device; the disk is full; free some") as caught:
        save_checkpoint(root, 30, TENSORS, STATE)
    assert isinstance(caught.value, OSError)
    assert files_below(root) == before


def test_a_place_that_cannot_be_written_is_a_run_folder_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="a part of the path is a file"):
        save_checkpoint(tmp_path / "file" / "checkpoints", 1, TENSORS, STATE)
    with pytest.raises(RunFolderError, match="use a folder that can be written"):
        save_checkpoint(type(tmp_path)("/sys/dcrnn_fast"), 1, TENSORS, STATE)
