"""The loss of a batch, also with ``loss.cvr``, and its gradient over the rows of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data import Batch
from ...data.packed.loader import part_of
from ...nn.features import Inputs
from ...nn.losses import counterfactual_losses
from ...nn.model import DCRNN
from ...nn.relations import unsampled_logits
from ...nn.towers import Towers
from ..config import RunConfig
from ..device import autocast
from ..ranks import Ranks


class CounterfactualObjective(nn.Module):
    """The loss of a chain with ``loss.cvr: ipw`` or ``dr``; to a :class:`BatchGradient` it is the model.

    Its outputs [B, T], or [B, 2 T - 1] with dr, are the model's conditional logits, and behind them those of the imputation: of a tower for
    each conditional, which says what its label is expected to be in rows without it too. It has no dropout, because its outputs are
    targets, and no gradient flows back to the recurrence's states that it reads.
    """

    def __init__(self, config: RunConfig, model: DCRNN) -> None:
        super().__init__()
        self.negative_rate, self.model, self.features = config.negative_rate or 1.0, model, model.features
        self.imputation = None
        if config.loss.cvr == "dr":
            widths, place = [model.plan.dim, *config.model.tower_dims], model.features.embedding.weight.device
            self.imputation = Towers(widths, len(model.tasks) - 1, dropout=0.0, transfer=False, device=place)

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """The outputs, with the arguments and errors of the model."""
        return self.outputs(self.features(ids, dense))

    def outputs(self, inputs: Inputs) -> Tensor:
        """The outputs, from what the model's features give."""
        states = self.model.states(inputs)
        z: Tensor = self.model.towers(states, inputs.first_order)
        return z if self.imputation is None else torch.cat([z, self.imputation(states[1:].detach())], dim=1)

    def loss(self, outputs: Tensor, labels: Tensor, *, sample_weight: Tensor | None = None, **options: Any) -> Tensor:
        """The model's loss with these options, plus the conditionals' losses, plus the imputation's.

        The propensity of a conditional is the model's own probability of the event before it; with a ``negative_rate``, of the log before
        it was sampled. The imputation minimises its own log loss over all rows by the same propensities.
        """
        tasks = len(self.model.tasks)
        z, imputation = outputs[:, :tasks], outputs[:, tasks:]
        loss = self.model.loss(self.model.event_logits(z), labels, sample_weight=sample_weight, **options)
        with torch.no_grad():
            propensity = _probability(self.model.event_logits(unsampled_logits(z, self.negative_rate))[:, :-1])

        def conditionals(logits: Tensor, imputed: Tensor | None = None) -> Tensor:
            return counterfactual_losses(
                logits, labels, propensity, imputed, sample_weight=sample_weight, negative_rate=self.negative_rate
            ).sum()

        if self.imputation is None:
            return loss + conditionals(z[:, 1:])
        return loss + conditionals(z[:, 1:], _probability(imputation)) + conditionals(imputation)


def _probability(logits: Tensor) -> Tensor:
    """A logit that is NaN has any probability: the loss, of the same logits, is NaN, and the trainer says that training diverged."""
    return torch.nan_to_num(torch.sigmoid(logits.detach()), nan=0.5)


class BatchGradient:
    """Computes the gradient of a batch whose rows the ranks divide.

    The model sees this rank's rows, the loss the logits and labels of all rows on every rank: a mean over known labels is no mean of the
    ranks' means. Its gradient reaches the weights through the rank's own rows, and the sum over the ranks is the gradient of one process.
    The gradient of a learned loss weighting is whole on every rank.

    Several micro-batches need the memory of one: a first pass computes the logits without gradients, and a second one, with the same random
    numbers, the gradient of each micro-batch from that of its logits.

    ``model`` is a DCRNN or its objective, on ``device``; ``forward`` computes its logits in ``precision``, if the model itself does not.
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

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, int]:
        """The loss over all ranks' rows of a batch on the device, a scalar, and their number. Parameters then have the loss's gradient."""
        ids, dense, labels, weight = batch
        micro = [part_of(len(ids), self.micro_batches, number) for number in range(self.micro_batches)]

        def logits_of(number: int) -> Tensor:
            self._seed(step, number)
            own = micro[number]
            with autocast(self.precision, self.device):
                return self.forward(ids[own], None if dense is None else dense[own]).float()

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

    def _seed(self, step: int, number: int) -> None:
        """Let the random numbers follow from the position and the rank, so that a run resumes on any number of ranks.

        One process that computes a batch at once goes on with the numbers that it has.
        """
        if self.ranks.count > 1 or self.micro_batches > 1:
            mixed = np.random.SeedSequence([self.seed, step, number, self.ranks.rank])
            torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))
