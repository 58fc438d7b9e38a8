"""Sharing plans: which parameters and computations tasks share, the shapes of the weights, and what that costs.

Letters: T tasks, D units, L steps, W steps with their own weights (1 if tied, else L), G vectors of a unit (2 gated, 1 cross), K input
columns of a unit, S shared units, P private units of a task, r the rank of a low-rank cell, C units of a scenario.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Literal, get_args

from .support.checks import MAX_SIZE, MAX_STEPS, check_choice, check_count, check_counts, check_flag, check_ratio

__all__ = ["GATES", "Cell", "PlanCost", "Sharing", "SharingPlan", "round_units"]

Cell = Literal["gated", "cross"]
Sharing = Literal["rows", "trunk"]
GATES: dict[str, int] = {"gated": 2, "cross": 1}
"""G, the vectors of a unit: the gated cell has a row of W and one of V, the plain cross cell a row of W alone."""


@dataclass(frozen=True)
class PlanCost:
    """The cost of a plan.

    Attributes:
        parameters: the number of trainable values.
        flops: floating-point operations per example of the forward pass's matrix products; a multiply-add counts as two. Every task counts
            in full, and of the scenarios only the example's.
        weight_bytes: memory of the parameters.
        kept_bytes: memory per example that training keeps for the backward pass: the state, a and (if gated) g of every step; with a rank,
            only the r projected values z and (if gated) y of every step.

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


def round_units(share_ratio: float, units: int) -> int:
    """The number of shared units: ``round(share_ratio * units)``."""
    return round(float(share_ratio) * units)


