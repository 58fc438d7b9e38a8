"""What a run knows beside its weights, where it starts from that, and what it leaves to a run that goes on from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...data import PackedDataset
from ...data.inspect.oov import table_reads
from ...nn.model import DCRNN
from ...nn.optim import RowWiseAdagrad
from ..evaluate.calibration_file import logits
from ..evaluate.predict import finite_predictions, losses_after_intercepts
from ..folder.optimiser_file import IDLE, OF_FIRST_ORDER, READS, Known
from ..ranks import Ranks
from .first_order import Start, fields_of, head_names, start_of
from .optim import Optimisers
from .start import start_heads, started
from .state import optimiser_state, restore_optimisers

DENSE_RATE, TABLE_RATE = 0.03, 0.1
"""Parts of their peak learning rates that the dense weights and the tables of ids have in a run that goes on."""
CLEARLY = 2.0
"""Standard errors of the mean difference of the validation rows' losses."""


class Learned:
    """What is known of ids and by the optimisers: ``before`` the run, None for a new one, and of the ``first_order`` term within it.

    A run that goes on has constant rates: those of its optimisers' schedule would start anew. A step of fewer rows than the earlier run's
    has a lower rate, so that an epoch of either goes as far.
    """

    def __init__(self) -> None:
        self.before: Known | None = None
        self.first_order: dict[str, Tensor] = {}

    def carry(self, before: Known, modules: Mapping[str, nn.Module], optimiser: Optimisers, source: Path) -> None:
        """Go on from what an earlier run knows. Raises :class:`dcrnn_fast.errors.CheckpointError` if it had other optimisers."""
        self.before = before
        restore_optimisers(before.tensors, modules, optimiser, source)
        for part in optimiser.parts:
            for group in part.param_groups if isinstance(part, RowWiseAdagrad) else ():
                group["lr_scale"] *= TABLE_RATE / DENSE_RATE

    def rate(self, lr: float, batch: int) -> float | None:
        """The learning rate of a run that goes on, with ``batch`` rows a step; None for a new run."""
        return None if self.before is None else DENSE_RATE * lr * min(1.0, batch / self.before.batch)

    def start(self, model: DCRNN, dataset: PackedDataset, device: torch.device, ranks: Ranks, *, weighted: bool) -> None:
        """Let a new model be logistic regression on the ids; on validation rows that are better off with the constant, let it be that."""
        found = start_of(dataset, chain=model.relation == "chain", weighted=weighted, ids=model.features.first_order is not None)
        start_heads(model, found)
        rows = dataset.split("valid")
        own = finite_predictions(model, rows, dataset.meta, device, ranks)
        both = own, {name: np.full(len(rows), 0.5) for name in own}
        loss, constant = (losses_after_intercepts(one, rows, dataset.meta, weighted=weighted).mean() for one in both)
        if loss > constant:
            found.effects.fill(0)
            start_heads(model, found)
        if model.features.first_order is not None:
            self._keep(found)
        fields, _ = fields_of(dataset.meta)
        self._settled = found._replace(effects=-found.settled(fields), intercepts=0 * found.intercepts)

    def release(self, model: DCRNN) -> None:
        """Take the effects of :meth:`.first_order.Start.settled` from a model that :meth:`start` has made, for training to find them."""
        start_heads(model, self._settled, add=True)

    def go_on(self, model: DCRNN, dataset: PackedDataset, device: torch.device, ranks: Ranks, *, weighted: bool) -> dict[str, Tensor]:
        """Let the first-order term and the biases take up what the new train rows say beside the rest of the model, if there is a before.

        They stay as they were if the validation rows are clearly worse off. Of a day they are few: by chance alone, every other step
        forward would look like one back. Returns the parameters, from which the mean of the weights goes on; none without a before.
        """
        if self.before is None:
            return {}
        chain, known = model.relation == "chain", None
        # not behind a run that started without such a file
        if model.features.first_order is not None and OF_FIRST_ORDER[0] in self.before.tensors:
            known = Start(np.zeros(0, np.float32), np.zeros(0), *(self.before.tensors[name].numpy() for name in OF_FIRST_ORDER))
        train, rows = dataset.split("train"), dataset.split("valid")
        predicted, before = (finite_predictions(model, split, dataset.meta, device, ranks) for split in (train, rows))
        z = np.stack([logits(predicted[name]) for name in head_names(dataset.meta.tasks, chain=chain)], axis=1)
        found = start_of(dataset, chain=chain, weighted=weighted, ids=known is not None, before=known, logits=z)
        kept = [parameter.detach().clone() for parameter in started(model)]
        start_heads(model, found, add=True)
        after = finite_predictions(model, rows, dataset.meta, device, ranks)
        now, then = (losses_after_intercepts(one, rows, dataset.meta, weighted=weighted) for one in (after, before))
        if (now - then).mean() > CLEARLY * (now - then).std() / math.sqrt(len(rows)):
            for parameter, value in zip(started(model), kept, strict=True):
                parameter.detach().copy_(value)
            found = known or found
        if known is not None:
            self._keep(found)
        return {name: value.detach().to("cpu", copy=True) for name, value in model.named_parameters()}

    def _keep(self, found: Start) -> None:
        self.first_order = dict(zip(OF_FIRST_ORDER, map(torch.from_numpy, found[-len(OF_FIRST_ORDER) :]), strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        before = {} if self.before is None else self.before.tensors
        kept = {f"before.{name}": value for name, value in before.items() if name in (READS, IDLE, *OF_FIRST_ORDER)}
        return kept | {f"known.{name}": value for name, value in self.first_order.items()}

    def state(self) -> dict[str, list[int]]:
        """For a checkpoint too."""
        return {} if self.before is None else {"before": [self.before.steps, self.before.batch]}

    def after(self, dataset: PackedDataset, model: DCRNN, optimiser: Optimisers, steps: int, batch: int) -> Known:
        """What is known after the run's ``steps`` of ``batch`` rows."""
        reads, before = torch.from_numpy(table_reads(dataset.split("train"), dataset.meta)), self.before.tensors if self.before else {}
        of_ids = {READS: before.get(READS, 0) + reads, IDLE: ((before.get(IDLE, 0) + 1) * (reads == 0)).int()}
        tensors = {**optimiser_state({"model": model}, optimiser), **self.first_order, **of_ids}
        return Known(tensors, steps + (self.before.steps if self.before else 0), batch)
