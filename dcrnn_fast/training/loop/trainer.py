"""The training loop: steps, validation, early stopping and checkpoints.

A resumed run ends with the same bits as an uninterrupted one: :meth:`Trainer.save` stores everything that a later step depends on,
and the row order and the learning rate are functions of the position alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...data import Batch, BlockLoader, PackedDataset
from ...errors import CheckpointError, DataError, TrainingDivergedError
from ...nn.model import DCRNN
from ..config import RunConfig
from ..device import on_device, select_backend, select_precision
from ..evaluate.metrics import mean_over_tasks
from ..evaluate.predict import evaluate_split
from ..folder.checkpoint import STEPS, CheckpointPace, damaged, load_checkpoint, save_checkpoint
from ..folder.layout import RunFolder
from ..folder.optimiser_file import READS, Known
from ..folder.run_files import write_json
from ..folder.tensors import all_finite, check_tensors
from ..folder.weights import build_model, describe, export_weights
from ..ranks import ONE, Ranks
from .gradient import BatchGradient, CounterfactualObjective
from .graph import RepeatedStep, compiled, measured_backends, recorder_for
from .learned import Learned
from .mean_weights import MeanWeights
from .optim import build_optimiser, build_weighting, clip_gradients, learning_rate, sparse_tables
from .progress import Report, Scalars
from .start import OOVDropout, first_order_of_ids_alone, set_edges, silent_towers
from .state import EarlyStopping, EvaluationRecord, Position, TaskMetrics, capture, keep, restore, restored_position, select, weight_sums

EVALUATIONS = 4
"""An epoch, unless ``early_stopping.every_steps`` says how often."""
HALF_LIVES = 12
"""Of the mean of the weights: a run so far is at least so many, or the mean of a short one would still hold its first weights."""


class Trainer:
    """Trains one model on one data set inside one run folder."""

    def __init__(
        self,
        config: RunConfig,
        dataset: PackedDataset,
        folder: RunFolder,
        report: Report,
        *,
        device: torch.device,
        on_step: Callable[[int], None] | None = None,
        ranks: Ranks = ONE,
    ) -> None:
        self.config, self.dataset, self.folder, self.report = config, dataset, folder, report
        self.device, self.on_step, self.ranks = device, on_step, ranks
        self.about = describe(config, dataset)
        torch.manual_seed(config.seed)
        self.model = cast(DCRNN, build_model(self.about, device=device, backend=config.backend))
        set_edges(self.model, dataset.split("train").dense, config.model.dense_bins)
        first_order_of_ids_alone(self.model)
        self._drop_ids(None)
        self.task_weight = build_weighting(config, dataset.meta.tasks, device)
        self.modules: dict[str, nn.Module] = {"model": self.model}
        if isinstance(self.task_weight, nn.Module):
            self.modules["weighting"] = self.task_weight
        objective: nn.Module = self.model
        if config.loss.cvr != "entire_space":
            objective = CounterfactualObjective(config, self.model)
            if objective.imputation is not None:
                self.modules["imputation"] = objective.imputation
        self.optimiser = build_optimiser(config, self.modules, device)
        is_sparse = config.model.embedding == "sparse"
        self.tables = sparse_tables(config.optimiser, self.optimiser, self.modules) if is_sparse else {}
        self.pace = CheckpointPace()
        self.precision = select_precision(config.precision, device)
        part = {"shards": ranks.count, "shard": ranks.rank}
        self.batch_size = config.optimiser.rows_a_step(len(dataset.split("train")))
        self.loader = BlockLoader(dataset.split("train"), self.batch_size, shuffle=True, seed=config.seed, **part)
        measured = measured_backends(config, self.model, self.loader, dataset, self.precision, device, report)
        self.backend = measured or select_backend(config.backend, device)
        forward = None
        if config.compile:  # a graph takes what is known when it is made
            micro = config.optimiser.micro_batches > 1
            forward = compiled(objective, next(self.loader.batches()), self.precision, device, without_gradients=micro)
        self.gradient = BatchGradient(
            config, objective, self.task_weight, forward=forward, precision=self.precision, device=device, ranks=ranks
        )
        self.repeated: RepeatedStep | None = None
        if recorder := recorder_for(config, device, ranks):
            self.repeated = RepeatedStep(self._work, self.optimiser, self.batch_size, device, recorder)
        self.epochs = config.optimiser.epochs_of(len(self.loader))
        self.stopping = EarlyStopping(config.early_stopping.monitor == "auc", config.early_stopping.patience)
        self.at = Position()
        self.best: dict[str, Tensor] = {}
        self.mean = MeanWeights()
        self.start: dict[str, Any] | None = None  # of a run that starts from an earlier one's weights: how the two compare
        self.learned = Learned()
        self._window = torch.zeros((), dtype=torch.float64, device=device)
        self._window_rows = 0

    @property
    def total_steps(self) -> int:
        """Steps of a run that is not stopped early."""
        return len(self.loader) * self.epochs

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained or early stopping has ended the run."""
        return self.at.epoch >= self.epochs or self.stopping.should_stop

    @property
    def rows_per_second(self) -> float:
        """Training rows over the time spent in training steps."""
        return self.at.rows / self.at.step_seconds if self.at.step_seconds else 0.0

    def run(self) -> None:
        """Train until :attr:`is_done`."""
        self.report.start(epochs=self.epochs, total_steps=self.total_steps, step=self.at.step)
        self._clock = time.perf_counter()
        try:
            with Scalars(self.folder.tensorboard, after_step=self.at.step, writes=self.ranks.is_first) as self.scalars:
                if self.start is not None and not self.at.step:
                    # From here on the run no longer needs the earlier one.
                    if self.ranks.is_first:
                        write_json(self.folder.encoder, self.dataset.meta.encoding)
                    self.save()
                if not self.at.history and not self.at.step:
                    self._validate_start()
                while not self.is_done:
                    self._train_epoch()
                    self.save()
        finally:
            self.report.close()

    def carry(self, before: Known, source: Path) -> None:
        """Go on from what an earlier run knows: at constant low rates, and for one epoch, see :class:`.learned.Learned`.

        Raises :class:`CheckpointError` that names ``source`` if it had other optimisers.
        """
        self.learned.carry(before, self.modules, self.optimiser, source)
        self._drop_ids(before.tensors[READS])
        self.epochs = self.config.optimiser.epochs or 1

    def _drop_ids(self, reads: Tensor | None) -> None:
        self.oov_dropout = OOVDropout(self.dataset, self.config.oov_dropout, self.device, reads)
        if any(self.oov_dropout.strengths.values()):
            self.model.features.id_dropout = self.oov_dropout

    def save(self) -> Path | None:
        """Write a checkpoint of this position, on rank 0. All ranks must have the same weights then."""
        self._check_weights()
        self.ranks.check_same(self.where)
        self._tick()
        if not self.ranks.is_first:
            return None
        self.scalars.flush()
        tensors = capture(self.modules, self.optimiser, self.device)
        for prefix, own in (("best", self.best), ("mean", self.mean.values)):
            tensors |= {f"{prefix}.{name}": value for name, value in own.items()}
        state: dict[str, Any] = {
            "position": asdict(self.at),
            "stopping": asdict(self.stopping),
            "config": self.config.to_dict(),
            "data_digest": self.dataset.meta.digest,
            "environment": self.environment(),
        }
        if self.start is not None:
            state["start"] = self.start
        tensors |= self.learned.tensors()
        state |= self.learned.state()
        with self.pace.writing():
            return save_checkpoint(self.folder.checkpoints, self.at.step, tensors, state)

    def load(self, folder: Path) -> None:
        """Go back to a checkpoint's position.

        Raises :class:`CheckpointError` if it is damaged, or belongs to other data or another model, and :class:`ConfigError` if it was
        written with another configuration.
        """
        tensors, state = load_checkpoint(folder)
        position, stopping = restored_position(state, folder)
        self.folder.check_config(state["config"], self.config, folder)
        if state["data_digest"] != self.dataset.meta.digest:
            raise CheckpointError(
                f"checkpoint {folder} was trained on other rows than {self.dataset.meta.name} holds; restore the data, or start a new run"
            )
        batches = len(self.loader)
        if position.batch > batches or position.step != position.epoch * batches + position.batch:
            raise damaged(
                folder,
                folder / "state.json",
                f"holds no position of a run: step {position.step} is not batch {position.batch} after {position.epoch} epochs, "
                f"which have {batches} batches each",
            )
        for key, now in self.environment().items():
            before = state["environment"].get(key)
            if before != now:
                by = "by the random numbers of dropout" if key == "ranks" else "in the last bits"
                self.report.note(f"note: {key} was {before} and is {now}: the weights may differ {by} from an uninterrupted run")
        self.at, self.stopping, self.start = position, stopping, state.get("start")
        if "before" in state:
            self.carry(Known(select(tensors, "before."), *state["before"]), folder)
        self.learned.first_order = select(tensors, "known.")
        self.best = select(tensors, "best.")
        if self.best or self.at.epoch:
            check_tensors(self.model, self.best, folder)
        self.mean.restore(select(tensors, "mean."), self.model, folder)
        restore(tensors, self.modules, self.optimiser, self.device, folder)

    def where(self) -> dict[str, Any]:
        """The values that must be the same on all ranks."""
        same = {"step": self.at.step, "data": self.dataset.meta.digest, "precision": self.precision, "backend": self.backend}
        return same | weight_sums(self.modules, {name: table.sum() for name, table in self.tables.items()})

    def export(self) -> str:
        """Write the best weights, and the encoding that another table needs to be evaluated with them, on rank 0. Returns their digest."""
        if not self.ranks.is_first:
            return ""
        write_json(self.folder.encoder, self.dataset.meta.encoding)
        return export_weights(self.folder.weights, self.best, self.about)

    def environment(self) -> dict[str, Any]:
        """What, apart from the configuration, may change the last bits."""
        return {
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "backend": self.backend,
            "precision": self.precision,
            "ranks": self.ranks.count,
        }

    def _train_epoch(self) -> None:
        """Train to the end of the epoch, or until early stopping ends the run inside it."""
        self.model.train()
        if self.at.batch < len(self.loader):
            for batch in self.loader.batches(epoch=self.at.epoch, start=self.at.batch):
                self._step(batch)
                due = self.at.step % (self.config.checkpoint_every or STEPS) == 0
                if due or self.at.step % self.config.log_every == 0:
                    self._flush()
                if self._evaluates and self.at.batch < len(self.loader):
                    self._validate()
                    self.model.train()
                if due and (self.config.checkpoint_every or self.ranks.from_first(self.pace.allows)):
                    self.save()
                if self.on_step:
                    self.on_step(self.at.step)
                if self.is_done:
                    return
        self._validate()
        self.at.epoch, self.at.batch, self.at.loss_sum, self.at.loss_rows = self.at.epoch + 1, 0, 0.0, 0

    @property
    def _evaluates(self) -> bool:
        """Whether an evaluation inside the epoch is due at this step."""
        every, batches = self.config.early_stopping.every_steps, len(self.loader)
        if every:
            return self.at.step % every == 0
        return self.at.batch * EVALUATIONS // batches > (self.at.batch - 1) * EVALUATIONS // batches

    def _step(self, batch: Batch) -> None:
        started = time.perf_counter()
        config = self.config
        rate = self.learned.rate(config.optimiser.lr, self.batch_size)
        self.optimiser.set_rate(rate or learning_rate(config.optimiser, self.at.step, self.total_steps))
        with ExitStack() as block:
            with self._naming_the_batch():
                block.enter_context(self.gradient.checked(batch))
            rows = self.repeated(batch) if self.repeated else self._work(on_device(batch, self.device))
        self._window_rows += rows
        self.at.step += 1
        self.at.batch += 1
        self.at.rows += rows
        self.at.step_seconds += time.perf_counter() - started
        self.report.step(step=self.at.step, epoch=self.at.epoch + 1, rows_per_second=self.rows_per_second)

    def _work(self, batch: Batch) -> int:
        """What a step does on the device, with a batch that is there; returns the number of rows of all ranks."""
        self.optimiser.zero_grad(set_to_none=True)
        with self._naming_the_batch():
            loss, rows = self.gradient(batch, self.at.step)
        if self.config.optimiser.clip_norm is not None:
            parameters = (parameter for group in self.optimiser.param_groups for parameter in group["params"])
            clip_gradients(parameters, self.config.optimiser.clip_norm)
        self.optimiser.step()
        self._window += loss.double() * rows
        return rows

    @contextmanager
    def _naming_the_batch(self) -> Iterator[None]:
        try:
            yield
        except (IndexError, TypeError, ValueError) as error:
            raise DataError(f"{self.dataset.meta.name}: the model refuses the batch of step {self.at.step + 1}: {error}") from error

    def _flush(self) -> None:
        if not self._window_rows:
            return
        started = time.perf_counter()
        total = float(self._window)  # waits for the steps that a GPU has not yet done
        self.at.step_seconds += time.perf_counter() - started
        if not math.isfinite(total):
            raise self._diverged(f"the training loss became {total} at or shortly before step {self.at.step}")
        self.at.loss_sum += total
        self.at.loss_rows += self._window_rows
        mean = total / self._window_rows
        self.at.curve.append((self.at.step, mean))
        rate = float(self.optimiser.param_groups[0]["lr"])
        self.scalars.add(self.at.step, {"train/loss": mean, "train/lr": rate, "train/rows_per_second": self.rows_per_second})
        self._window.zero_()
        self._window_rows = 0

    def _validate_start(self) -> None:
        """Evaluate what the run keeps if training brings nothing better: logistic regression, or an earlier run's weights."""
        weighted = self.config.loss.sample_weight
        if self.start is not None:
            self.mean.values = self.learned.go_on(self.model, self.dataset, self.device, self.ranks, weighted=weighted)
            return self._validate()
        with silent_towers(self.model):
            self.learned.start(self.model, self.dataset, self.device, self.ranks, weighted=weighted)
            self._validate()
        self.learned.release(self.model)

    def _validate(self) -> None:
        """Evaluate the mean of the weights, of a run that has begun to train, and keep it if it is the best so far."""
        self._flush()
        self._check_weights()
        with self.mean.in_place_of(self.model, self._decay) if self.at.step else nullcontext():
            self._evaluate()

    @property
    def _decay(self) -> float:
        """What the mean of the weights keeps of itself at this evaluation, of a run that has begun to train."""
        epoch, at = len(self.loader), self.at
        steps = at.step + (self.learned.before.steps if self.learned.before else 0)
        half_life = min(self.config.early_stopping.ema_half_life * epoch, steps / HALF_LIVES)
        return 0.5 ** ((at.step - at.history[-1]["step"]) / half_life) if half_life else 0.0

    def _evaluate(self) -> None:
        try:
            weighted, rows, meta = self.config.loss.sample_weight, self.dataset.split("valid"), self.dataset.meta
            metrics = evaluate_split(self.model, rows, meta, self.device, self.ranks, weighted=weighted, shifted=True)
        except TrainingDivergedError as error:
            raise self._diverged(str(error)) from None
        value = mean_over_tasks(metrics, self.config.monitored, meta.tasks)
        assert value is not None, "check_rows lets no run start without a value to monitor"
        record: EvaluationRecord = {
            "epoch": self.at.epoch + bool(self.at.batch),
            "step": self.at.step,
            "train_loss": self.at.loss_sum / self.at.loss_rows if self.at.loss_rows else None,
            "valid": cast(dict[str, TaskMetrics], metrics),
            "monitor": value,
        }
        self.at.history.append(record)
        best = self.stopping.update(value, self.at.step)
        if best:
            keep(self.model, self.best)
            self.export()
        for task, entry in metrics.items():
            numbers = {name: value for name, value in entry.items() if isinstance(value, float)}
            self.scalars.add(self.at.step, {f"valid/{task}/{name}": value for name, value in numbers.items()})
        self.report.evaluation(record, epochs=self.epochs, rows_per_second=self.rows_per_second, best=best)

    def _check_weights(self) -> None:
        bad = [name for name, value in self.model.state_dict().items() if value.is_floating_point() and not self._finite(name, value)]
        if bad:
            raise self._diverged(f"the weights {', '.join(bad[:3])} are no longer finite at step {self.at.step}")

    def _finite(self, name: str, value: Tensor) -> bool:
        table = self.tables.get(f"model.{name}")
        return all_finite(value) if table is None else table.all_finite()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.at.seconds += now - self._clock
        self._clock = now

    def _diverged(self, what: str) -> TrainingDivergedError:
        newest = self.folder.newest_checkpoint()
        kept = f"the last checkpoint, {newest.name}, is from before that" if newest else "no checkpoint was written yet"
        return TrainingDivergedError(
            f"{what}; {kept}; in a new run lower optimiser.lr, set optimiser.clip_norm, or look for extreme dense values in the data"
        )
