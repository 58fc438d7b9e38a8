"""Makes a trainer with all its parts, for a new run or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from ...data import BlockLoader
from ...errors import CheckpointError
from ...nn.model import DCRNN
from ..device import select_backend, select_precision
from ..folder.checkpoint import load_checkpoint
from ..folder.optimiser_file import READS, Known
from ..folder.weights import build_model, describe
from .gradient import BatchGradient, CounterfactualObjective
from .graph import compiled, measured_backends
from .job import Job
from .learned import Learned
from .optim import build_optimiser, build_weighting
from .policies import CheckpointPolicy, EarlyStopping, EvaluationPolicy
from .progress import Scalars
from .start import OOVDropout, first_order_of_ids_alone, set_edges
from .state import select
from .step import TrainingStep, recorder_for
from .trainer import Trainer


def build_trainer(job: Job, before: Known | None = None) -> Trainer:
    """A trainer at step 0. It writes nothing yet.

    With ``before``, what an earlier run knows, it goes on from that for one epoch by default, see :class:`.learned.Learned`.
    """
    config, dataset, device, ranks = job.config, job.dataset, job.device, job.ranks
    rows, about, precision = dataset.split("train"), describe(config, dataset), select_precision(config.precision, device)
    torch.manual_seed(config.seed)

    model = cast(DCRNN, build_model(about, device=device, backend=config.backend))
    set_edges(model, rows.dense, config.model.dense_bins)
    first_order_of_ids_alone(model)
    oov_dropout = OOVDropout(dataset, config.oov_dropout, device, before.tensors[READS] if before else None)
    if any(oov_dropout.strengths.values()):
        model.features.id_dropout = oov_dropout

    objective = model if config.loss.cvr == "entire_space" else CounterfactualObjective(config, model)
    task_weight = build_weighting(config, dataset.meta.tasks, device)
    trained = {"model": model, "weighting": task_weight, "imputation": getattr(objective, "imputation", None)}
    modules = nn.ModuleDict({name: module for name, module in trained.items() if isinstance(module, nn.Module)})
    optimiser = build_optimiser(config, modules, device)
    learned = Learned(before, job, optimiser, model)

    batch_size = config.optimiser.rows_a_step(len(rows))
    loader = BlockLoader(rows, batch_size, shuffle=True, seed=config.seed, shards=ranks.count, shard=ranks.rank)
    backend = measured_backends(job, model, loader, precision) or select_backend(config.backend, device)
    forward = None
    if config.compile:
        micro = config.optimiser.micro_batches > 1
        forward = compiled(objective, next(loader.batches()), precision, device, without_gradients=micro)
    gradient = BatchGradient(config, objective, task_weight, forward=forward, precision=precision, device=device, ranks=ranks)
    environment = {"torch": str(torch.__version__), "threads": torch.get_num_threads(), "backend": backend, "precision": precision}
    return Trainer(
        job,
        about=about,
        environment=environment | {"ranks": ranks.count},
        model=model,
        modules=modules,
        oov_dropout=oov_dropout,
        loader=loader,
        training_step=TrainingStep(gradient, optimiser, config.optimiser.clip_norm, recorder_for(job), batch_size),
        learned=learned,
        epochs=(config.optimiser.epochs or 1) if before else config.optimiser.epochs_of(len(loader)),
        evaluations=EvaluationPolicy(config.early_stopping, len(loader)),
        stopping=EarlyStopping(config.early_stopping.monitor == "auc", config.early_stopping.patience),
        checkpoints=CheckpointPolicy(config.checkpoint_every, ranks),
        scalars=Scalars(job.folder.tensorboard, writes=ranks.is_first),
    )


def resumed_trainer(job: Job, checkpoint: Path) -> Trainer:
    """A trainer at the position of a checkpoint.

    Raises :class:`CheckpointError` if the checkpoint is damaged, or belongs to other data or another model, and :class:`ConfigError` if it
    was written with another configuration.
    """
    held = load_checkpoint(checkpoint)
    job.folder.check_config(held.state["config"], job.config, checkpoint)
    if held.state["data_digest"] != job.dataset.meta.digest:
        raise CheckpointError(
            f"checkpoint {checkpoint} was trained on other rows than {job.dataset.meta.name} holds; restore the data, or start a new run"
        )
    before = Known(select(held.tensors, "before."), *held.state["before"]) if "before" in held.state else None
    trainer = build_trainer(job, before)
    trainer.load(held, checkpoint)
    return trainer
