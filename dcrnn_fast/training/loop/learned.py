"""What a run knows in addition to its weights, where it starts from that, and what it leaves to a run that goes on from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...data.inspect.oov import table_reads
from ...nn.model import DCRNN
from ...nn.row_wise_adagrad import RowWiseAdagrad
from ..evaluate.calibration_file import logits
from ..evaluate.predict import finite_predictions, losses_after_intercepts
from ..folder.checkpoint import IDLE, OF_FIRST_ORDER, READS, Known
from .first_order import Start, fields_of, head_names, start_of
from .job import Job
from .numbers import numbers_of
from .optim import Optimisers

DENSE_RATE, TABLE_RATE = 0.03, 0.1
"""Parts of their peak learning rates that the dense weights and the tables of ids have in a run that goes on."""
CLEARLY, BEYOND_CHANCE = 2.0, 1.0
"""Standard errors by which a mean of the validation rows' losses is above another: of two starts, and of a start above training."""


def is_above(losses: npt.NDArray[np.float64], others: npt.NDArray[np.float64], errors: float) -> bool:
    """Whether the mean of losses [N] is above that of ``others`` [N], of the same rows, by more than so many standard errors."""
    above = losses - others
    return bool(above.mean() > errors * above.std() / math.sqrt(len(above)))


@torch.no_grad()
def start_heads(model: DCRNN, start: Start, *, add: bool = False) -> None:
    """Let the first-order term, if the model has one, and the heads' biases be logistic regression.

    With ``add``, the effects of ids and the intercepts are added to what is there, and numbers stay as they are.
    """
    for parameter, values in zip(started(model), (start.intercepts[:, None], start.effects), strict=False):
        parameter.mul_(int(add)).add_(torch.from_numpy(values).to(parameter))
    first, (columns, bins, _) = model.features.first_order, start.numbers.shape
    if first is not None and first.dense_weight is not None and not add:
        first.dense_weight.zero_()
        first.dense_weight[:columns, :bins] = torch.from_numpy(start.numbers)


def started(model: DCRNN) -> list[Tensor]:
    """What :func:`start_heads` sets: the heads' biases and, if the model has one, the first-order term's table of ids."""
    table = model.features.first_order.table if model.features.first_order is not None else None
    return [model.towers.head.get_parameter("private_bias"), *([] if table is None else [table.weight])]


