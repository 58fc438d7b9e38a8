"""A checkpoint whose digest fits but whose position no run can reach is refused by name, before anything is trained."""

import shutil

import pytest

from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training import train
from dcrnn_fast.training.folder.checkpoint import load_checkpoint, save_checkpoint
from dcrnn_fast.training.folder.layout import RunFolder
from tests.training.runs import interrupted
from tests.training.tiny import tiny_config


@pytest.fixture(scope="module")
def stopped(schema, tmp_path_factory):
    """A run whose newest checkpoint is step 9: one batch after one epoch of 8. Do not write into it."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    interrupted(tiny_config(schema), folder, 10)
    return folder


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("position", "batch", 1000000, "step 9 is not batch 1000000 after 1 epochs, which have 8 batches each"),
        ("position", "batch", 2, "step 9 is not batch 2 after 1 epochs"),
        ("position", "batch", -1, "batch is -1: "),
        ("position", "batch", 0, "batch is 0, but loss_rows is 128"),
        ("position", "step", -5, "step is -5: "),
        ("position", "step", 8, "step is 8, but the folder is that of step 9"),
        ("position", "loss_sum", "nan", "loss_sum is 'nan': "),
        ("position", "epoch", 10**18, "epoch is 1000000000000000000, but history has 2 entries"),
        ("position", "history", [], "epoch is 1, but history has 0 entries"),
        ("position", "history", [{}], "history.0.epoch is missing"),
        ("stopping", "best_step", 9, "best_step is 9 "),
        ("stopping", "best_step", None, "best_step is None "),
        ("stopping", "waited", -5, "waited is -5 "),
        ("stopping", "patience", 0, "patience 0 "),
    ],
)
def test_a_position_that_no_run_can_reach_is_refused_with_its_file(schema, stopped, tmp_path, part, key, value, said):
    folder = RunFolder(shutil.copytree(stopped, tmp_path / "run"))
    tensors, state = load_checkpoint(folder.newest_checkpoint())
    state[part][key] = value
    save_checkpoint(folder.checkpoints, 9, tensors, state)
    with pytest.raises(CheckpointError) as caught:
        train(tiny_config(schema), folder.root, resume=True)
    message = str(caught.value)
    assert message.startswith(f"checkpoint {folder.checkpoints}/step-00000009/state.json holds no position of a run: ")
    assert said in message, message
    assert "use --resume again to fall back to step-00000008" in message
