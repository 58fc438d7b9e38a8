"""One run from configuration to metrics: :func:`train`, and :func:`evaluate_run` for a run that exists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dcrnn_fast.errors import CheckpointError, DataError
from dcrnn_fast.training.build import deterministic, load_model, select_backend, select_device
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
    folder, stored = enter_run(Path(output), config, resume=resume)
    if folder.metrics.is_file():
        report.note(f"{folder.root} holds a finished run: nothing is left to train")
        return read_metrics(folder)
    config = stored or config
    device = select_device(config.device)
    select_backend(config.backend, device)
    if not stored:
        config = config.model_copy(update={"device": str(device), "threads": config.threads or torch.get_num_threads()})
    dataset = dataset or prepare_data(config)
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
    dataset = prepare_data(config)
    _check_data(about, dataset, folder, named=data is not None)
    with deterministic(config.threads):
        metrics = evaluate_split(model, dataset.split(split), dataset.meta, place)
    return {"data": dataset.meta.name, "split": split, "metrics": metrics}


def prepare_data(config: RunConfig) -> PackedDataset:
    """The packed data set of a configuration, encoded on first use."""
    from dcrnn_fast.data import prepare

    return prepare(config.data, seed=config.split_seed, valid_fraction=config.valid_fraction)


def read_metrics(folder: RunFolder) -> dict[str, Any]:
    """The results of a finished run. Raises :class:`CheckpointError` if the file is damaged."""
    try:
        metrics: dict[str, Any] = json.loads(folder.metrics.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder.metrics} cannot be read ({error}); delete it and use --resume to compute it again") from error
    return metrics


def _conclude(trainer: Trainer) -> dict[str, Any]:
    at, folder, meta = trainer.at, trainer.folder, trainer.dataset.meta
    load_tensors(trainer.model, trainer.best, folder.checkpoints)
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
    now = {"tasks": list(meta.tasks), "fields": dict(meta.fields), "dense": list(meta.dense)}
    for key, value in now.items():
        if about[key] != value:
            raise DataError(
                f"{folder.weights} was trained with {key} {about[key]}, but {meta.name} has {value}; evaluate on data of the same columns"
            )
    if not named and about["data"]["digest"] != meta.digest:
        raise DataError(
            f"the rows of {meta.name} are not those that {folder.root} was trained on; give --data to evaluate on them all the same"
        )