@dataclass(frozen=True)
class SharingPlan:
    """Which units of a cross recurrence the tasks share.

    - ``kind="rows"`` shares parameters; each task computes all of its units.
    - ``kind="trunk"`` shares computation too. The shared units read only each other and are computed once. A task's private units read the
      shared states and their own.
    - ``num_scenarios`` adds a level to a trunk. Each scenario has its own weights for the ``scenario_units``, which read the shared states
      and their own; the private units read both. A row belongs to one scenario or to none.
    - ``rank`` gives the cell a low rank: a unit reads r projected values instead of all columns. Tasks share the projections. The trunk has
      its own projection, and all scenarios share another.

    Build a plan with :meth:`from_ratio` or :meth:`from_fields`. The constructor takes sorted, distinct unit numbers. Weights hold the units
    in the plan's :attr:`order`: shared, of a scenario, private.

    Raises:
        TypeError, ValueError: an argument of a wrong type or outside its range.

    Example:
        >>> from dcrnn_fast import SharingPlan
        >>> plan = SharingPlan.from_ratio("rows", num_tasks=2, dim=4, share_ratio=0.5)
        >>> plan.shared_shape(), plan.private_shape()  # of the weights: units 0 and 1 are shared, units 2 and 3 are the task's own
        ((1, 2, 2, 4), (2, 1, 2, 2, 4))
        >>> print(str(plan).splitlines()[0])
        rows sharing of 2 of 4 units, 2 tasks, 3 steps, gated cell, tied
    """

    kind: Sharing
    num_tasks: int
    dim: int
    shared_units: tuple[int, ...]
    steps: int = 3
    cell: Cell = "gated"
    tied: bool = True
    rank: int | None = None
    num_scenarios: int = 0
    scenario_units: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choice("sharing", self.kind, get_args(Sharing))
        check_choice("cell", self.cell, tuple(GATES))
        keep = partial(object.__setattr__, self)  # Python's ints, which torch.compile takes as constants
        keep("num_tasks", check_count("num_tasks", self.num_tasks, maximum=MAX_SIZE))
        keep("dim", check_count("dim", self.dim, maximum=MAX_SIZE))
        keep("steps", check_count("steps", self.steps, maximum=MAX_STEPS))
        check_flag("tied", self.tied)
        if self.rank is not None:
            keep("rank", check_count("rank", self.rank, maximum=MAX_SIZE))
        keep("num_scenarios", check_count("num_scenarios", self.num_scenarios, minimum=0, maximum=MAX_SIZE))
        for name in ("shared_units", "scenario_units"):
            units = check_counts(name, getattr(self, name), "unit numbers", minimum=0)
            keep(name, units)
            if list(units) != sorted(set(units)) or (units and units[-1] >= self.dim):
                raise ValueError(f"{name}={units}: expected sorted, distinct unit numbers in [0, {self.dim})")
        both = set(self.shared_units) & set(self.scenario_units)
        if both:
            raise ValueError(f"scenario_units: unit {min(both)} is in shared_units too, expected a unit in one of them")
        if self.kind == "rows" and (self.num_scenarios or self.scenario_units):
            raise ValueError('sharing="rows": expected sharing="trunk" with scenarios, whose units read the states of a trunk')

    @classmethod
    def from_ratio(
        cls,
        kind: Sharing,
        num_tasks: int,
        dim: int,
        share_ratio: float,
        *,
        steps: int = 3,
        cell: Cell = "gated",
        tied: bool = True,
        rank: int | None = None,
        num_scenarios: int = 0,
        scenario_ratio: float = 0.0,
    ) -> SharingPlan:
        """Share the first ``round(share_ratio * dim)`` units; ``share_ratio`` is in [0, 1].

        The units from there to ``round((share_ratio + scenario_ratio) * dim)`` belong to the scenarios. The ratios add up to at most 1.
        """
        check_ratio("share_ratio", share_ratio)
        check_ratio("scenario_ratio", scenario_ratio)
        check_count("dim", dim, maximum=MAX_SIZE)
        first, second = round_units(share_ratio, dim), round_units(float(share_ratio) + float(scenario_ratio), dim)
        if float(share_ratio) + float(scenario_ratio) > 1:
            raise ValueError(f"scenario_ratio={scenario_ratio}: expected at most 1 - share_ratio = {1 - share_ratio:g}")
        return cls(kind, num_tasks, dim, tuple(range(first)), steps, cell, tied, rank, num_scenarios, tuple(range(first, second)))

    @classmethod
    def from_fields(
        cls,
        kind: Sharing,
        num_tasks: int,
        field_dims: Sequence[int],
        shared_fields: Sequence[int],
        *,
        steps: int = 3,
        cell: Cell = "gated",
        tied: bool = True,
        rank: int | None = None,
    ) -> SharingPlan:
        """Share the units of the fields numbered in ``shared_fields``; field f has ``field_dims[f]`` consecutive units.

        Raises:
            IndexError: a field number outside [0, len(field_dims)).
        """
        field_dims = check_counts("field_dims", field_dims, "widths")
        shared_fields = check_counts("shared_fields", shared_fields, "field numbers", minimum=0)
        wrong = [f for f in shared_fields if f >= len(field_dims)]
        if wrong:
            raise IndexError(f"shared_fields: field {wrong[0]} is outside [0, {len(field_dims)})")
        starts = [sum(field_dims[:f]) for f in range(len(field_dims))]
        units = sorted(starts[f] + d for f in set(shared_fields) for d in range(field_dims[f]))
        return cls(kind, num_tasks, sum(field_dims), tuple(units), steps, cell, tied, rank)

    @property
    def gates(self) -> int:
        """G, the vectors of a unit."""
        return GATES[self.cell]

    @property
    def weight_steps(self) -> int:
        """W, the number of steps that have their own weights."""
        return 1 if self.tied else self.steps

    @property
    def private_units(self) -> tuple[int, ...]:
        """The numbers of the units that each task has for itself, in order."""
        others = {*self.shared_units, *self.scenario_units}
        return tuple(d for d in range(self.dim) if d not in others)

    @property
    def order(self) -> tuple[int, ...]:
        """The numbers of the units in the order of the weights: shared, of a scenario, private."""
        return *self.shared_units, *self.scenario_units, *self.private_units

    @property
    def share_ratio(self) -> float:
        """The fraction of units that are shared, after rounding."""
        return len(self.shared_units) / self.dim

    @property
    def distinct_tasks(self) -> int:
        """How many recurrences tasks need: 1 with kind "rows" if all tasks share everything, otherwise ``num_tasks``."""
        return 1 if self.kind == "rows" and not self.private_units else self.num_tasks

    @property
    def shared_columns(self) -> int:
        """K of a shared row: all units with kind "rows", the trunk's with kind "trunk"."""
        return len(self.shared_units) if self.kind == "trunk" else self.dim

    def shared_shape(self) -> tuple[int, int, int, int]:
        """Shape [W, S, G, K] of the shared weights, or [W, S, G, r]. The shared biases are [W, S, G]."""
        return self.weight_steps, len(self.shared_units), self.gates, self.rank or self.shared_columns

    def private_shape(self) -> tuple[int, int, int, int, int]:
        """Shape [T, W, P, G, D] of the private weights, or [T, W, P, G, r]. The private biases are [T, W, P, G]."""
        return self.num_tasks, self.weight_steps, len(self.private_units), self.gates, self.rank or self.dim

    @property
    def scenario_columns(self) -> int:
        """K of a scenario's row: S + C."""
        return len(self.shared_units) + len(self.scenario_units)

    def scenario_shape(self) -> tuple[int, int, int, int, int]:
        """Shape [scenarios, W, C, G, S + C] of the scenarios' weights, or [scenarios, W, C, G, r]. The biases are [scenarios, W, C, G]."""
        return self.num_scenarios, self.weight_steps, len(self.scenario_units), self.gates, self.rank or self.scenario_columns

    def scenario_projection_shape(self) -> tuple[int, int, int, int]:
        """Shape [W, r, G, S + C] of the projection that all scenarios share; [W, 0, ...] if there is none."""
        rows = (self.rank or 0) if self.num_scenarios and self.scenario_units else 0
        return self.weight_steps, rows, self.gates, self.scenario_columns

    def trunk_projection_shape(self) -> tuple[int, int, int, int]:
        """Shape [W, r, G, S] of the trunk's projection; [W, 0, ...] if there is none."""
        rows = (self.rank or 0) if self.kind == "trunk" and self.shared_units else 0
        return self.weight_steps, rows, self.gates, len(self.shared_units)

    def shared_projection_shape(self) -> tuple[int, int, int, int]:
        """Shape [W, r, G, D] of the projection that tasks share; [W, 0, ...] if there is none."""
        is_read = self.kind == "rows" or self.private_units
        return self.weight_steps, (self.rank or 0) if is_read else 0, self.gates, self.dim

    def private_projection_shape(self) -> tuple[int, int, int, int, int]:
        """Shape [T, W, 0, G, D] of the tasks' own projections: tasks share all of them."""
        return self.num_tasks, self.weight_steps, 0, self.gates, self.dim

    def cost(self, bytes_per_value: int = 4) -> PlanCost:
        """The cost of the whole plan, with ``bytes_per_value`` for each parameter and activation."""
        check_count("bytes_per_value", bytes_per_value)
        shared, private, tasks, gates = len(self.shared_units), len(self.private_units), self.num_tasks, self.gates
        # the recurrences that run: how many, of how many units, from how many columns
        of_row = min(self.num_scenarios, 1), len(self.scenario_units), self.scenario_columns  # each row runs its own scenario's alone
        levels = [(1, shared, shared), of_row, (tasks, private, self.dim)]
        recurrences = levels if self.kind == "trunk" else [(self.distinct_tasks, self.dim, self.dim)]
        shapes = [self.shared_shape(), self.scenario_shape(), self.private_shape()]
        values = sum(math.prod(shape[:-1]) * (shape[-1] + 1) for shape in shapes)  # a bias for each row of weights
        if self.rank is None:
            products = sum(number * units * columns for number, units, columns in recurrences)
            kept = (1 + gates) * sum(number * units for number, units, _ in recurrences)
        else:
            recurrences = [one for one in recurrences if one[1]]
            values += math.prod(self.trunk_projection_shape()) + math.prod(self.scenario_projection_shape())
            values += math.prod(self.shared_projection_shape())
            products = sum(number * self.rank * (units + columns) for number, units, columns in recurrences)
            kept = gates * self.rank * sum(number for number, _, _ in recurrences)
        return PlanCost(values, 2 * self.steps * gates * products, values * bytes_per_value, self.steps * kept * bytes_per_value)

    def cost_per_added_task(self, bytes_per_value: int = 4) -> PlanCost:
        """What one more task adds to :meth:`cost`."""
        return replace(self, num_tasks=self.num_tasks + 1).cost(bytes_per_value) - self.cost(bytes_per_value)

    def cost_per_added_scenario(self, bytes_per_value: int = 4) -> PlanCost:
        """What one more scenario adds to :meth:`cost`: parameters, and for the first one FLOPs and kept bytes."""
        return replace(self, num_scenarios=self.num_scenarios + 1).cost(bytes_per_value) - self.cost(bytes_per_value)

    def summary(self) -> str:
        """A table of the costs of this plan, hard sharing (share_ratio 1) and no sharing (0), and of one more task or scenario."""
        one_level = replace(self, num_scenarios=0, scenario_units=())
        hard = replace(one_level, shared_units=tuple(range(self.dim)))
        none = replace(one_level, shared_units=())
        rank = "" if self.rank is None else f", rank {self.rank}"
        scenarios = f", {len(self.scenario_units)} units for each of {self.num_scenarios} scenarios" if self.scenario_units else ""
        lines = [
            f"{self.kind} sharing of {len(self.shared_units)} of {self.dim} units{scenarios}, {self.num_tasks} tasks, {self.steps} steps, "
            f"{self.cell} cell, {'tied' if self.tied else 'untied'}{rank}",
            f"{'':24}{'parameters':>14}{'FLOPs/example':>16}{'weight bytes':>14}{'kept bytes/example':>20}",
        ]
        for name, plan in (("this plan", self), ("hard sharing (1)", hard), ("no sharing (0)", none)):
            costs = [(name, plan.cost()), ("  per added task", plan.cost_per_added_task())]
            if plan.scenario_units:
                costs.append(("  per added scenario", plan.cost_per_added_scenario()))
            for label, cost in costs:
                lines.append(f"{label:24}{cost.parameters:>14,}{cost.flops:>16,}{cost.weight_bytes:>14,}{cost.kept_bytes:>20,}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()
