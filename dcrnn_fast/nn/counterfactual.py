"""The loss of an event given the one before it, over all rows, although its label is known only where the one before happened.

ESCM2 (Wang et al., SIGIR 2022) trains the conditional of a funnel so: by inverse propensities, or doubly robustly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..support.checks import check_floats, check_ratio
from ..support.model_inputs import check_negative_rate, check_sample_weight
from ..support.tracing import inputs_are_checked, may_read_values
from .losses import at_least_float32

FLOOR = 0.1
"""The least propensity that is divided by, over the mean one: so no row weighs more than ten rows of the mean propensity."""
LEAST = 1e-6
"""The least propensity that is divided by, whatever the mean."""


def counterfactual_losses(
    z: Tensor,
    labels: Tensor,
    propensity: Tensor,
    imputed: Tensor | None = None,
    *,
    sample_weight: Tensor | None = None,
    negative_rate: float = 1.0,
    propensity_floor: float = FLOOR,
) -> Tensor:
    """An estimate of each conditional's mean log loss over all rows, from the rows in which the event before happened.

    Of an event with logit z given the one before, o says whether the one before happened, r is the event's own label, p the propensity and
    l(y) = log(1 + exp(z)) - y z the log loss for a label y. By inverse propensities (IPW), the loss is the mean over all N rows of
    o l(r) / p. With ``imputed`` labels y it is doubly robust (DR): the mean of l(y) + o (l(r) - l(y)) / p.

    If p is the probability of o in each row, the expectation of both over o is the mean of l(r) over all rows. The expectation of DR is
    that too if p is wrong but y is each row's r, or its expectation. The same holds for their gradients by z. Neither is divided by the
    sum of the weights, which would bias the loss of a small batch.

    Args:
        z: [B, T - 1], the logits of each event but the first, given the one before.
        labels: [B, T] in [0, 1], in funnel order; NaN marks an unknown label. Rows in which o is unknown do not count. Where o is positive
            and r is not known, the other rows with o take over the weight, as if labels were lost at random.
        propensity: [B, T - 1] in (0, 1], of each event but the last: its probability over all rows. No gradient flows to it.
        imputed: [B, T - 1] in [0, 1], what r is expected to be in each row; no gradient flows to it. None for IPW.
        sample_weight: [B], as in :func:`.losses.task_losses`.
        negative_rate: the part of the rows without the first event that was kept. Below 1, the loss is that over the rows of the log
            before, of whose rows without the first event each kept one stands for 1 / negative_rate, and the propensities are theirs too.
        propensity_floor: a propensity below ``propensity_floor`` times the mean counts as that, which limits the variance and is biased;
            0 leaves all of them from 1e-6 up as they are.

    Returns:
        [T - 1] in float32 (float64 for float64 z). DR may be negative. An event before which nothing is known has loss 0.

    Raises TypeError, ValueError: an argument of another dtype, shape or range.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN, counterfactual_losses
        >>> model = DCRNN([100, 50])
        >>> z = model.conditional_logits(torch.tensor([[7, 3], [99, 0]]))
        >>> labels, logits = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), model.event_logits(z)
        >>> loss = model.loss(logits, labels) + counterfactual_losses(z[:, 1:], labels, torch.sigmoid(logits[:, :-1])).sum()
    """
    _check(z, labels, propensity, imputed)
    check_negative_rate(negative_rate, 1, "chain")
    check_ratio("propensity_floor", propensity_floor)
    z = at_least_float32(z)
    before, label = labels[:, :-1].to(z.dtype), labels[:, 1:].to(z.dtype)
    known, seen = ~torch.isnan(before), ~torch.isnan(label)
    happened, label = torch.where(known, before, 0), torch.where(seen, label, 0)
    row = torch.ones_like(z[:, :1])
    if sample_weight is not None:
        check_sample_weight(sample_weight, len(z))
        row = sample_weight.to(z.dtype)[:, None]
    stands_for = row * (1 + (1 - torch.nan_to_num(labels[:, :1].to(z.dtype), nan=1.0)) * (1 / negative_rate - 1)) * known
    rows = _or_one(stands_for.sum(dim=0))
    p = propensity.detach().to(z.dtype)
    p = torch.maximum(p, propensity_floor * (stands_for * p).sum(dim=0) / rows).clamp(min=LEAST)
    with_label = row * happened * seen
    label_rate = with_label.sum(dim=0) / _or_one((row * happened).sum(dim=0))
    weight = with_label / p / _or_one(label_rate)
    loss = weight * _log_loss(z, label)
    if imputed is not None:
        loss = loss + (stands_for - weight) * _log_loss(z, imputed.detach().to(z.dtype))
    return loss.sum(dim=0) / rows


def _log_loss(z: Tensor, label: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(z, label, reduction="none")


def _or_one(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 1)


def _check(z: Tensor, labels: Tensor, propensity: Tensor, imputed: Tensor | None) -> None:
    check_floats("z", z, "[B, T - 1]")
    check_floats("labels", labels, "[B, T]")
    if labels.shape != (z.shape[0], z.shape[1] + 1) or labels.device != z.device or not z.shape[1]:
        raise ValueError(
            f"labels: got shape {list(labels.shape)} on {labels.device}, expected [B, T] on {z.device} for z [B, T - 1], of which the "
            f"shape is {list(z.shape)}: one label more than conditionals, and at least one conditional"
        )
    for name, value in ({"propensity": propensity} | ({} if imputed is None else {"imputed": imputed})).items():
        check_floats(name, value, "[B, T - 1]", like=("z", z))
        if not inputs_are_checked() and may_read_values(value) and not bool(((value >= 0) & (value <= 1)).all()):
            raise ValueError(f"{name}: got a value outside [0, 1], expected probabilities")
    if not inputs_are_checked() and may_read_values(labels) and not bool(((labels >= 0) & (labels <= 1) | torch.isnan(labels)).all()):
        raise ValueError("labels: got a value outside [0, 1], expected 0, 1, a probability, or NaN for unknown")
