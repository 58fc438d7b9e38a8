"""What a sharing plan costs."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class PlanCost:
    """What a plan costs.

    Attributes:
        parameters: the number of trainable values.
        flops: floating-point operations of the forward pass's matrix products, per example; a multiply and an add count as two.
            Every task counts in full: that kernels compute once what tasks start with alike is not taken off. Of scenarios, only that of
            the example counts.
        weight_bytes: memory of the parameters.
        kept_bytes: memory per example that training keeps for the backward: the state, a and (if gated) g of every step. With a rank,
            what its kernels keep: the r projected values z and (if gated) y of every step, from which they compute the rest again.

    Example:
        >>> from dcrnn_fast import SharingPlan
        >>> plan = SharingPlan.from_ratio("trunk", num_tasks=2, dim=8, share_ratio=0.5)
        >>> plan.cost_per_added_task()
        PlanCost(parameters=72, flops=384, weight_bytes=288, kept_bytes=144)
    """

    parameters: int
    flops: int
    weight_bytes: int
    kept_bytes: int

    def __sub__(self, other: PlanCost) -> PlanCost:
        return PlanCost(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))
