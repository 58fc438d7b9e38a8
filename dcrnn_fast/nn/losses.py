"""The loss of each task over its known labels, of a conditional over all rows, and ways to combine the tasks' losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..support.checks import MAX_SIZE, check_count, check_ratio
from ..support.model_inputs import check_negative_rate, check_sample_weight
from ..support.tensors import check_floats, check_placement
from ..support.tracing import inputs_are_checked, may_read_values, values_of

CALIBRATOR_WEIGHT = 0.6
"""The weight that AITM gives :func:`expectation_calibrator`."""
FLOOR = 0.1
"""The least propensity that is divided by, over the mean one: so no row weighs more than ten rows of the mean propensity."""
LEAST = 1e-6
"""The least propensity that is divided by, whatever the mean."""


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32; float64 stays float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def task_losses(logits: Tensor, labels: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Binary cross entropy of each task, as :meth:`dcrnn_fast.DCRNN.loss` takes it: the weighted mean over the rows with a known label.

    Returns [T] in float32 (float64 for float64 logits). A task without a known label of positive weight has loss 0 and gradient 0.
    """
    check_floats("logits", logits, "[B, T]")
    check_floats("labels", labels, "[B, T]", like=("logits", logits))
    logits = at_least_float32(logits)
    known = ~torch.isnan(labels)
    weight = known.to(logits.dtype)
    if sample_weight is not None:
        check_sample_weight(sample_weight, logits.shape[0])
        weight = weight * sample_weight.to(logits.dtype)[:, None]
    target = torch.where(known, labels, 0).to(logits.dtype)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * weight).sum(dim=0) / _or_one(weight.sum(dim=0))


