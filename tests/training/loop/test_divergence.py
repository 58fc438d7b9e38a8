import pytest

import dcrnn_fast
from dcrnn_fast.errors import TrainingDivergedError
from dcrnn_fast.training import train
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.loop.trainer import Trainer
from tests.training.tiny import newest_checkpoint, tiny_config


def test_a_loss_that_is_not_finite_stops_a_run_at_its_last_checkpoint(schema, tmp_path, monkeypatch):
    real_loss, calls = dcrnn_fast.DCRNN.loss, []

    def loss(self, *arguments, **options):
        calls.append(1)
        return real_loss(self, *arguments, **options) * (float("nan") if len(calls) == 5 else 1)

    monkeypatch.setattr(dcrnn_fast.DCRNN, "loss", loss)
    with pytest.raises(TrainingDivergedError, match=r"became nan at or shortly before step 6; the last checkpoint, step-00000003"):
        train(tiny_config(schema), tmp_path / "run")
    kept = newest_checkpoint(tmp_path / "run")
    assert all(value.isfinite().all() for name, value in kept.tensors.items() if value.is_floating_point())


@pytest.mark.parametrize(
    ("diverges_at", "value", "kept"),
    [(3, float("inf"), "no checkpoint was written"), (8, float("nan"), "the last checkpoint, step-00000006")],
    ids=["before a checkpoint", "in the last step of an epoch"],
)
def test_weights_that_are_no_longer_finite_are_named_and_never_saved(schema, tmp_path, monkeypatch, diverges_at, value, kept):
    real_step = Trainer._train_step

    def step(self, batch):
        real_step(self, batch)
        if self.at.step == diverges_at:
            self.model.features.embedding.weight.data[0] = value

    monkeypatch.setattr(Trainer, "_train_step", step)
    said = rf"weights features\.embedding\.weight are no longer finite at step {diverges_at}; {kept}"
    with pytest.raises(TrainingDivergedError, match=said):
        train(tiny_config(schema, model__embedding="dense"), tmp_path / "run")


def test_validation_predictions_that_are_not_finite_stop_the_run(schema, tmp_path, monkeypatch):
    real = dcrnn_fast.DCRNN.predict

    def predict(self, ids, dense=None):
        return {name: value * float("nan") for name, value in real(self, ids, dense).items()}

    monkeypatch.setattr(dcrnn_fast.DCRNN, "predict", predict)
    with pytest.raises(TrainingDivergedError, match=r"the predictions .*click.* on the valid rows of tiny are not finite"):
        train(tiny_config(schema), tmp_path / "run")
    assert not RunFolder(tmp_path / "run").weights.exists()
