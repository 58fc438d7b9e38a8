"""One run from configuration to metrics."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data import PackedDataset, data_report
from ..data.encoder.run_folder import read_encoding
from ..data.packed.meta import SCHEMA
from ..errors import CheckpointError, ConfigError, DataError, shown
from ..support.files import path_of
from .config import RunConfig, located, read_config
from .data import check_rows, prepare_data
from .device import default_threads, deterministic, device_of_rank, select_backend, select_precision
from .embeddings import start_from_vectors
from .evaluate.intercept import shift_warnings
from .evaluate.metrics import with_constant
from .evaluate.plots import write_curves
from .evaluate.predict import evaluate_split
from .evaluate.ranking import K
from .evaluate.report import Result
from .folder.checkpoint import read_known, write_known
from .folder.layout import OVERWRITE, RunFolder, enter_run
from .folder.run_files import write_file, write_json, write_with_digest
from .folder.tensors import load_tensors
from .folder.weights import read_weights
from .init import (
    EMBEDDING,
    Earlier,
    check_continues,
    compare,
    continued_data,
    in_words,
    known_before,
    load_earlier,
    next_encoding,
    read_earlier,
)
from .loop.job import Job
from .loop.progress import Report
from .loop.trainer import Trainer
from .ranks import Ranks, joined


def train(
    config: RunConfig,
    output: str | Path,
    *,
    resume: bool | None = None,
    overwrite: bool = False,
    init: str | Path | None = None,
    dataset: PackedDataset | None = None,
    report: Report | None = None,
) -> Result:
    """Train, keep the weights that are best on the validation rows, and evaluate them once on the test rows.

    Under ``torchrun``, all processes must call this alike: they train one model together (docs/guide/scale.md). Rank 0 alone
    writes the folder and reports.

    Args:
        config: see :func:`load_config`.
        output: the run folder; new, empty, or one that holds a run, see ``resume`` and ``overwrite``. No other run may write to it now.
        resume: go on after the newest checkpoint, or start if there is none; a finished run is read, not trained again. By default, None, a
            finished run of this configuration and these rows is read, so that a notebook's cell may run twice, and a run that is not
            finished is an error; with False every run is one.
        overwrite: train anew where the folder holds a run, and delete that run's files once the data and the model are known to fit. Other
            files stay.
        init: the folder of an earlier run of the same model, from whose weights and vocabulary this one starts; replaces ``config.init``.
        dataset: packed data to use instead of preparing ``config.data``; with ``init``, in the encoding that
            :func:`dcrnn_fast.training.init.continued_data` makes. It may have no test rows; then there are no metrics of these.
        report: receives the progress; by default nothing is shown.

    Returns:
        What ``metrics.json`` holds but its digest: ``test`` and ``valid`` (metrics by task), ``train``, ``model``, ``data``, ``config``;
        with ``init`` also ``init``, see :func:`dcrnn_fast.training.init.compare`. A notebook shows it as a table.

    Raises:
        DcrnnFastError: one of the classes of :mod:`dcrnn_fast.errors`; the message says what to change.

    Example::

        metrics = train(load_config(None, {"data": "census-income"}), "runs/census")
        metrics["test"]["income"]["auc"]
    """
    for name, value, kind in (("config", config, RunConfig), ("dataset", dataset, PackedDataset), ("report", report, Report)):
        if not isinstance(value, kind) and (value is not None or name == "config"):
            raise TypeError(f"{name}={shown(value)}: expected a {kind.__name__}, got {type(value).__name__}")
    output = path_of("output", output)
    report = report or Report()
    config = located(config if init is None else config.model_copy(update={"init": str(path_of("init", init))}))
    if overwrite and (resume or (config.init and os.path.realpath(config.init) == os.path.realpath(output))):
        raise ConfigError(f"overwrite=True would delete the run in {output}, which resume or init needs; leave one of them out")
    with joined() as ranks, ExitStack() as stack:
        report = report if ranks.is_first else Report()

        def enter() -> dict[str, Any]:
            folder, stored = stack.enter_context(enter_run(output, config, resume=resume, overwrite=overwrite))
            metrics = _finished(folder, stored, report) if stored and folder.metrics.is_file() else None
            if metrics and stored and (resume is None or dataset is not None):
                now = (dataset or _prepare(stored, folder, None, report)).meta
                if now.digest != metrics["data"]["digest"]:
                    raise DataError(f"the run in {output} was trained on other rows than {now.name} has; name another folder; {OVERWRITE}")
            return {"metrics": metrics, "config": (stored or config).to_dict(), "is_new": stored is None}

        found = ranks.from_first(enter)
        if found["metrics"]:
            return Result(found["metrics"])
        folder = RunFolder(output)
        config = read_config(found["config"], str(folder.config))
        return Result(_train(config, folder, dataset, report, ranks, is_new=found["is_new"]))


def _finished(folder: RunFolder, config: RunConfig, report: Report) -> dict[str, Any] | None:
    """The results of a finished run, None if they or its weights must be written again. Raises what :func:`train` does."""
    try:
        metrics = folder.read_metrics()
        _, about, digest = read_weights(folder.weights)
        read_encoding(folder.encoder, about)
        if folder.newest_checkpoint():  # what can be written again must be there
            read_known(folder.optimiser, digest)
    except CheckpointError as error:
        if not folder.newest_checkpoint():
            raise CheckpointError(
                f"{error}. That needs a checkpoint, but {folder.checkpoints} holds none: restore one, or train in another folder"
            ) from error
        report.note(f"writing the results of the finished run {folder.root} again: {error}")
        return None
    folder.check_config(metrics.get("config", {}), config, folder.metrics)
    report.note(f"{folder.root} holds a finished run: nothing is left to train")
    return metrics


def _train(
    config: RunConfig,
    folder: RunFolder,
    dataset: PackedDataset | None,
    report: Report,
    ranks: Ranks,
    *,
    is_new: bool,
) -> dict[str, Any]:
    device = device_of_rank(config.device, ranks)
    select_backend(config.backend, device)
    if is_new:
        config = config.model_copy(
            update={
                "device": str(device) if ranks.count == 1 else device.type,
                "threads": config.threads or default_threads(),
                "precision": select_precision(config.precision, device),
            }
        )
    newest = None if is_new else folder.newest_checkpoint()
    earlier = read_earlier(Path(config.init)) if config.init is not None and newest is None else None
    is_given = dataset is not None
    dataset = dataset or ranks.one_after_another(lambda: _prepare(config, folder, earlier, report))
    if is_given and earlier is not None:
        check_continues(config, earlier, dataset.meta)
        if dataset.meta.encoding != next_encoding(config, earlier, dataset):
            raise DataError(f"dataset is not encoded as the run {config.init} was, with new ids behind its own; leave dataset or init out")
    check_rows(config, dataset, needs_test=not is_given)
    job = Job(config, dataset, folder, report, device, ranks)
    with deterministic(config.threads):
        if newest is not None:
            report.note(f"resuming {folder.root} from {newest.name}")
            trainer = Trainer.resumed(job, newest)
        else:
            before = None if earlier is None else known_before(earlier, dataset.meta)
            trainer = Trainer(job, before)
            for line in start_from_vectors(trainer.model.state_dict()[EMBEDDING], config.pretrained, dataset.meta):
                report.note(line)
            if earlier is not None:
                trainer.init = compare(config, earlier, dataset, device, ranks)
                load_earlier(trainer.model, earlier, dataset.meta)
            if not is_new:
                report.note(f"{folder.root} has no checkpoint yet: starting at step 0")
        warnings = data_report(dataset)["warnings"] if is_new and ranks.is_first else []
        ranks.check_same(trainer.where)
        if is_new and ranks.is_first:
            folder.claim(config)
        schema = dataset.path / SCHEMA
        if ranks.is_first:
            write_json(folder.encoder, dataset.meta.encoding)
            if schema.is_file() and not folder.schema.is_file():  # also of a run that was killed behind its claim
                write_file(folder.schema, schema.read_bytes())
        for line in warnings:
            report.note(f"warning: {line}")
        if config.oov_dropout == "auto" and is_new and (line := trainer.oov_dropout.in_words()):
            report.note(line)
        for line in in_words(trainer.init) if earlier is not None and trainer.init else ():
            report.note(line)
        if earlier is not None and earlier.folder.calibration.is_file():
            report.note(f"note: {earlier.folder.root} is calibrated, and this run is not; calibrate it when it has ended")
        trainer.run()
        return _conclude(trainer)


def _prepare(config: RunConfig, folder: RunFolder, earlier: Earlier | None, report: Report) -> PackedDataset:
    """The run's data: of a run without ``init`` in its own encoding, otherwise in that of the earlier run with its own new ids."""
    if config.init is None:
        return prepare_data(config, progress=report.preparing)
    if earlier is None:
        try:
            return prepare_data(config, read_encoding(folder.encoder, None), report.preparing)
        except CheckpointError:
            earlier = read_earlier(Path(config.init))
    return continued_data(config, earlier, partial(prepare_data, config, progress=report.preparing))