def expectation_calibrator(logits: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """AITM's behavioural-expectation calibrator (Xi et al., KDD 2021): the mean of ``relu(p_t - p_{t-1})``, summed over consecutive tasks.

    A scalar, without AITM's weight of 0.6, from checked logits [B, T] in funnel order and weights [B]. It is 0 exactly if no event is more
    likely than the one before it.
    """
    p = torch.sigmoid(at_least_float32(logits))
    excess = torch.relu(p[:, 1:] - p[:, :-1]).sum(dim=1)
    if sample_weight is None:
        return excess.mean()
    weight = sample_weight.to(excess.dtype)
    return (excess * weight).sum() / _or_one(weight.sum())


def combine(losses: Tensor, task_weight: Sequence[float] | Tensor | nn.Module | None) -> Tensor:
    """One scalar from the tasks' losses [T]: their sum, their weighted sum, or the result of a module.

    Raises:
        TypeError, ValueError: ``task_weight`` is neither T finite numbers of at least 0 nor a module.
    """
    if task_weight is None:
        return losses.sum()
    if isinstance(task_weight, nn.Module):
        return task_weight(losses)
    try:
        weight = torch.as_tensor(task_weight, dtype=losses.dtype, device=losses.device)
    except (TypeError, ValueError) as error:
        got = type(task_weight).__name__
        raise TypeError(f"task_weight: got {got} ({error}), expected {len(losses)} numbers, a tensor, or a module") from error
    if weight.shape != losses.shape:
        raise ValueError(f"task_weight: got shape {list(weight.shape)}, expected {list(losses.shape)}, one weight per task")
    values = None if inputs_are_checked() else values_of(weight, 1)
    if values is not None and not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(f"task_weight: got {values.tolist()}, expected finite weights of at least 0")
    return (losses * weight).sum()


class UncertaintyWeighting(nn.Module):
    """Weigh tasks by a learned uncertainty: ``sum_t exp(-s_t) * loss_t + s_t / 2``, where s_t is the log variance of task t.

    This is the classification form of Kendall, Gal and Cipolla (CVPR 2018). Give its parameters to an optimiser, like the model's.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN, UncertaintyWeighting
        >>> model, weighting = DCRNN([100, 50]), UncertaintyWeighting(num_tasks=2)
        >>> optimiser = torch.optim.Adam([*model.parameters(), *weighting.parameters()])
        >>> logits, labels = model(torch.tensor([[7, 3]])), torch.tensor([[1.0, 0.0]])
        >>> model.loss(logits, labels, task_weight=weighting).backward()
    """

    def __init__(self, num_tasks: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        check_count("num_tasks", num_tasks, maximum=MAX_SIZE)
        check_placement(device, None)
        self.log_variance = nn.Parameter(torch.zeros(num_tasks, device=device))

    def forward(self, losses: Tensor) -> Tensor:
        """A scalar from losses [T]. Raises TypeError or ValueError for another dtype or shape."""
        check_floats("losses", losses, "[T]")
        if losses.shape != self.log_variance.shape:
            raise ValueError(f"losses: got shape {list(losses.shape)}, expected {list(self.log_variance.shape)}, one per task")
        return (torch.exp(-self.log_variance) * losses + 0.5 * self.log_variance).sum()


def counterfactual_losses(
    z: Tensor,
    labels: Tensor,
    propensity: Tensor,
    *,
    sample_weight: Tensor | None = None,
    negative_rate: float = 1.0,
    propensity_floor: float = FLOOR,
) -> Tensor:
    """Estimate each conditional's mean log loss over all rows, from the rows in which the event before happened.

    This is inverse propensity weighting: the mean over all rows of o l / p, where o says whether the event before happened, l is the log
    loss of the event's label, and p the propensity. It is unbiased if p is the probability of o.

    Args:
        z: [B, T - 1], the logits of every event after the first, given the one before.
        labels: [B, T] in [0, 1], in funnel order; NaN marks an unknown label. Rows with unknown o do not count. If o is positive and the
            event's label is unknown, the other rows with o take over the row's weight, as if labels were lost at random.
        propensity: [B, T - 1] in [0, 1], the probability over all rows of every event before the last. No gradient flows to it.
        sample_weight: [B], finite and at least 0.
        negative_rate: the part of the rows without the first event that the log kept. Below 1, loss and propensities are those of the full
            log.
        propensity_floor: smaller propensities count as ``propensity_floor`` times the mean, which limits the variance and adds a bias.

    Returns:
        [T - 1] in float32 (float64 for float64 z). An event is 0 if nothing is known of the one before it.

    Raises:
        TypeError, ValueError: an argument of another dtype, shape or range.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN, counterfactual_losses
        >>> model = DCRNN([100, 50])
        >>> z = model.conditional_logits(torch.tensor([[7, 3], [99, 0]]))
        >>> labels, logits = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), model.event_logits(z)
        >>> loss = model.loss(logits, labels) + counterfactual_losses(z[:, 1:], labels, torch.sigmoid(logits[:, :-1])).sum()
    """
    check_floats("z", z, "[B, T - 1]")
    check_floats("labels", labels, "[B, T]")
    if labels.shape != (z.shape[0], z.shape[1] + 1) or labels.device != z.device or not z.shape[1]:
        raise ValueError(
            f"labels: got shape {list(labels.shape)} on {labels.device}, expected [B, T] on {z.device} for z [B, T - 1], of which the "
            f"shape is {list(z.shape)}: one label more than conditionals, and at least one conditional"
        )
    check_floats("propensity", propensity, "[B, T - 1]", like=("z", z))
    _check_range("propensity", propensity, "probabilities")
    _check_range("labels", labels, "0, 1, a probability, or NaN for unknown", nan=True)
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
    return (weight * nn.functional.binary_cross_entropy_with_logits(z, label, reduction="none")).sum(dim=0) / rows


def _or_one(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 1)


def _check_range(name: str, values: Tensor, expected: str, *, nan: bool = False) -> None:
    if inputs_are_checked() or not may_read_values(values):
        return
    if not bool(((values >= 0) & (values <= 1) | (torch.isnan(values) & nan)).all()):
        raise ValueError(f"{name}: got a value outside [0, 1], expected {expected}")
