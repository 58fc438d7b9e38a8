import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dcrnn_fast.errors import CheckpointError, RunFolderError
from dcrnn_fast.training.folder.checkpoint import KEY, checkpoint_files, load_checkpoint, save_checkpoint
from dcrnn_fast.training.folder.tensors import write_sealed
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


def test_what_is_saved_is_loaded_bit_for_bit(root):
    loaded = load_checkpoint(root / "step-00000020.safetensors")
    assert loaded.state == STATE
    assert set(loaded.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype, name
        assert torch.equal(loaded.tensors[name], tensor), name


def test_the_newest_two_are_kept_by_step_and_not_by_name(root):
    save_checkpoint(root, 10**8, TENSORS, STATE)
    assert [path.name for path in checkpoint_files(root)] == ["step-00000020.safetensors", "step-100000000.safetensors"]


def sealed(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[KEY])


def with_another_step(path):
    """The damage that writes another value beside the old digest."""
    tensors, about = load_file(path), sealed(path)
    about["about"]["step"] = 4
    save_file(tensors, path, {KEY: json.dumps(about)})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "is damaged or no safetensors file"),
        (lambda path: path.write_bytes(b""), "is damaged or no safetensors file"),
        (flip_a_bit, "was changed after it was written"),
        (with_another_step, "was changed after it was written"),
        (lambda path: save_file(TENSORS | {"strided": torch.zeros(1)}, path), "is not a checkpoint"),
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


def test_another_format_is_refused(root):
    path = root / "step-00000020.safetensors"
    write_sealed(path, load_file(path), {"format": 3}, KEY)
    with pytest.raises(CheckpointError, match="has format 3, this version reads format 2"):
        load_checkpoint(path)


def test_a_full_disk_leaves_the_earlier_checkpoints_as_they_were(root, monkeypatch):
    before = files_below(root)
    fill_disk(monkeypatch)
    with pytest.raises(RunFolderError, match=r"step-00000030\.safetensors: No space left on device; the disk is full; free some") as caught:
        save_checkpoint(root, 30, TENSORS, STATE)
    assert isinstance(caught.value, OSError)
    assert files_below(root) == before
