"""The loss of each task over its known labels, and the ways to combine the tasks' losses into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..support.checks import MAX_SIZE, check_count, check_floats, check_placement
from ..support.model_inputs import check_sample_weight
from ..support.tracing import inputs_are_checked, values_of

CALIBRATOR_WEIGHT = 0.6
"""The weight that AITM gives :func:`expectation_calibrator`."""


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32; float64 stays float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def task_losses(logits: Tensor, labels: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Binary cross entropy of each task: the weighted mean over the rows whose label is known.

    Args:
        logits: [B, T].
        labels: [B, T] in [0, 1]; NaN marks an unknown label.
        sample_weight: [B], finite and at least 0; None gives every row the same weight.

    Returns:
        [T] in float32 (float64 for float64 logits). A task without a known label of positive weight has loss 0 and gradient 0.

    Raises TypeError, ValueError: an argument of another dtype or shape, or a weight that is negative or not finite.
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
    total = weight.sum(dim=0)
    return (losses * weight).sum(dim=0) / torch.where(total > 0, total, 1)


def expectation_calibrator(logits: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """AITM's behavioural-expectation calibrator (Xi et al., KDD 2021): the mean of ``relu(p_t - p_{t-1})``, summed over consecutive tasks.

    Args:
        logits: [B, T], in funnel order.
        sample_weight: [B], as in :func:`task_losses`.

    Returns:
        A scalar, without the weight 0.6. It is 0 exactly when no event is likelier than the one before it.

    Raises TypeError, ValueError: an argument of another dtype or shape, or a weight that is negative or not finite.
    """
    check_floats("logits", logits, "[B, T]")
    p = torch.sigmoid(at_least_float32(logits))
    excess = torch.relu(p[:, 1:] - p[:, :-1]).sum(dim=1)
    if sample_weight is None:
        return excess.mean()
    check_sample_weight(sample_weight, logits.shape[0])
    weight = sample_weight.to(excess.dtype)
    total = weight.sum()
    return (excess * weight).sum() / torch.where(total > 0, total, 1)


def combine(losses: Tensor, task_weight: Sequence[float] | Tensor | nn.Module | None) -> Tensor:
    """One scalar from the tasks' losses [T]: their sum, their weighted sum, or the result of a module.

    Raises:
        TypeError: ``losses`` is no floating tensor, or ``task_weight`` is neither a sequence of numbers nor a module.
        ValueError: one of them has another shape than [T], or a weight is negative or not finite.
    """
    check_floats("losses", losses, "[T]")
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
    """Weighs tasks by a learned uncertainty: ``sum_t exp(-s_t) * loss_t + s_t / 2``, where s_t is the log variance of task t.

    It is the classification form of Kendall, Gal and Cipolla (CVPR 2018). Its parameters need an optimiser, like those of the model.

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
        """Losses [T] to a scalar; TypeError or ValueError for another dtype or shape."""
        check_floats("losses", losses, "[T]")
        if losses.shape != self.log_variance.shape:
            raise ValueError(f"losses: got shape {list(losses.shape)}, expected {list(self.log_variance.shape)}, one per task")
        return (torch.exp(-self.log_variance) * losses + 0.5 * self.log_variance).sum()
