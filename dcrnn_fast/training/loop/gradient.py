"""The loss of a batch and its gradient, over the rows of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from ...data import Batch
from ...data.packed.loader import part_of
from ...support.model_inputs import checked
from ..config import RunConfig
from ..device import autocast
from ..ranks.ranks import Ranks
from .objective import CounterfactualObjective


class BatchGradient:
    """Computes the gradient of a batch whose rows the ranks divide.

    The model sees this rank's rows. The loss sees the logits and labels of all rows on every rank, so that it is the loss of one process
    whatever it is: a mean over known labels is no mean of the ranks' means. Its gradient reaches the weights through the rank's own rows,
    and the sum over the ranks is the gradient of one process. The gradient of a learned loss weighting is whole on every rank.

    Several micro-batches need the memory of one: a first pass computes the logits without gradients, and a second one, with the same random
    numbers, the gradient of each micro-batch from that of its logits. So the loss is that of the whole batch here too.

    Args:
        config: of the run; from its seed and the step, each of several ranks draws random numbers of its own.
        model: a DCRNN, on ``device``; it computes in ``precision``.
        task_weight: that of the loss, see :func:`.optim.build_weighting`.
        forward: computes the model's logits; the model itself, or its compiled form.
        ranks: those that call this together.
    """

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        task_weight: nn.Module | Tensor | None,
        *,
        forward: Callable[[Tensor, Tensor | None], Tensor] | None = None,
        precision: str,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.options, self.seed, self.micro_batches = config.loss, config.seed, config.optimiser.micro_batches
        self.model, self.task_weight = model, task_weight
        self.forward = forward or model
        self.precision, self.device, self.ranks = precision, device, ranks

    def checked(self, batch: Batch) -> AbstractContextManager[None]:
        """The block for a batch that is on the CPU, where it is checked now, so that nothing waits for a GPU.

        Raises IndexError, TypeError, ValueError: the model refuses it.
        """
        model = self.model.model if isinstance(self.model, CounterfactualObjective) else self.model
        weight = batch.weight if self.options.sample_weight else None
        return checked(model, batch.ids, batch.dense, batch.labels, sample_weight=weight, strict_funnel=self.options.strict_funnel)

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, int]:
        """The loss over all ranks' rows of a batch on the device, a scalar, and their number. Parameters then have the loss's gradient."""
        ids, dense, labels, weight = batch
        micro = [part_of(len(ids), self.micro_batches, number) for number in range(self.micro_batches)]

        def logits_of(number: int) -> Tensor:
            self._seed(step, number)
            own = micro[number]
            return self._logits(ids[own], None if dense is None else dense[own])

        if len(micro) == 1:
            own_logits = logits_of(0)
        else:
            with torch.no_grad():
                own_logits = torch.cat([logits_of(number) for number in range(len(micro))])
            own_logits.requires_grad_()
        weights = [] if weight is None or not self.options.sample_weight else [weight]
        logits, labels, *weights = self.ranks.rows(own_logits, labels, *weights)
        loss = self.model.loss(  # type: ignore[operator]
            logits,
            labels,
            sample_weight=weights[0] if weights else None,
            task_weight=self.task_weight,
            strict_funnel=self.options.strict_funnel,
        )
        loss.backward()
        if len(micro) > 1:
            for number, rows in enumerate(micro):
                logits_of(number).backward(own_logits.grad[rows])  # type: ignore[index]
        self.ranks.add_gradients(self.model.parameters())
        return loss.detach(), labels.shape[0]

    def _logits(self, ids: Tensor, dense: Tensor | None) -> Tensor:
        with autocast(self.precision, self.device):
            return self.forward(ids, dense).float()

    def _seed(self, step: int, number: int) -> None:
        """Let the random numbers follow from the position and the rank, so that a run resumes on any number of ranks.

        One process that computes a batch at once goes on with the numbers that it has.
        """
        if self.ranks.count > 1 or self.micro_batches > 1:
            mixed = np.random.SeedSequence([self.seed, step, number, self.ranks.rank])
            torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))
