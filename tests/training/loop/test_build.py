"""A trainer that is built lacks nothing: it may evaluate and save before it runs."""

import pytest
import torch

from dcrnn_fast.training import Report, train
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.loop.job import Job
from dcrnn_fast.training.loop.trainer import Trainer
from tests.training.tiny import newest_checkpoint, tiny_config


def test_a_trainer_that_has_not_run_saves_what_another_one_resumes(schema, dataset, tmp_path):
    job = Job(tiny_config(schema), dataset, RunFolder(tmp_path), Report(), torch.device("cpu"))
    trainer = Trainer(job)
    trainer.evaluate()
    trainer.model.towers.head.private_bias.data += 1
    again = Trainer.resumed(job, trainer.save())
    assert [record["step"] for record in again.at.history] == [0]
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_a_trainer_that_is_built_has_written_nothing(schema, dataset, tmp_path):
    Trainer(Job(tiny_config(schema), dataset, RunFolder(tmp_path / "run"), Report(), torch.device("cpu")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("every", "steps"), [(None, [0, 2, 4, 6, 8]), (3, [0, 3, 6, 8])])
def test_evaluations_within_an_epoch_are_due_four_times_or_after_so_many_steps(schema, tmp_path, every, steps):
    train(tiny_config(schema, early_stopping__every_steps=every, optimiser__epochs=1), tmp_path / "run")
    history = newest_checkpoint(tmp_path / "run").state["position"]["history"]
    assert [record["step"] for record in history] == steps