def _conclude(trainer: Trainer) -> dict[str, Any]:
    job, at = trainer.job, trainer.at
    config, folder, meta, report, weighted = job.config, job.folder, job.dataset.meta, job.report, job.config.loss.sample_weight
    rates = {} if weighted else trainer.about["base_rates"]
    load_tensors(trainer.model, trainer.best, folder.checkpoints)
    digest = trainer.export()
    if job.ranks.is_first:
        known = trainer.learned.after(at.step, trainer.loader.batch_size)
        write_known(folder.optimiser, known, digest)
    best = next(record for record in at.history if record["step"] == trainer.stopping.best_step)
    early = config.early_stopping
    no_better = f"{early.patience} evaluations brought no better {config.monitored}"
    why = "it was interrupted" if trainer.was_interrupted else no_better if trainer.stopping.should_stop else "all epochs are trained"
    if trainer.was_interrupted:
        report.note(f"warning: the run was interrupted after step {at.step}: the weights are the best so far")
    report.note(f"the run ends after step {at.step}, as {why}; it keeps the weights evaluated at step {best['step']}")
    if not best["step"] and trainer.learned.before is not None:
        report.note(
            "note: no evaluation was better than that before the first step, of the earlier weights with new effects of ids: these are kept"
        )
    elif not best["step"]:
        rare = "; if positives are few, early_stopping.monitor: auc may find a better one" if early.monitor == "log_loss" else ""
        report.note(f"warning: no evaluation was clearly better than that before the first step: the run keeps logistic regression{rare}")
    for line in shift_warnings(best["valid"], trainer.about["base_rates"]):
        report.note(line)
    rows = job.dataset.splits.get("test")
    test = evaluate_split(trainer.model, rows, meta, job.device, job.ranks, weighted=weighted, k=K) if rows else {}
    valid = with_constant(best["valid"], rates)
    metrics = {
        "test": with_constant(test, rates),
        "valid": valid,
        "train": {
            "seconds": at.seconds,
            "rows_per_second": trainer.rows_per_second,
            "epochs": at.epoch + bool(at.batch),
            "best_epoch": best["epoch"],
            "best_step": best["step"],
            "steps": at.step,
            "stopped": why,
            "loss": at.history[-1]["train_loss"],
            "batch_size": trainer.loader.batch_size,
            "oov_dropout": trainer.oov_dropout.strengths,
        },
        "model": {
            "parameters": trainer.model.num_parameters,
            "backend": trainer.environment["backend"],
            "relation": trainer.about["relation"],
            "device": str(job.device),
            "threads": torch.get_num_threads(),
            **({"ranks": job.ranks.count} if job.ranks.count > 1 else {}),
        },
        "data": {"name": meta.name, "digest": meta.digest, "rows": dict(meta.rows)},
        "config": config.to_dict(),
    }
    if trainer.init is not None:
        metrics["init"] = trainer.init

    def write() -> dict[str, Any]:
        constants = {name: entry["constant_log_loss"] for name, entry in valid.items()}
        write_curves(folder.curves, f"DCRNN on {meta.name}", at.curve, at.history, best["step"], constants)
        write_with_digest(folder.metrics, metrics)  # from here on the run is finished
        return metrics

    return job.ranks.from_first(write)
