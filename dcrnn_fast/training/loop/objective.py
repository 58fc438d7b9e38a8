"""The loss of a training step with ``loss.cvr``: the model's loss, and the losses of its conditionals over all rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.embeddings import with_first_order
from ...nn.losses import counterfactual_losses
from ...nn.model import DCRNN
from ...nn.relations import unsampled_logits
from ..config import RunConfig


class Imputation(nn.Module):
    """A tower for each conditional of a chain, whose logit says what its label is expected to be, in rows without it too.

    It reads the recurrence's states of the conditional's task, and no gradient flows back to them: the model is trained as if the imputed
    labels were given. It has no dropout, because its outputs are targets.
    """

    def __init__(self, conditionals: int, dim: int, tower_dims: tuple[int, ...], device: torch.device) -> None:
        super().__init__()

        def tower() -> nn.Sequential:
            hidden = [(nn.Linear(below, width, device=device), nn.ReLU()) for below, width in pairwise([dim, *tower_dims])]
            return nn.Sequential(*(layer for pair in hidden for layer in pair), nn.Linear([dim, *tower_dims][-1], 1, device=device))

        self.towers = nn.ModuleList(tower() for _ in range(conditionals))

    def forward(self, states: Tensor) -> Tensor:
        """States [T - 1, B, D] to logits [B, T - 1]."""
        return torch.cat([tower(state) for tower, state in zip(self.towers, states.detach(), strict=True)], dim=1)


class CounterfactualObjective(nn.Module):
    """The loss of a chain with ``loss.cvr: ipw`` or ``dr``; to a :class:`.gradient.BatchGradient` it is the model.

    Its outputs [B, T], or [B, 2 T - 1] with dr, are the model's conditional logits, of which the loss is computed more exactly than of the
    events' logits, and behind them the logits of :class:`Imputation`.
    """

    def __init__(self, config: RunConfig, model: DCRNN) -> None:
        super().__init__()
        self.options, self.negative_rate, self.model = config.loss, config.negative_rate or 1.0, model
        self.imputation = None
        if config.loss.cvr == "dr":
            place = model.embedding.weight.device
            self.imputation = Imputation(len(model.tasks) - 1, model.plan.dim, config.model.tower_dims, place)

    def inputs(self, ids: Tensor, dense: Tensor | None) -> tuple[Any, ...]:
        """The model's inputs of these ids and dense features."""
        return self.model.inputs(ids, dense)

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """The outputs, with the arguments and errors of the model."""
        return self.behind_inputs(*self.inputs(ids, dense))

    def behind_inputs(self, x0: Tensor, first_order: Tensor | None, *scenarios: Tensor) -> Tensor:
        """The outputs, from what :meth:`inputs` gives."""
        states = self.model.cross(x0, *scenarios)
        z = with_first_order(self.model.tower_logits(states), first_order)
        return z if self.imputation is None else torch.cat([z, self.imputation(states[1:])], dim=1)

    def loss(self, outputs: Tensor, labels: Tensor, *, sample_weight: Tensor | None = None, **options: Any) -> Tensor:
        """The model's loss with these options, plus ``cvr_weight`` times the conditionals' losses, plus the imputation's.

        The propensity of a conditional is the model's own probability of the event before it; with a ``negative_rate``, of the log before
        it was sampled. The imputation minimises its own log loss over all rows by the same propensities. ``cvr_weight`` does not weigh it,
        for no gradient of it reaches the model.
        """
        tasks = len(self.model.tasks)
        z, imputation = outputs[:, :tasks], outputs[:, tasks:]
        loss = self.model.loss(self.model.event_logits(z), labels, sample_weight=sample_weight, **options)
        with torch.no_grad():
            propensity = _probability(self.model.event_logits(unsampled_logits(z, self.negative_rate))[:, :-1])

        def conditionals(logits: Tensor, imputed: Tensor | None = None) -> Tensor:
            return counterfactual_losses(
                logits,
                labels,
                propensity,
                imputed,
                sample_weight=sample_weight,
                negative_rate=self.negative_rate,
                propensity_floor=self.options.propensity_floor,
            ).sum()

        if self.imputation is None:
            return loss + self.options.cvr_weight * conditionals(z[:, 1:])
        return loss + self.options.cvr_weight * conditionals(z[:, 1:], _probability(imputation)) + conditionals(imputation)


def _probability(logits: Tensor) -> Tensor:
    """A logit that is NaN has any probability: the loss, of the same logits, is NaN, and the trainer says that training diverged."""
    return torch.nan_to_num(torch.sigmoid(logits.detach()), nan=0.5)