class Learned:
    """What is known of ids and by the optimisers: ``before`` the run, None for a new one, and of the ``first_order`` term within it.

    A run that goes on starts from its optimisers' state, at constant rates. A step of fewer rows than the earlier run's has a lower rate,
    so that an epoch of either goes as far. A new run knows the ``losses`` of the validation rows at its start until it is ahead of that.
    """

    def __init__(self, before: Known | None, job: Job, optimiser: Optimisers, model: DCRNN) -> None:
        self.before, self.job, self.optimiser, self.model = before, job, optimiser, model
        self.steps_before, self.first_order = before.steps if before else 0, dict[str, Tensor]()
        self.losses: Tensor | None = None
        self._weighted, self._chain = job.config.loss.sample_weight, model.relation == "chain"
        self._has_ids = model.features.first_order is not None
        if before is not None:
            optimiser.load(before.tensors)
            for part in optimiser.parts:
                for group in part.param_groups if isinstance(part, RowWiseAdagrad) else ():
                    group["lr_scale"] *= TABLE_RATE / DENSE_RATE

    def rate(self, lr: float, batch: int) -> float | None:
        """The learning rate of a run that goes on, with ``batch`` rows a step; None for a new run."""
        return None if self.before is None else DENSE_RATE * lr * min(1.0, batch / self.before.batch)

    @contextmanager
    def start(self) -> Iterator[None]:
        """Within the block a new model is logistic regression, or the constant if validation rows are clearly better off with it.

        The heads' weights are 0 then. After it the model lacks the effects of :meth:`.first_order.Start.settled`, which training finds.
        """
        weight = self.model.towers.head.get_parameter("private_weight").detach()
        drawn = weight.clone()
        weight.zero_()
        data = self.job.dataset
        options: dict[str, Any] = {"chain": self._chain, "weighted": self._weighted}
        found = start_of(data, **options, ids=self._has_ids, numbers=numbers_of(self.model, len(data.split("train"))))
        start_heads(self.model, found)
        predicted = self.predictions("valid")
        losses = self._losses(predicted)
        of_constant = self._losses({name: np.full(len(values), 0.5) for name, values in predicted.items()})
        if is_above(losses, of_constant, CLEARLY):
            constant, losses = start_of(data, **options, ids=False), of_constant
            found = found._replace(effects=constant.effects, intercepts=constant.intercepts, numbers=constant.numbers)
            start_heads(self.model, found)
        self.losses = torch.from_numpy(losses)
        if self._has_ids:
            self._keep(found)
        yield
        weight.copy_(drawn)
        fields, _ = fields_of(self.job.dataset.meta)
        start_heads(self.model, found._replace(effects=-found.settled(fields), intercepts=0 * found.intercepts), add=True)

    def is_ahead(self, predicted: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Whether predictions for the validation rows are better than the start's by more than chance; True if a run goes on.

        Where validation rows are few, some evaluation of twenty looks better than the start by chance alone.
        """
        if self.losses is not None and is_above(self.losses.numpy(), self._losses(predicted), BEYOND_CHANCE):
            self.losses = None
        return self.losses is None

    def go_on(self) -> None:
        """Let the first-order term and the biases take up what the new train rows add to the rest of the model, of which there is a before.

        They stay as they were if the validation rows are clearly worse off: by chance alone, every other step forward looks like one back.
        """
        assert self.before is not None
        parts = (self.before.tensors[name].numpy() for name in OF_FIRST_ORDER)
        known = Start(*np.zeros((3, 0), np.float32), *parts) if self._has_ids else None
        predicted, before = self.predictions("train"), self._losses(self.predictions("valid"))
        z = np.stack([logits(predicted[name]) for name in head_names(self.job.dataset.meta.tasks, chain=self._chain)], axis=1)
        found = start_of(self.job.dataset, chain=self._chain, weighted=self._weighted, ids=known is not None, before=known, logits=z)
        kept = [parameter.detach().clone() for parameter in started(self.model)]
        start_heads(self.model, found, add=True)
        if is_above(self._losses(self.predictions("valid")), before, CLEARLY):
            for parameter, value in zip(started(self.model), kept, strict=True):
                parameter.detach().copy_(value)
            found = known or found
        if known is not None:
            self._keep(found)

    def predictions(self, split: str) -> dict[str, npt.NDArray[np.float32]]:
        """The model's predictions for the rows of a split. Raises TrainingDivergedError if one is not finite."""
        return finite_predictions(self.model, self.job.dataset.split(split), self.job.dataset.meta, self.job.device, self.job.ranks)

    def _losses(self, predicted: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Of the validation rows."""
        return losses_after_intercepts(predicted, self.job.dataset.split("valid"), self.job.dataset.meta, weighted=self._weighted)

    def _keep(self, found: Start) -> None:
        self.first_order = dict(zip(OF_FIRST_ORDER, map(torch.from_numpy, found[-len(OF_FIRST_ORDER) :]), strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        before = {} if self.before is None else self.before.tensors
        kept = {f"before.{name}": value for name, value in before.items() if name in (READS, IDLE, *OF_FIRST_ORDER)}
        kept |= {f"known.{name}": value for name, value in self.first_order.items()}
        return kept if self.losses is None else kept | {"losses": self.losses}

    def state(self) -> dict[str, list[int]]:
        """For a checkpoint too."""
        return {} if self.before is None else {"before": [self.before.steps, self.before.batch]}

    def after(self, steps: int, batch: int) -> Known:
        """What is known after the run's ``steps`` of ``batch`` rows."""
        reads = torch.from_numpy(table_reads(self.job.dataset.split("train"), self.job.dataset.meta))
        before = self.before.tensors if self.before else {}
        of_ids = {READS: before.get(READS, 0) + reads, IDLE: ((before.get(IDLE, 0) + 1) * (reads == 0)).int()}
        of_model = {name: value for name, value in self.optimiser.state().items() if name.startswith("model.")}
        return Known(of_model | self.first_order | of_ids, steps + self.steps_before, batch)
