import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dcrnn_fast.data import BlockLoader
from dcrnn_fast.training import train
from dcrnn_fast.training.device import select_precision
from dcrnn_fast.training.evaluate.plots import write_curves
from dcrnn_fast.training.folder.layout import RunFolder, stored_config
from dcrnn_fast.training.folder.tensors import read_safetensors
from dcrnn_fast.training.loop import trainer
from tests.training.tiny import fake_validation, newest_checkpoint, tiny_config, write_table


def test_the_curves_of_a_run_have_the_same_bytes_in_any_style(schema, tmp_path, with_curves):
    import matplotlib

    train(tiny_config(schema), tmp_path / "run")
    _, state = newest_checkpoint(tmp_path / "run")
    at, metrics = state["position"], json.loads((tmp_path / "run" / "metrics.json").read_text())
    kept, constants = metrics["train"]["best_step"], {name: entry["constant_log_loss"] for name, entry in metrics["valid"].items()}
    for name, style in (("plain", {}), ("styled", {"font.size": 20, "axes.spines.top": False})):
        with matplotlib.rc_context(style):
            write_curves(tmp_path / name, "DCRNN on tiny", at["curve"], at["history"], kept, constants)
    drawn = (tmp_path / "run" / "curves.svg").read_bytes()
    assert drawn.rstrip().endswith(b"</svg>")
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "styled").read_bytes() == drawn


def weights(folder):
    return RunFolder(folder).weights.read_bytes()


