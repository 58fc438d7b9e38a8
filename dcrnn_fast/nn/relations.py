"""How one task's event depends on another's: by the chain rule of a funnel, or by a learned transfer between towers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..support.model_inputs import Relation
from .losses import at_least_float32


def chain_logits(z: Tensor) -> Tensor:
    """Logits of the joint events ``1..t`` from the logits z of each event given the one before it (the chain rule, as in ESMM).

    With P_t = prod_{i <= t} sigmoid(z_i) and c_t = -logit_t = log(1 / P_t - 1), the chain is exp(c_t) = exp(c_{t-1}) + exp(-z_t)
    + exp(c_{t-1} - z_t): a sum of positive terms, so large z do not cancel, and every logit and gradient is finite.

    z [B, T] gives [B, T] in float32 (float64 for float64 z), which never increases along T: P(1..t) <= P(1..t-1) holds exactly.
    """
    z = at_least_float32(z)
    u = -z
    chain = [u[:, 0]]
    for t in range(1, z.shape[1]):
        chain.append(torch.logaddexp(torch.logaddexp(chain[-1], u[:, t]), chain[-1] + u[:, t]))
    return -torch.stack(chain, dim=1)


def unsampled_logits(z: Tensor, negative_rate: float) -> Tensor:
    """Logits z [B, T] learned on sampled rows to those of all rows, where rows without the first event were kept at ``negative_rate``.

    Sampling divides the odds of the first event by the rate, which is log(rate) on its logit (He et al., 2014). The other columns are
    events given the one before: all rows with the first event were kept, so these are as they were.
    """
    return torch.cat([z[:, :1] + math.log(negative_rate), z[:, 1:]], dim=1)


class EventLogits(nn.Module):
    """The last part of the model: from the towers' outputs z [B, T] to the logits [B, T] of the events, and to probabilities.

    Under "chain", z are the logits of the events given the ones before, which ``conditionals`` names; else they are the events' own.
    """

    negative_rate = 1.0
    """Of :attr:`dcrnn_fast.DCRNN.negative_rate`."""

    def __init__(self, tasks: Sequence[str], conditionals: Sequence[str], relation: Relation) -> None:
        super().__init__()
        self.tasks, self.conditionals, self.relation = tasks, conditionals, relation

    def forward(self, z: Tensor) -> Tensor:
        """Logits [B, T] of each event over all impressions."""
        return chain_logits(z) if self.relation == "chain" else z

    def probabilities(self, z: Tensor) -> dict[str, Tensor]:
        """Probabilities [B] by name, in float32, corrected by :attr:`negative_rate`."""
        z = at_least_float32(z)
        if self.negative_rate != 1:
            z = unsampled_logits(z, self.negative_rate)
        found = dict(zip(self.tasks, torch.sigmoid(self(z)).float().unbind(1), strict=True))
        if self.relation == "chain":
            found.update(zip(self.conditionals, torch.sigmoid(z[:, 1:]).float().unbind(1), strict=True))
        return found


class InformationTransfer(nn.Module):
    """AITM's adaptive information transfer between consecutive towers (Xi et al., KDD 2021).

    q_t is task t's tower state and p = relu(info(z_{t-1})) is what the task before transfers. Then z_0 = q_0, and for t >= 1
    z_t = sum over u in {p, q_t} of softmax_u(<query(u), key(u)> / sqrt(H)) * value(u). Each pair of tasks has its own projections.
    """

    def __init__(self, num_tasks: int, width: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()

        def projections() -> nn.ModuleList:
            return nn.ModuleList(nn.Linear(width, width, device=device, dtype=dtype) for _ in range(num_tasks - 1))

        self.info, self.query, self.key, self.value = projections(), projections(), projections(), projections()

    def forward(self, states: Tensor) -> Tensor:
        """Tower states [T, B, H] to the states after the transfer, [T, B, H]."""
        after = [states[0]]
        for info, query, key, value, own in zip(self.info, self.query, self.key, self.value, states[1:], strict=True):
            u = torch.stack([torch.relu(info(after[-1])), own])  # [2, B, H]
            score = (query(u) * key(u)).sum(dim=-1, keepdim=True) / states.shape[-1] ** 0.5
            after.append((torch.softmax(score, dim=0) * value(u)).sum(dim=0))
        return torch.stack(after)
