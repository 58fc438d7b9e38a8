"""The training loop: steps, evaluations, early stopping and checkpoints.

A resumed run ends with the same bits as an uninterrupted one: :meth:`Trainer.save` stores everything that a later step depends on,
and the row order and the learning rate are functions of the position alone.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...data import Batch, BlockLoader
from ...errors import CheckpointError, DataError, TrainingDivergedError
from ...nn.model import DCRNN
from ...support.model_inputs import checked
from ..device import select_backend, select_precision
from ..evaluate.metrics import mean_over_tasks
from ..evaluate.predict import evaluate_split
from ..folder.checkpoint import READS, Known, load_checkpoint, save_checkpoint
from ..folder.tensors import all_finite, total
from ..folder.weights import build_model, describe, export_weights
from .gradient import BatchGradient, compiled, measured_backends
from .job import Job
from .learned import Learned
from .optim import build_optimiser, build_weighting, learning_rate
from .progress import Scalars
from .start import OOVDropout, dense_edges
from .state import EarlyStopping, Position, capture, mean_in_place, restore, select
from .step import TrainingStep, recorder_for

EVALUATIONS = 4
"""An epoch, unless ``early_stopping.every_steps`` says how often."""
STEPS, PAUSE = 200, 10
"""Without ``checkpoint_every``, the steps between checkpoints. A large table is written less often: after a checkpoint, training goes on
for at least so many times as long as writing it took."""
HALF_LIVES = 12
"""Of the mean of the weights: a run so far is at least so many, or the mean of a short one would still hold its first weights."""


class Trainer:
    """Trains the model of a job. It writes nothing before it is told to.

    With ``before``, what an earlier run knows, it goes on from that for one epoch by default, see :class:`.learned.Learned`; ``init`` then
    says how the two compare. ``about`` is the model's description in its weight file, ``environment`` what may change the last bits apart
    from the configuration. ``modules`` hold all that has parameters: the ``model``, and perhaps a ``weighting`` of the losses.
    """

    def __init__(self, job: Job, before: Known | None = None) -> None:
        config, dataset, device, ranks = job.config, job.dataset, job.device, job.ranks
        rows, precision = dataset.split("train"), select_precision(config.precision, device)
        self.job, self.about = job, describe(config, dataset)
        torch.manual_seed(config.seed)

        self.model = model = cast(DCRNN, build_model(self.about, device=device, backend=config.backend))
        if model.features.dense_embedding is not None and rows.dense is not None:
            model.features.dense_embedding.set_edges(dense_edges(rows.dense, config.model.dense_bins))
        if model.features.first_order is not None and model.features.first_order.dense_weight is not None:
            # It stays where it starts. Trained, it fits noise before the network learns: docs/evidence/defaults.md, "Numbers".
            model.features.first_order.dense_weight.requires_grad_(False)
        self.oov_dropout = OOVDropout(dataset, config.oov_dropout, device, before.tensors[READS] if before else None)
        if any(self.oov_dropout.strengths.values()):
            model.features.id_dropout = self.oov_dropout

        task_weight = build_weighting(config, dataset.meta.tasks, device)
        trained = {"model": model, "weighting": task_weight}
        self.modules = nn.ModuleDict({name: module for name, module in trained.items() if isinstance(module, nn.Module)})
        optimiser = build_optimiser(config, self.modules, device)
        self.learned = Learned(before, job, optimiser, model)

        batch_size = config.optimiser.rows_a_step(len(rows))
        self.loader = BlockLoader(rows, batch_size, shuffle=True, seed=config.seed, shards=ranks.count, shard=ranks.rank)
        backend = measured_backends(job, model, self.loader, precision) or select_backend(config.backend, device)
        forward = None
        if config.compile:
            forward = compiled(model, next(self.loader.batches()), precision, device)
        gradient = BatchGradient(config, model, task_weight, forward=forward, precision=precision, device=device, ranks=ranks)
        self.training_step = TrainingStep(gradient, optimiser, config.optimiser.clip_norm, recorder_for(job), batch_size)
        versions = {"torch": str(torch.__version__), "threads": torch.get_num_threads()}
        self.environment: dict[str, Any] = versions | {"backend": backend, "precision": precision, "ranks": ranks.count}

        self.epochs = (config.optimiser.epochs or 1) if before else config.optimiser.epochs_of(len(self.loader))
        self.total_steps = len(self.loader) * self.epochs  # of a run that is not stopped early
        self.stopping = EarlyStopping(config.early_stopping.monitor == "auc", config.early_stopping.patience)
        self.paused_until, self.scalars = 0.0, Scalars(job.folder.tensorboard, writes=ranks.is_first)
        self.init: dict[str, Any] | None = None
        self.at, self.best, self.mean = Position(), dict[str, Tensor](), dict[str, Tensor]()
        self.started = time.perf_counter()  # when the run would have started without a stop

    @classmethod
    def resumed(cls, job: Job, source: Path) -> Trainer:
        """A trainer at the position of a checkpoint.

        Raises :class:`CheckpointError` if the checkpoint is damaged, or belongs to other data or another model, and :class:`ConfigError`
        if it was written with another configuration.
        """
        tensors, state = load_checkpoint(source)
        job.folder.check_config(state["config"], job.config, source)
        if state["data_digest"] != job.dataset.meta.digest:
            raise CheckpointError(
                f"checkpoint {source} was trained on other rows than {job.dataset.meta.name} holds; restore the data, or start a new run"
            )
        trainer = cls(job, Known(select(tensors, "before."), *state["before"]) if "before" in state else None)
        for key, now in trainer.environment.items():
            was = state["environment"].get(key)
            if was != now:
                by = "by the random numbers of dropout" if key == "ranks" else "in the last bits"
                job.report.note(f"note: {key} was {was} and is {now}: the weights may differ {by} from an uninterrupted run")
        trainer.at, trainer.stopping = Position(**state["position"]), EarlyStopping(**state["stopping"])
        trainer.init, trainer.learned.first_order = state.get("start"), select(tensors, "known.")
        trainer.learned.losses = tensors.get("losses")
        trainer.best, trainer.mean = select(tensors, "best."), select(tensors, "mean.")
        restore(tensors, trainer.modules, trainer.training_step.optimiser, job.device, source)
        return trainer

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained or early stopping has ended the run."""
        return self.at.epoch >= self.epochs or self.stopping.should_stop

    @property
    def rows_per_second(self) -> float:
        """Training rows over the time spent in training steps."""
        return self.at.rows / self.at.step_seconds if self.at.step_seconds else 0.0

    was_interrupted = False

    def run(self) -> None:
        """Train until :attr:`is_done`, or until Ctrl-C where the report says so."""
        self.job.report.start(epochs=self.epochs, total_steps=self.total_steps, step=self.at.step)
        self.started = time.perf_counter() - self.at.seconds
        with closing(self.job.report), closing(self.scalars):
            if not self.at.history:
                self._evaluate_start()
            try:
                while not self.is_done:
                    self._train_epoch()
                    self.save()
            except KeyboardInterrupt:
                if not self.job.report.keeps_interrupted or not self.best:
                    raise
                self.was_interrupted = True

    def _train_epoch(self) -> None:
        """Train to the end of the epoch, or until early stopping ends the run inside it."""
        config = self.job.config
        for batch in self.loader.batches(self.at.epoch, start=self.at.batch):
            self._train_step(batch)
            checkpoint_is_due = self.at.step % (config.checkpoint_every or STEPS) == 0
            if checkpoint_is_due or self.at.step % config.log_every == 0:
                self._log()
            if self._evaluation_is_due():
                self.evaluate()
            # All ranks decide together.
            if checkpoint_is_due and (config.checkpoint_every or self.job.ranks.from_first(lambda: time.monotonic() >= self.paused_until)):
                self.save()
            self.job.report.step(step=self.at.step, epoch=self.at.epoch + 1, rows_per_second=self.rows_per_second)
            if self.is_done:
                return
        self.evaluate()
        self.at.epoch, self.at.batch, self.at.loss_sum, self.at.loss_rows = self.at.epoch + 1, 0, 0.0, 0

    def _evaluation_is_due(self) -> bool:
        """Whether one belongs here within the epoch; another one always ends it."""
        batch, epoch, every = self.at.batch, len(self.loader), self.job.config.early_stopping.every_steps
        if every:
            return batch < epoch and self.at.step % every == 0
        return batch < epoch and batch * EVALUATIONS // epoch > (batch - 1) * EVALUATIONS // epoch

    def _train_step(self, batch: Batch) -> None:
        started, options, loss = time.perf_counter(), self.job.config.optimiser, self.job.config.loss
        rate = self.learned.rate(options.lr, self.loader.batch_size) or learning_rate(options, self.at.step, self.total_steps)
        weight = batch.weight if loss.sample_weight else None
        with ExitStack() as checks:  # while the batch is on the CPU, so that nothing waits for a GPU
            try:
                checks.enter_context(checked(self.model, *batch[:3], sample_weight=weight, strict_funnel=loss.strict_funnel))
            except (IndexError, TypeError, ValueError) as error:
                name = self.job.dataset.meta.name
                raise DataError(f"{name}: the model refuses the batch of step {self.at.step + 1}: {error}") from error
            rows = self.training_step(batch, self.at.step, rate)
        self.at.step += 1
        self.at.batch += 1
        self.at.rows += rows
        self.at.step_seconds += time.perf_counter() - started

    def _log(self) -> None:
        """Add a point to the curve, of the steps since the last one. Raises :class:`TrainingDivergedError` if their loss is not finite."""
        started = time.perf_counter()
        losses, rows = self.training_step.take_losses()
        self.at.step_seconds += time.perf_counter() - started
        if not math.isfinite(losses):
            raise self._diverged(f"the training loss became {losses} at or shortly before step {self.at.step}")
        if rows:
            self.at.loss_sum += losses
            self.at.loss_rows += rows
            self.at.curve.append((self.at.step, losses / rows))
            rate = float(self.training_step.optimiser.param_groups[0]["lr"])
            values = {"train/loss": losses / rows, "train/lr": rate, "train/rows_per_second": self.rows_per_second}
            self.scalars.add(self.at.step, values)

    def _evaluate_start(self) -> None:
        """Evaluate what the run keeps if training brings nothing better: logistic regression, or an earlier run's weights."""
        if self.init is None:
            with self.learned.start():
                self.evaluate()
        else:
            self.save()  # from here on the run no longer needs the earlier one
            self.learned.go_on()
            self.evaluate()

    def evaluate(self) -> None:
        """Evaluate the mean of the weights on the validation rows, and keep it if it is the best so far."""
        self._log()
        self._check_weights()
        since = self.at.step - self.at.history[-1]["step"] if self.at.history else 0
        longest = self.job.config.early_stopping.ema_half_life * len(self.loader)
        half_life = min(longest, (self.at.step + self.learned.steps_before) / HALF_LIVES)
        with mean_in_place(self.model, self.mean, 0.5 ** (since / half_life) if half_life else 0.0):
            self._evaluate()
        self.model.train()

    def _evaluate(self) -> None:
        job, at = self.job, self.at
        rows, weighted = job.dataset.split("valid"), job.config.loss.sample_weight
        try:
            predicted = self.learned.predictions("valid")
            metrics = evaluate_split(
                self.model, rows, job.dataset.meta, job.device, job.ranks, weighted=weighted, shifted=True, predictions=predicted
            )
        except TrainingDivergedError as error:
            raise self._diverged(str(error)) from None
        value = mean_over_tasks(metrics, job.config.monitored, job.dataset.meta.tasks)
        assert value is not None, "check_rows lets no run start without a value to monitor"
        loss = at.loss_sum / at.loss_rows if at.loss_rows else None
        record = {"epoch": at.epoch + bool(at.batch), "step": at.step, "train_loss": loss, "valid": metrics, "monitor": value}
        at.history.append(record)
        counts = not at.step or self.stopping.larger_is_better or self.learned.is_ahead(predicted)
        best = self.stopping.update(value, at.step, counts=counts)
        if best:
            self.best = {}  # at most one is in memory
            self.best = {name: value.to("cpu", copy=True) for name, value in self.model.state_dict().items()}
            self.export()
        for task, entry in metrics.items():
            self.scalars.add(at.step, {f"valid/{task}/{name}": value for name, value in entry.items() if isinstance(value, float)})
        job.report.evaluation(record, epochs=self.epochs, rows_per_second=self.rows_per_second, best=best)

    def save(self) -> None:
        """Write a checkpoint of this position, on rank 0. All ranks must have the same weights then."""
        job = self.job
        self._check_weights()
        job.ranks.check_same(self.where)
        self.at.seconds = time.perf_counter() - self.started
        if not job.ranks.is_first:
            return
        self.scalars.flush()
        tensors = capture(self.modules, self.training_step.optimiser, job.device) | self.learned.tensors()
        for prefix, own in (("best", self.best), ("mean", self.mean)):
            tensors |= {f"{prefix}.{name}": value for name, value in own.items()}
        state = {
            "position": asdict(self.at),
            "stopping": asdict(self.stopping),
            "config": job.config.to_dict(),
            "data_digest": job.dataset.meta.digest,
            "environment": self.environment,
            **({} if self.init is None else {"start": self.init}),
            **self.learned.state(),
        }
        begin = time.monotonic()
        save_checkpoint(job.folder.checkpoints, self.at.step, tensors, state)
        self.paused_until = time.monotonic() + PAUSE * (time.monotonic() - begin)

    def where(self) -> dict[str, Any]:
        """The values that must be the same on all ranks. Equal weights have equal sums, other weights hardly ever."""
        sums = {f"the sum of {name}": total(value.detach()) for name, value in self.modules.named_parameters()}
        used = {key: self.environment[key] for key in ("precision", "backend")}
        return {"step": self.at.step, "data": self.job.dataset.meta.digest, **used, **sums}

    def export(self) -> str:
        """Write the best weights, on rank 0. Returns their digest."""
        return export_weights(self.job.folder.weights, self.best, self.about) if self.job.ranks.is_first else ""

    def _check_weights(self) -> None:
        values = self.model.state_dict().items()
        if bad := [name for name, value in values if value.is_floating_point() and not all_finite(value)]:
            raise self._diverged(f"the weights {', '.join(bad[:3])} are no longer finite at step {self.at.step}")

    def _diverged(self, what: str) -> TrainingDivergedError:
        newest = self.job.folder.newest_checkpoint()
        kept = f"the last checkpoint, {newest.name}, is from before that" if newest else "no checkpoint was written yet"
        return TrainingDivergedError(
            f"{what}; {kept}; in a new run lower optimiser.lr, set optimiser.clip_norm, or look for extreme dense values in the data"
        )
