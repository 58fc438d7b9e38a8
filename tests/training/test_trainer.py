import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dcrnn_fast
from dcrnn_fast.data import BlockLoader
from dcrnn_fast.errors import CheckpointError, ConfigError, DataError, RunFolderError, TrainingDivergedError
from dcrnn_fast.training import loop, trainer
from dcrnn_fast.training.build import build_model, build_optimiser, describe, load_model
from dcrnn_fast.training.checkpoint import load_checkpoint, pack_tensors, read_safetensors
from dcrnn_fast.training.config import load_config
from dcrnn_fast.training.evaluate import predict_split
from dcrnn_fast.training.progress import Report
from dcrnn_fast.training.run_folder import RunFolder
from dcrnn_fast.training.trainer import evaluate_run, train
from tests.training.tiny import tiny_config, write_table


def weights(folder):
    return RunFolder(folder).weights.read_bytes()


def test_a_run_folder_holds_config_metrics_weights_curves_log_and_two_checkpoints(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml",
        "metrics.json",
        "model.safetensors",
        "encoder.json",
        "curves.svg",
        "tensorboard",
        "checkpoints",
    }
    assert len(list((finished / "checkpoints").iterdir())) == 2
    assert (finished / "curves.svg").read_text().rstrip().endswith("</svg>")