def test_another_seed_gives_other_weights_and_pytorchs_settings_stay(schema, finished, tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    result = train(tiny_config(schema, seed=1), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(finished)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert result["config"]["precision"] == select_precision("auto", torch.device("cpu")) == stored_config(tmp_path / "other").precision


def test_a_test_label_has_no_influence_on_the_weights(schema, dataset, finished, tmp_path):
    split = dataset.split("test")
    other = replace(dataset, splits=dict(dataset.splits) | {"test": replace(split, labels=1 - np.asarray(split.labels))})
    train(tiny_config(schema), tmp_path / "run", dataset=other)
    assert weights(tmp_path / "run") == weights(finished)


def test_the_best_epoch_is_kept_and_the_run_stops_after_its_patience(schema, tmp_path, monkeypatch):
    asked = fake_validation(monkeypatch, [0.6, 0.8, 0.7, 0.75, 0.9])
    result = train(tiny_config(schema, optimiser__epochs=5, checkpoint_every=8), tmp_path / "run")
    assert (result["train"]["best_epoch"], result["train"]["epochs"]) == (2, 4)
    assert result["valid"]["click"]["auc"] == 0.8
    best, _ = read_safetensors(tmp_path / "run" / "model.safetensors")
    last = newest_checkpoint(tmp_path / "run")
    for name, value in best.items():
        assert torch.equal(value, last.tensors[f"best.{name}"]), name
    assert not torch.equal(best["features.embedding.weight"], last.tensors["model.features.embedding.weight"])
    assert torch.equal(best["features.embedding.weight"], asked[1][1])
    assert [name for name, _ in asked] == ["valid"] * 4 + ["test"], "test rows are evaluated once, after training"
    assert torch.equal(best["features.embedding.weight"], asked[-1][1])


@pytest.mark.parametrize(("monitor", "best"), [({}, 2), ({"early_stopping__monitor": "auc"}, 3)], ids=["default", "auc"])
def test_an_overfit_epoch_is_kept_only_if_auc_is_monitored(schema, tmp_path, monkeypatch, monitor, best):
    fake_validation(monkeypatch, [0.6, 0.7, 0.75], log_losses=[0.6, 0.5, 0.7])
    result = train(tiny_config(schema, **monitor), tmp_path / "run")
    assert result["train"]["best_epoch"] == best


def test_every_epoch_has_its_own_row_order_from_the_seed(schema, tmp_path, monkeypatch):
    asked = []

    class Loader(BlockLoader):
        def batches(self, epoch=0, start=0):
            if self.split.name == "train":
                asked.append((self.shuffle, self.seed, epoch, start))
            return super().batches(epoch, start)

    monkeypatch.setattr(trainer, "BlockLoader", Loader)
    train(tiny_config(schema, seed=7), tmp_path / "run")
    assert asked == [(True, 7, 0, 0), (True, 7, 1, 0), (True, 7, 2, 0)]


def test_the_training_loss_of_an_epoch_is_the_mean_over_its_rows(schema, dataset, tmp_path):
    train(tiny_config(schema, optimiser__epochs=1, log_every=1), tmp_path / "run")
    position = newest_checkpoint(tmp_path / "run").state["position"]
    assert [step for step, _ in position["curve"]] == list(range(1, 9))
    rows = [128] * 7 + [len(dataset.split("train")) - 7 * 128]
    expected = np.average([loss for _, loss in position["curve"]], weights=rows)
    assert position["history"][1]["train_loss"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 10**6])
def test_batches_of_one_row_and_of_all_rows_train(tmp_path, batch_size):
    table = write_table(tmp_path, rows=60)
    result = train(tiny_config(table, optimiser__batch_size=batch_size, optimiser__epochs=1), tmp_path / "run")
    assert result["train"]["steps"] == (1 if batch_size > 1 else 38)


def test_every_steps_evaluates_inside_an_epoch_and_keeps_the_best_weights(schema, tmp_path, monkeypatch):
    """An epoch has 8 steps: evaluations after 3, 6, 8, 9, 12, 15."""
    asked = fake_validation(monkeypatch, [0.6, 0.8, 0.9, 0.7, 0.75])
    result = train(tiny_config(schema, early_stopping__every_steps=3), tmp_path / "run")
    assert [name for name, _ in asked] == ["valid"] * 5 + ["test"]
    trained = result["train"]
    assert (trained["best_step"], trained["best_epoch"], trained["steps"], trained["epochs"]) == (8, 1, 12, 2)
    assert torch.equal(asked[2][1], asked[-1][1]), "the test rows are evaluated with other weights than those of the best evaluation"


@pytest.mark.parametrize(
    ("every", "batch_size", "steps"),
    [(None, 128, [0, 2, 4, 6, 8, 10, 12, 14, 16]), (None, 350, [0, 1, 2, 3, 4, 5, 6]), (3, 128, [0, 3, 6, 8, 9, 12, 15, 16])],
)
def test_a_run_evaluates_four_times_an_epoch_or_after_so_many_steps(schema, tmp_path, every, batch_size, steps):
    options = {"optimiser__epochs": 2, "optimiser__batch_size": batch_size, "early_stopping__patience": 100}
    train(tiny_config(schema, early_stopping__every_steps=every, **options), tmp_path / "run")
    history = newest_checkpoint(tmp_path / "run").state["position"]["history"]
    assert [record["step"] for record in history] == steps


@pytest.mark.parametrize(
    ("has", "taken"),
    [
        ({"avx512_bf16": True, "sse4a": True}, "bfloat16"),
        ({"avx512_bf16": True, "sse4a": False}, "float32"),  # Intel's, on which bfloat16 takes longer
        ({"avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "sse4a": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_a_cpu_that_is_fast_in_bfloat16_takes_it(has, taken, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert select_precision("auto", torch.device("cpu")) == taken


def test_a_step_in_bfloat16_trains_weights_close_to_those_of_float32(schema, tmp_path):
    weights = []
    for precision in ("float32", "bfloat16"):
        train(tiny_config(schema, precision=precision), tmp_path / precision)
        tensors, _ = read_safetensors(tmp_path / precision / "model.safetensors")
        assert {value.dtype for value in tensors.values()} == {torch.float32}
        weights.append(torch.cat([value.flatten() for value in tensors.values()]))
    distance = (weights[0] - weights[1]).norm() / weights[0].norm()
    assert 0 < distance < 0.05, f"relative distance {distance:.1e}: 0 means that bfloat16 changed nothing"
