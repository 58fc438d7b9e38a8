import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dcrnn_fast.data import BlockLoader
from dcrnn_fast.errors import RunFolderError
from dcrnn_fast.training import load_model, train
from dcrnn_fast.training.device import select_precision
from dcrnn_fast.training.evaluate.plots import write_curves
from dcrnn_fast.training.folder.layout import RunFolder, stored_config
from dcrnn_fast.training.folder.tensors import read_safetensors
from dcrnn_fast.training.loop import trainer
from tests.training.tiny import fake_validation, newest_checkpoint, tiny_config, write_table


def test_a_run_folder_holds_config_metrics_weights_curves_log_and_two_checkpoints(finished):
    files = {
        "config.yaml",
        "metrics.json",
        "model.safetensors",
        "optimiser.safetensors",
        "encoder.json",
        "schema.yaml",
        "curves.svg",
        ".lock",
    }
    assert {path.name for path in finished.iterdir()} == files | {"tensorboard", "checkpoints"}
    assert len(list((finished / "checkpoints").iterdir())) == 2


def test_the_curves_of_a_run_have_the_same_bytes_in_any_style_of_the_process(schema, tmp_path, with_curves):
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


def test_metrics_json_has_the_test_metrics_of_every_task_and_what_the_run_cost(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {name: entry["role"] for name, entry in metrics["test"].items()} == {"click": "CTR", "buy": "CTCVR", "buy_given_click": "CVR"}
    of_groups = {"gauc", "ndcg@10", "mrr", "hit_rate@10", "groups", "groups_undefined"}
    of_rows = {"rows", "positives", "auc", "log_loss", "constant_log_loss", "calibration", "role"}
    assert set(metrics["test"]["click"]) == of_rows | of_groups
    assert metrics["train"]["seconds"] > 0
    assert metrics["train"]["rows_per_second"] > 0
    assert (metrics["train"]["epochs"], metrics["train"]["steps"]) == (3, 24)
    assert metrics["model"]["backend"] == "reference"
    assert metrics["model"]["parameters"] == load_model(finished / "model.safetensors")[0].num_parameters
    assert metrics["valid"].keys() == metrics["test"].keys()


def test_training_learns_the_task(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["test"]["click"]["auc"] > 0.7


def weights(folder):
    return RunFolder(folder).weights.read_bytes()


def test_another_seed_gives_other_weights(schema, finished, tmp_path):
    train(tiny_config(schema, seed=1), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(finished)


def test_a_test_label_has_no_influence_on_the_weights(schema, dataset, finished, tmp_path):
    split = dataset.split("test")
    other = replace(dataset, splits=dict(dataset.splits) | {"test": replace(split, labels=1 - np.asarray(split.labels))})
    train(tiny_config(schema), tmp_path / "run", dataset=other)
    assert weights(tmp_path / "run") == weights(finished)


def test_the_best_validation_epoch_is_kept_and_the_run_stops_after_its_patience(schema, tmp_path, monkeypatch):
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
    assert asked[-1][0] == "test"
    assert torch.equal(best["features.embedding.weight"], asked[-1][1])


@pytest.mark.parametrize(("monitor", "best"), [({}, 2), ({"early_stopping__monitor": "auc"}, 3)], ids=["default", "auc"])
def test_an_overfit_epoch_of_high_auc_but_bad_log_loss_is_kept_only_if_auc_is_monitored(schema, tmp_path, monkeypatch, monitor, best):
    fake_validation(monkeypatch, [0.6, 0.7, 0.75], log_losses=[0.6, 0.5, 0.7])
    result = train(tiny_config(schema, **monitor), tmp_path / "run")
    assert result["train"]["best_epoch"] == best


def test_test_rows_are_evaluated_once_and_only_after_training(schema, tmp_path, monkeypatch):
    asked = fake_validation(monkeypatch, [0.6, 0.8, 0.7])
    train(tiny_config(schema), tmp_path / "run")
    assert [name for name, _ in asked] == ["valid", "valid", "valid", "test"]


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


def test_one_task_trains(tmp_path):
    table = write_table(tmp_path, rows=300, funnel=False, tasks=[{"name": "click", "column": "clicked"}])
    assert set(train(tiny_config(table, optimiser__epochs=1), tmp_path / "run")["test"]) == {"click"}


def test_a_folder_of_something_else_is_left_alone(schema, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty and holds no run; choose an empty --output folder"):
        train(tiny_config(schema), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_finished_run_is_not_overwritten(schema, finished):
    with pytest.raises(RunFolderError, match="already holds a finished run; go on with --resume, or choose another --output"):
        train(tiny_config(schema), finished, resume=False)


def test_a_folder_that_cannot_be_made_is_named(schema, tmp_path):
    (tmp_path / "file").write_text("")
    remedies = "choose another --output|use a folder that can be written"
    for output in (tmp_path / "file", tmp_path / "file" / "run", Path("/sys/dcrnn_fast_run")):
        with pytest.raises(RunFolderError, match=remedies) as caught:
            train(tiny_config(schema), output)
        assert str(output) in str(caught.value)


def test_training_leaves_pytorchs_settings_as_they_were(schema, tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(tiny_config(schema, optimiser__epochs=1), tmp_path / "run")
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_every_steps_evaluates_inside_an_epoch_and_keeps_the_best_weights(schema, tmp_path, monkeypatch):
    """An epoch has 8 steps: evaluations after 3, 6, 8, 9, 12, 15."""
    asked = fake_validation(monkeypatch, [0.6, 0.8, 0.9, 0.7, 0.75])
    result = train(tiny_config(schema, early_stopping__every_steps=3), tmp_path / "run")
    assert [name for name, _ in asked] == ["valid"] * 5 + ["test"]
    trained = result["train"]
    assert (trained["best_step"], trained["best_epoch"], trained["steps"], trained["epochs"]) == (8, 1, 12, 2)
    assert torch.equal(asked[2][1], asked[-1][1]), "the test rows are evaluated with other weights than those of the best evaluation"


@pytest.mark.parametrize(("batch_size", "steps"), [(128, [0, 2, 4, 6, 8, 10, 12, 14, 16]), (350, [0, 1, 2, 3, 4, 5, 6])], ids=["8", "3"])
def test_a_run_evaluates_four_times_an_epoch_or_after_each_of_fewer_steps(schema, tmp_path, batch_size, steps):
    options = {"optimiser__epochs": 2, "optimiser__batch_size": batch_size, "early_stopping__patience": 100}
    train(tiny_config(schema, early_stopping__every_steps=None, **options), tmp_path / "run")
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


def test_the_configuration_of_a_run_says_which_precision_auto_took(schema, tmp_path):
    result = train(tiny_config(schema, optimiser__epochs=1), tmp_path / "run")
    assert result["config"]["precision"] == select_precision("auto", torch.device("cpu")) == stored_config(tmp_path / "run").precision


def test_a_step_in_bfloat16_trains_float32_weights_that_are_close_to_those_of_float32(schema, tmp_path):
    weights = []
    for precision in ("float32", "bfloat16"):
        train(tiny_config(schema, precision=precision), tmp_path / precision)
        tensors, _ = read_safetensors(tmp_path / precision / "model.safetensors")
        assert {value.dtype for value in tensors.values()} == {torch.float32}
        weights.append(torch.cat([value.flatten() for value in tensors.values()]))
    distance = (weights[0] - weights[1]).norm() / weights[0].norm()
    assert 0 < distance < 0.05, f"relative distance {distance:.1e}: 0 means that bfloat16 changed nothing"