def test_metrics_json_has_the_test_metrics_of_every_task_and_what_the_run_cost(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {name: entry["role"] for name, entry in metrics["test"].items()} == {"click": "CTR", "buy": "CTCVR", "buy_given_click": "CVR"}
    assert set(metrics["test"]["click"]) == {"rows", "positives", "auc", "log_loss", "calibration", "gauc", "role"}
    assert metrics["train"]["seconds"] > 0
    assert metrics["train"]["rows_per_second"] > 0
    assert (metrics["train"]["epochs"], metrics["train"]["steps"]) == (3, 24)
    assert metrics["model"]["backend"] == "reference"
    assert metrics["model"]["parameters"] == load_model(finished / "model.safetensors")[0].num_parameters
    assert metrics["valid"].keys() == metrics["test"].keys()


def test_training_learns_the_task(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["test"]["click"]["auc"] > 0.75


def test_the_same_seed_gives_the_same_bits(schema, finished, tmp_path):
    train(tiny_config(schema), tmp_path / "again")
    assert weights(tmp_path / "again") == weights(finished)


def test_another_seed_gives_other_weights(schema, finished, tmp_path):
    train(tiny_config(schema, seed=1), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(finished)


def test_evaluating_the_run_repeats_its_test_metrics(finished):
    result = evaluate_run(finished)
    assert result["metrics"] == json.loads((finished / "metrics.json").read_text())["test"]
    assert evaluate_run(finished, split="valid")["metrics"] == json.loads((finished / "metrics.json").read_text())["valid"]


def fake_evaluation(monkeypatch, aucs):
    """Validation AUCs as given, one an epoch; returns the splits' names and the embeddings at each evaluation."""
    asked = []
    values = iter(aucs)

    def evaluate(model, split, meta, device):
        asked.append((split.name, model.embedding.weight.detach().clone()))
        auc = next(values) if split.name == "valid" else 0.5
        entry = {"rows": 1, "positives": 1, "auc": auc, "log_loss": 1 - auc, "calibration": 1.0}
        return {task: entry for task in meta.tasks}

    monkeypatch.setattr(loop, "evaluate_split", evaluate)
    monkeypatch.setattr(trainer, "evaluate_split", evaluate)
    return asked


def test_the_best_validation_epoch_is_kept_and_the_run_stops_after_its_patience(schema, tmp_path, monkeypatch):
    asked = fake_evaluation(monkeypatch, [0.6, 0.8, 0.7, 0.75, 0.9])
    result = train(tiny_config(schema, optimiser__epochs=5, checkpoint_every=8), tmp_path / "run")
    assert (result["train"]["best_epoch"], result["train"]["epochs"]) == (2, 4)
    assert result["valid"]["click"]["auc"] == 0.8
    best, _ = read_safetensors(tmp_path / "run" / "model.safetensors")
    last = load_checkpoint(RunFolder(tmp_path / "run").newest_checkpoint())
    for name, value in best.items():
        assert torch.equal(value, last.tensors[f"best.{name}"]), name
    assert not torch.equal(best["embedding.weight"], last.tensors["model.embedding.weight"])
    assert torch.equal(best["embedding.weight"], asked[1][1])
    assert asked[-1][0] == "test"
    assert torch.equal(best["embedding.weight"], asked[-1][1])


def test_log_loss_is_monitored_downwards(schema, tmp_path, monkeypatch):
    fake_evaluation(monkeypatch, [0.6, 0.8, 0.7])
    result = train(tiny_config(schema, early_stopping__monitor="log_loss"), tmp_path / "run")
    assert result["train"]["best_epoch"] == 2


def test_test_rows_are_evaluated_once_and_only_after_training(schema, tmp_path, monkeypatch):
    asked = fake_evaluation(monkeypatch, [0.6, 0.8, 0.7])
    train(tiny_config(schema), tmp_path / "run")
    assert [name for name, _ in asked] == ["valid", "valid", "valid", "test"]


def test_every_epoch_has_its_own_row_order_from_the_seed(schema, tmp_path, monkeypatch):
    asked = []

    class Loader(BlockLoader):
        def batches(self, epoch=0, start=0):
            if self.split.name == "train":
                asked.append((self.shuffle, self.seed, epoch, start))
            return super().batches(epoch, start)

    monkeypatch.setattr(loop, "BlockLoader", Loader)
    train(tiny_config(schema, seed=7), tmp_path / "run")
    assert asked == [(True, 7, 0, 0), (True, 7, 1, 0), (True, 7, 2, 0)]


def test_the_training_loss_of_an_epoch_is_the_mean_over_its_rows(schema, dataset, tmp_path):
    train(tiny_config(schema, optimiser__epochs=1, log_every=1), tmp_path / "run")
    position = load_checkpoint(RunFolder(tmp_path / "run").newest_checkpoint()).state["position"]
    assert [step for step, _ in position["curve"]] == list(range(1, 9))
    rows = [128] * 7 + [len(dataset.split("train")) - 7 * 128]
    expected = np.average([loss for _, loss in position["curve"]], weights=rows)
    assert position["history"][0]["train_loss"] == pytest.approx(expected, rel=1e-12)


def test_a_test_label_has_no_influence_on_the_weights(schema, dataset, finished, tmp_path):
    split = dataset.split("test")
    changed = type(split)("test", split.ids, split.dense, 1 - np.asarray(split.labels), split.weight, split.group)
    other = type(dataset)(dataset.path, dataset.meta, dict(dataset.splits) | {"test": changed})
    train(tiny_config(schema), tmp_path / "run", dataset=other)
    assert weights(tmp_path / "run") == weights(finished)


def test_uncertainty_weighting_trains_its_log_variances(schema, tmp_path):
    train(tiny_config(schema, loss__weighting="uncertainty"), tmp_path / "run")
    saved = load_checkpoint(RunFolder(tmp_path / "run").newest_checkpoint()).tensors
    log_variance = saved["weighting.log_variance"]
    assert log_variance.shape == (2,)
    assert (log_variance != 0).all()
    assert log_variance[0] != log_variance[1]


def test_a_task_of_weight_zero_does_not_move_its_own_parameters(schema, tmp_path):
    common = {"model__relation": "independent", "model__share_ratio": 0.0, "optimiser__weight_decay": 0.0, "model__dropout": 0.0}
    train(tiny_config(schema, loss__task_weight=[1, 0], **common), tmp_path / "run")
    saved = load_checkpoint(RunFolder(tmp_path / "run").newest_checkpoint()).tensors
    moved = [saved[f"optimiser.{name}.exp_avg_sq"] for name in ("model.cross.private_weight",)]
    assert moved[0][0].any()
    assert not moved[0][1].any()


def test_biases_and_log_variances_do_not_decay_and_everything_else_does(schema, dataset):
    config, cpu = tiny_config(schema), torch.device("cpu")
    model = build_model(describe(config, dataset.meta), device=cpu, backend="reference")
    weighting = dcrnn_fast.UncertaintyWeighting(2)
    optimiser = build_optimiser(config, {"model": model, "weighting": weighting}, cpu)
    names = {id(parameter): name for module in (model, weighting) for name, parameter in module.named_parameters()}
    decays = {names[id(parameter)]: group["weight_decay"] for group in optimiser.param_groups for parameter in group["params"]}
    assert set(decays) == set(names.values())
    for name, decay in decays.items():
        assert decay == (0.0 if name.endswith(("bias", "log_variance")) else config.optimiser.weight_decay), name


def test_a_loss_that_is_no_longer_finite_stops_the_run_and_keeps_the_last_checkpoint(schema, tmp_path, monkeypatch):
    real_loss, calls = dcrnn_fast.DCRNN.loss, []

    def loss(self, *arguments, **options):
        calls.append(1)
        return real_loss(self, *arguments, **options) * (float("nan") if len(calls) == 5 else 1)

    monkeypatch.setattr(dcrnn_fast.DCRNN, "loss", loss)
    with pytest.raises(TrainingDivergedError, match=r"became nan at or shortly before step 6; the last checkpoint, step-00000003, is from"):
        train(tiny_config(schema), tmp_path / "run")
    kept = load_checkpoint(RunFolder(tmp_path / "run").newest_checkpoint())
    assert all(value.isfinite().all() for name, value in kept.tensors.items() if value.is_floating_point())


def test_weights_that_are_no_longer_finite_are_never_saved(schema, tmp_path, monkeypatch):
    real_step = loop.Trainer._step

    def step(self, batch):
        real_step(self, batch)
        if self.at.step == 3:
            self.model.embedding.weight.data[0] = float("inf")

    monkeypatch.setattr(loop.Trainer, "_step", step)
    with pytest.raises(TrainingDivergedError, match=r"weights embedding\.weight are no longer finite at step 3; no checkpoint was written"):
        train(tiny_config(schema), tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"loss__task_weight": [1, 2, 3]}, "loss.task_weight has 3 values, expected one for each of the 2 tasks: click, buy"),
        ({"loss__task_weight": [1, 2], "loss__weighting": "uncertainty"}, "remove one of them"),
        ({"device": "abacus"}, "device is 'abacus', expected auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:99"}, "device is 'cuda:99', but PyTorch"),
        ({"backend": "abacus"}, "backend='abacus': expected one of"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_and_the_folder_stays_free(schema, tmp_path, overrides, expected):
    with pytest.raises(ConfigError) as caught:
        train(tiny_config(schema, **overrides), tmp_path / "run")
    assert expected in str(caught.value)
    assert list((tmp_path / "run").iterdir()) == []


def test_an_unknown_data_set_is_refused_and_the_folder_stays_free(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'absent'"):
        train(tiny_config("absent"), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_rows_that_break_the_funnel_are_refused_under_chain_unless_allowed(tmp_path):
    table = write_table(tmp_path, broken_funnel=True, funnel=False)
    with pytest.raises(DataError, match="tiny: the model refuses the batch of step 1: "):
        train(tiny_config(table, model__relation="chain"), tmp_path / "run")
    allowed = {"model__relation": "chain", "loss__strict_funnel": False, "optimiser__epochs": 1}
    train(tiny_config(table, **allowed), tmp_path / "allowed")


def test_validation_rows_of_one_class_cannot_be_monitored_by_auc_but_by_log_loss(schema, dataset, tmp_path):
    split = dataset.split("valid")
    constant = type(split)("valid", split.ids, split.dense, np.zeros_like(split.labels), split.weight, split.group)
    other = type(dataset)(dataset.path, dataset.meta, dict(dataset.splits) | {"valid": constant})
    with pytest.raises(ConfigError, match=r"early_stopping\.monitor is 'auc', which no task has"):
        train(tiny_config(schema), tmp_path / "run", dataset=other)
    result = train(tiny_config(schema, early_stopping__monitor="log_loss", optimiser__epochs=1), tmp_path / "other", dataset=other)
    assert result["valid"]["click"]["auc"] is None


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
    with pytest.raises(RunFolderError, match="already holds a finished run"):
        train(tiny_config(schema), finished)


def test_a_folder_that_cannot_be_made_is_named(schema, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "run", Path("/sys/dcrnn_fast_run")):
        with pytest.raises(RunFolderError, match="choose another --output") as caught:
            train(tiny_config(schema), output)
        assert str(output) in str(caught.value)


def test_a_loaded_model_predicts_what_the_run_measured(finished, dataset):
    model, about = load_model(finished / "model.safetensors", backend="reference")
    assert not model.training
    fields = [["shape", 6], ["colour", 10], ["size", 9]]
    assert (about["tasks"], about["fields"], about["relation"]) == (["click", "buy"], fields, "chain")
    predictions = predict_split(model, dataset.split("test"), torch.device("cpu"))
    assert set(predictions) == {"click", "buy", "buy_given_click"}
    folder, cpu = RunFolder(finished), torch.device("cpu")
    again = loop.Trainer(load_config(folder.config), dataset, folder, Report(), device=cpu)
    again.load(folder.newest_checkpoint())
    again.model.load_state_dict(again.best)
    for name, expected in predict_split(again.model, dataset.split("test"), cpu).items():
        np.testing.assert_array_equal(predictions[name], expected, err_msg=name)
    assert predictions["click"].shape == (len(dataset.split("test")),)


def test_tampered_weights_are_refused(finished, tmp_path):
    data = bytearray((finished / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors was changed after it was written"):
        load_model(tmp_path / "model.safetensors")


def test_weights_without_a_description_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(pack_tensors({"weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="has no dcrnn_fast description"):
        load_model(tmp_path / "model.safetensors")


def test_evaluating_a_folder_without_a_run_or_without_weights_says_so(finished, tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        evaluate_run(tmp_path)
    shutil.copy(finished / "config.yaml", tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not exist"):
        evaluate_run(tmp_path)


def test_evaluating_on_data_of_other_columns_names_what_differs(finished, tmp_path):
    table = write_table(tmp_path, categorical=["colour"])
    with pytest.raises(DataError, match="was trained with fields"):
        evaluate_run(finished, data=str(table))


def test_evaluating_on_named_data_of_the_same_columns_is_allowed_and_changed_data_is_not_taken_silently(tmp_path):
    table = write_table(tmp_path, seed=3)
    train(tiny_config(table, optimiser__epochs=1), tmp_path / "run")
    write_table(tmp_path, seed=4)
    with pytest.raises(DataError, match="give --data to evaluate on them all the same"):
        evaluate_run(tmp_path / "run")
    assert evaluate_run(tmp_path / "run", data=str(table))["metrics"]["click"]["rows"] == 450


def test_training_leaves_pytorchs_settings_as_they_were(schema, tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(tiny_config(schema, optimiser__epochs=1), tmp_path / "run")
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_the_digest_of_the_weights_covers_the_order_of_the_fields(finished, tmp_path):
    tensors, metadata = read_safetensors(finished / "model.safetensors")
    sealed = json.loads(metadata["dcrnn_fast"])
    sealed["about"]["fields"].sort()
    (tmp_path / "model.safetensors").write_bytes(pack_tensors(tensors, {"dcrnn_fast": json.dumps(sealed)}))
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        load_model(tmp_path / "model.safetensors")


def test_a_description_with_nan_is_refused(finished, tmp_path):
    tensors, metadata = read_safetensors(finished / "model.safetensors")
    sealed = json.loads(metadata["dcrnn_fast"])
    sealed["about"]["model"]["dropout"] = float("nan")
    (tmp_path / "model.safetensors").write_bytes(pack_tensors(tensors, {"dcrnn_fast": json.dumps(sealed)}))
    with pytest.raises(CheckpointError, match="has no dcrnn_fast description"):
        load_model(tmp_path / "model.safetensors")


def test_other_data_is_encoded_as_the_runs_own(finished, schema, tmp_path):
    """The rows of the run, with train rows besides that turn the frequencies of the categories and the scale of the sizes around."""
    table = write_table(tmp_path, files={"train": "train.csv", "test": "test.csv"})
    lines = (tmp_path / "tiny.csv").read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join(lines) + "\n")
    flipped = [
        f"c{8 - row % 9},s{4 - row % 5},{100 + row % 7},u1,1,{row % 2},0" for row in range(400) for _ in range(1 + row % 9 + row % 5)
    ]
    (tmp_path / "train.csv").write_text("\n".join([lines[0], *flipped]) + "\n")
    whole = write_table(tmp_path / "whole", files={"all": "tiny.csv", "test_fraction": 0.999})
    expected = evaluate_run(finished, data=str(whole))["metrics"]["click"]
    found = evaluate_run(finished, data=str(table))["metrics"]["click"]
    assert found["auc"] == pytest.approx(expected["auc"], abs=5e-3)
    assert evaluate_run(finished, data=str(schema))["metrics"] == evaluate_run(finished)["metrics"]


def test_a_changed_or_missing_encoder_is_refused(finished, schema, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    encoder = tmp_path / "run" / "encoder.json"
    content = json.loads(encoder.read_text())
    content["scaling"]["size"]["mean"] += 1
    for text, said in (
        (json.dumps(content), "was changed after it was written"),
        ("{", "cannot be read"),
        ('{"a": NaN}', "cannot be read"),
    ):
        encoder.write_text(text)
        with pytest.raises(CheckpointError, match=rf"encoder\.json {said}"):
            evaluate_run(tmp_path / "run", data=str(schema))
    encoder.unlink()
    with pytest.raises(CheckpointError, match=r"encoder\.json cannot be read"):
        evaluate_run(tmp_path / "run", data=str(schema))


def with_split(dataset, name, **arrays):
    split = dataset.split(name)
    return replace(dataset, splits=dict(dataset.splits) | {name: replace(split, **arrays)})


def refused(error, config, dataset, folder):
    with pytest.raises(error) as caught:
        train(config, folder, dataset=dataset)
    assert list(folder.iterdir()) == []
    return str(caught.value)


def test_sample_weights_without_a_weight_column_are_refused(tmp_path):
    table = write_table(tmp_path, weight=None)
    with pytest.raises(ConfigError, match=r"loss\.sample_weight is true, but tiny has no weight column"):
        train(tiny_config(table, loss__sample_weight=True), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_a_split_without_rows_is_refused_before_training(schema, dataset, tmp_path, name):
    split = dataset.split(name)
    arrays = {key: getattr(split, key)[:0] for key in ("ids", "dense", "labels", "weight", "group")}
    assert f"tiny has no {name} rows" in refused(DataError, tiny_config(schema), with_split(dataset, name, **arrays), tmp_path / "run")


def test_train_rows_without_any_label_are_refused_before_training(schema, dataset, tmp_path):
    unknown = with_split(dataset, "train", labels=np.full_like(dataset.split("train").labels, np.nan))
    assert "every label of the train rows is unknown" in refused(DataError, tiny_config(schema), unknown, tmp_path / "run")


@pytest.mark.parametrize("monitor", ["auc", "log_loss"])
def test_validation_rows_without_any_label_are_refused_before_training_with_fitting_advice(schema, dataset, tmp_path, monitor):
    unknown = with_split(dataset, "valid", labels=np.full_like(dataset.split("valid").labels, np.nan))
    message = refused(ConfigError, tiny_config(schema, early_stopping__monitor=monitor), unknown, tmp_path / "run")
    assert f"early_stopping.monitor is '{monitor}', but every label of the validation rows of tiny is unknown; use a larger" in message
    assert "use log_loss" not in message


def test_weights_that_diverge_in_the_last_step_of_an_epoch_are_named_before_they_are_judged(schema, tmp_path, monkeypatch):
    real_step = loop.Trainer._step

    def step(self, batch):
        real_step(self, batch)
        if self.at.step == 8:
            self.model.embedding.weight.data[:] = float("nan")

    monkeypatch.setattr(loop.Trainer, "_step", step)
    with pytest.raises(
        TrainingDivergedError, match=r"embedding\.weight are no longer finite at step 8; the last checkpoint, step-00000006"
    ):
        train(tiny_config(schema), tmp_path / "run")


def test_validation_predictions_that_are_not_finite_stop_the_run(schema, tmp_path, monkeypatch):
    real = dcrnn_fast.DCRNN.predict

    def predict(self, ids, dense=None):
        return {name: value * float("nan") for name, value in real(self, ids, dense).items()}

    monkeypatch.setattr(dcrnn_fast.DCRNN, "predict", predict)
    with pytest.raises(TrainingDivergedError, match=r"the predictions .*click.* on the valid rows of tiny are not finite"):
        train(tiny_config(schema), tmp_path / "run")
    assert not RunFolder(tmp_path / "run").weights.exists()


def test_a_run_folder_that_cannot_be_read_is_a_run_folder_error(finished, monkeypatch):
    def is_file(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(RunFolderError, match=r"cannot read .*finished: Permission denied"):
        evaluate_run(finished)


def test_a_schema_named_from_one_folder_is_found_from_another(tmp_path, monkeypatch):
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    train(tiny_config("tiny.yaml", optimiser__epochs=1), tmp_path / "run")
    assert load_config(tmp_path / "run" / "config.yaml").data == str(tmp_path / "tiny.yaml")
    train(tiny_config("tiny.yaml", optimiser__epochs=1), tmp_path / "run", resume=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate_run(tmp_path / "run")["metrics"]["click"]["rows"] == 450
