"""One run from configuration to metrics: :func:`train`, and :func:`evaluate_run` for a run that exists."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dcrnn_fast.errors import CheckpointError, ConfigError, DataError
from dcrnn_fast.training.build import deterministic, load_model, read_encoding, read_weights, select_backend, select_device
from dcrnn_fast.training.checkpoint import load_tensors, remove_leftovers
from dcrnn_fast.training.config import RunConfig
from dcrnn_fast.training.evaluate import evaluate_split
from dcrnn_fast.training.files import write_json
from dcrnn_fast.training.loop import Trainer
from dcrnn_fast.training.plots import write_curves
from dcrnn_fast.training.progress import Report
from dcrnn_fast.training.run_folder import RunFolder, enter_run, stored_config

if TYPE_CHECKING:
    from dcrnn_fast.data import PackedDataset


def train(
    config: RunConfig,
    output: str | Path,
    *,
    resume: bool = False,
    dataset: PackedDataset | None = None,
    report: Report | None = None,
    on_step: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Train, keep the weights that are best on the validation rows, and judge them once on the test rows.

    ``output`` is the run folder. ``resume`` goes on after its newest checkpoint (from the start if it has none) and only reads the
    results if the run is finished. ``dataset`` spares the preparation of ``config.data``; ``on_step(step)`` is called after every
    step. Returns what ``metrics.json`` holds.

    Raises the errors of :mod:`dcrnn_fast.errors`.
    """
    report = report or Report()
    config = config.model_copy(update={"data": locate_data(config.data)})
    folder, stored = enter_run(Path(output), config, resume=resume)
    if folder.metrics.is_file():
        try:
            read_encoding(folder.encoder, read_weights(folder.weights)[1])
        except CheckpointError as error:
            report.note(f"writing the results of the finished run {folder.root} again: {error}")
        else:
            metrics = read_metrics(folder)
            report.note(f"{folder.root} holds a finished run: nothing is left to train")
            return metrics
    config = stored or config
    device = select_device(config.device)
    select_backend(config.backend, device)
    if not stored:
        config = config.model_copy(update={"device": str(device), "threads": config.threads or torch.get_num_threads()})
    dataset = dataset or prepare_data(config)
    check_rows(config, dataset)
    with deterministic(config.threads):
        trainer = Trainer(config, dataset, folder, report, device=device, on_step=on_step)
        if not stored:
            folder.claim(config)
        elif newest := folder.newest_checkpoint():
            report.note(f"resuming {folder.root} from {newest.name}")
            trainer.load(newest)
        else:
            report.note(f"{folder.root} has no checkpoint yet: starting at step 0")
        remove_leftovers(folder.checkpoints)
        trainer.run()
        return _conclude(trainer)


def evaluate_run(
    run: str | Path, *, data: str | None = None, split: str = "test", device: str | None = None, backend: str | None = None
) -> dict[str, Any]:
    """Metrics of a run's best weights on a split of its own data, or of ``data`` (which must have the same columns).

    ``data`` is encoded with what the run has learned from its own train rows: ids and dense values mean what they meant in training.
    ``device`` and ``backend`` replace the run's. Returns ``{"data": name, "split": split, "metrics": {task: {...}}}``.
    Raises the errors of :mod:`dcrnn_fast.errors`.
    """
    folder = RunFolder(Path(run))
    config = stored_config(folder.root)
    chosen = {"data": data, "device": device, "backend": backend}
    config = config.model_copy(update={key: value for key, value in chosen.items() if value is not None})
    place = select_device(config.device)
    select_backend(config.backend, place)
    model, about = load_model(folder.weights, device=place, backend=config.backend)
    dataset = prepare_data(config, None if data is None else read_encoding(folder.encoder, about))
    _check_data(about, dataset, folder, named=data is not None)
    if not len(dataset.split(split)):
        raise DataError(f"{dataset.meta.name} has no {split} rows to evaluate on; choose another --split, or other data")
    with deterministic(config.threads):
        metrics = evaluate_split(model, dataset.split(split), dataset.meta, place)
    return {"data": dataset.meta.name, "split": split, "metrics": metrics}


def prepare_data(config: RunConfig, encoding: Mapping[str, Any] | None = None) -> PackedDataset:
    """The packed data set of a configuration, encoded on first use; ``encoding`` is another data set's, learned from its train rows."""
    from dcrnn_fast.data import prepare

    return prepare(config.data, seed=config.split_seed, valid_fraction=config.valid_fraction, encoding=encoding)


def locate_data(data: str) -> str:
    """``data`` as it is understood from every working directory: absolute where it names a file."""
    from dcrnn_fast.data import known_data_sets

    return os.path.abspath(data) if data not in known_data_sets() and os.path.isfile(data) else data


def check_rows(config: RunConfig, dataset: PackedDataset) -> None:
    """Refuse data on which a run would fail only after hours.

    Raises :class:`DataError` for a split without rows or train rows without a label, :class:`ConfigError` for validation rows on which
    the monitored metric is undefined and for weighted rows without a weight column.
    """
    name = dataset.meta.name
    if config.loss.sample_weight and not dataset.meta.has_weight:
        raise ConfigError(
            f"loss.sample_weight is true, but {name} has no weight column; name one as `weight` in the schema, or set it to false"
        )
    for split in ("train", "valid", "test"):
        if not len(dataset.split(split)):
            remedy = "use a larger valid_fraction, or a validation file with rows" if split == "valid" else "mend `files` of its schema"
            raise DataError(f"{name} has no {split} rows; {remedy}")
    if np.isnan(dataset.split("train").labels).all():
        raise DataError(f"{name}: every label of the train rows is unknown; mend `tasks` of its schema")
    labels = np.asarray(dataset.split("valid").labels)
    positive, negative = (labels == 1).any(axis=0), (labels == 0).any(axis=0)
    monitor = config.early_stopping.monitor
    if not (positive | negative).any():
        raise ConfigError(
            f"early_stopping.monitor is {monitor!r}, but every label of the validation rows of {name} is unknown; "
            "use a larger valid_fraction, or validation rows with labels"
        )
    if monitor == "auc" and not (positive & negative).any():
        raise ConfigError(
            "early_stopping.monitor is 'auc', which no task has on the validation rows (one class only); "
            "use log_loss, a larger valid_fraction, or validation rows of both classes"
        )


def read_metrics(folder: RunFolder) -> dict[str, Any]:
    """The results of a finished run. Raises :class:`CheckpointError` if the file is damaged."""
    try:
        metrics: dict[str, Any] = json.loads(folder.metrics.read_text(encoding="utf-8"))
        whole = isinstance(metrics["data"]["name"], str) and all(
            entry.keys() >= {"rows", "positives", "auc", "log_loss", "calibration"} for entry in metrics["test"].values()
        )
        if not whole:
            raise ValueError("it lacks results")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder.metrics} cannot be read ({error}); delete it and use --resume to compute it again") from error
    return metrics


def _conclude(trainer: Trainer) -> dict[str, Any]:
    at, folder, meta = trainer.at, trainer.folder, trainer.dataset.meta
    load_tensors(trainer.model, trainer.best, folder.checkpoints)
    trainer.export()
    best_epoch = trainer.stopping.best_epoch
    metrics = {
        "test": evaluate_split(trainer.model, trainer.dataset.split("test"), meta, trainer.device),
        "valid": next(record["valid"] for record in at.history if record["epoch"] == best_epoch),
        "train": {
            "seconds": at.seconds,
            "rows_per_second": trainer.rows_per_second,
            "epochs": at.epoch,
            "best_epoch": best_epoch,
            "steps": at.step,
            "loss": at.history[-1]["train_loss"],
        },
        "model": {
            "parameters": trainer.model.num_parameters,
            "backend": trainer.environment()["backend"],
            "relation": trainer.about["relation"],
            "device": str(trainer.device),
            "threads": torch.get_num_threads(),
        },
        "data": {"name": meta.name, "digest": meta.digest, "rows": dict(meta.rows)},
    }
    write_curves(folder.curves, f"DCRNN on {meta.name}", at.curve, at.history)
    write_json(folder.metrics, metrics)
    return metrics


def _check_data(about: dict[str, Any], dataset: PackedDataset, folder: RunFolder, *, named: bool) -> None:
    meta = dataset.meta
    now = {"tasks": list(meta.tasks), "fields": [[name, size] for name, size in meta.fields.items()], "dense": list(meta.dense)}
    for key, value in now.items():
        if about[key] != value:
            raise DataError(
                f"{folder.weights} was trained with {key} {about[key]}, but {meta.name} has {value}; evaluate on data of the same columns"
            )
    if not named and about["data"]["digest"] != meta.digest:
        raise DataError(
            f"the rows of {meta.name} are not those that {folder.root} was trained on; give --data to evaluate on them all the same"
        )
