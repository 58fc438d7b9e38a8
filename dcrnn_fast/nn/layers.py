"""The recurrence of all tasks, and the layer of their towers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from ..ops.backends import require
from ..sharing import SharingPlan
from ..support.checks import check_flag
from ..support.tensors import check_floats, check_placement


def parameter(*shape: int, **place: Any) -> nn.Parameter:
    """An uninitialised parameter. An empty one needs no gradient, so that DistributedDataParallel does not wait for it."""
    values = torch.empty(shape, **place)
    return nn.Parameter(values, requires_grad=values.numel() > 0)


def beside(parts: list[Tensor]) -> Tensor:
    """Tensors [..., C] side by side; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def runs_of(order: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers as runs of neighbours, the first and one past the last."""
    starts = [place for place, unit in enumerate(order) if not place or order[place - 1] + 1 != unit]
    return [(order[start], order[end - 1] + 1) for start, end in zip(starts, [*starts[1:], len(order)], strict=True)]


def reordered(units: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
    """Units [..., D] with these runs of them side by side; as they are if one run holds all."""
    return units if len(runs) == 1 else torch.cat([units[..., first:last] for first, last in runs], dim=-1)


class CrossRNN(nn.Module):
    """A cross layer run as a recurrence, for every task of a :class:`~dcrnn_fast.SharingPlan`: x0 [B, D] to the last states [T, B, D].

    Parameters, in the letters of :mod:`dcrnn_fast.sharing` and the plan's ``order`` of units:

    - ``shared_weight`` [W, S, G, K] and ``private_weight`` [T, W, P, G, D] start uniform in +-1/sqrt(n) for n columns;
    - ``shared_bias`` [W, S, G] and ``private_bias`` [T, W, P, G] start at zero.

    With a rank r, the weights have r columns. ``shared_projection`` [W, r, G, D], an empty ``private_projection`` [T, W, 0, G, D] and, with
    a trunk, ``trunk_projection`` [W, r, G, K] start uniform in +-sqrt(3/n), so that updates start as large as the full cell's.

    Args:
        plan: which units tasks share, the number of steps and the cell.
        backend: "auto", or a backend's name.
        recompute: compute a and g again in the backward pass instead of keeping them.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: an argument of a wrong type, or a plan with scenarios.
        BackendUnavailable: the named backend cannot run here.

    Example:
        >>> import torch
        >>> from dcrnn_fast import CrossRNN, SharingPlan
        >>> plan = SharingPlan.from_ratio("rows", num_tasks=2, dim=8, share_ratio=0.5, steps=3)
        >>> CrossRNN(plan)(torch.randn(4, 8)).shape
        torch.Size([2, 4, 8])
    """

    computes_scenarios = False

    def __init__(
        self,
        plan: SharingPlan,
        *,
        backend: str = "auto",
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        require(backend)
        check_flag("recompute", recompute)
        if not isinstance(plan, SharingPlan):
            raise TypeError(f"plan={plan!r}: expected a SharingPlan, got {type(plan).__name__}")
        check_placement(device, dtype)
        if plan.scenario_units and not self.computes_scenarios:
            raise ValueError("plan: got one with scenarios, expected one without; ScenarioCrossRNN computes those")
        self.plan, self.backend, self.recompute = plan, backend, recompute
        self.distinct_tasks = plan.distinct_tasks  # which a forward need not count again
        self._make_parameters(device=device, dtype=dtype)
        order = plan.order
        self._to_order, self._from_order = runs_of(order), runs_of(sorted(range(plan.dim), key=order.__getitem__))
        self.reset_parameters()

    def _make_parameters(self, **place: Any) -> None:
        plan = self.plan
        shared, private = plan.shared_shape(), plan.private_shape()
        self.shared_weight, self.shared_bias = parameter(*shared, **place), parameter(*shared[:-1], **place)
        self.private_weight, self.private_bias = parameter(*private, **place), parameter(*private[:-1], **place)
        if plan.rank is not None:
            self.shared_projection = parameter(*plan.shared_projection_shape(), **place)
            self.private_projection = parameter(*plan.private_projection_shape(), **place)
            if plan.kind == "trunk":
                self.trunk_projection = parameter(*plan.trunk_projection_shape(), **place)

    def reset_parameters(self) -> None:
        """Draw new weights, and set the biases to zero."""
        for weight, bias in ((self.shared_weight, self.shared_bias), (self.private_weight, self.private_bias)):
            if weight.numel():
                bound = 1 / math.sqrt(weight.shape[-1])
                nn.init.uniform_(weight, -bound, bound)
            nn.init.zeros_(bias)
        for name, projection in self.named_parameters(recurse=False):
            if name.endswith("projection") and projection.numel():
                bound = math.sqrt(3 / projection.shape[-1])
                nn.init.uniform_(projection, -bound, bound)

    def forward(self, x0: Tensor) -> Tensor:
        """Each task's last state [T, B, D] from x0 [B, D]. Raises TypeError or ValueError for another dtype or shape.

        If tasks share all rows, their states are one tensor in memory: do not change them in place.
        """
        x0 = self._in_order(x0)
        if self.plan.kind == "trunk":
            states = self._trunk_states(x0)
            return self._with_private(x0, [] if states is None else [states])
        tensors, options = self.operands()
        h = reordered(self.cross_rnn(x0, *tensors, **options), self._from_order)
        return h if h.shape[0] == self.plan.num_tasks else h.expand(self.plan.num_tasks, -1, -1)

    def operands(self) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """The operator's weights and biases, and its options by name, with kind "rows".

        If all tasks share everything, they are those of one task, because one recurrence serves all.
        """
        weights = self.shared_weight, self.shared_bias, self._distinct(self.private_weight), self._distinct(self.private_bias)
        return weights, {"steps": self.plan.steps, "cell": self.plan.cell, **self._projection()}

    def _distinct(self, private: Tensor) -> Tensor:
        """The private bank of the tasks that differ."""
        return private if self.distinct_tasks == self.plan.num_tasks else private[: self.distinct_tasks]

    def _in_order(self, x0: Tensor) -> Tensor:
        """``x0``, checked, with its columns in the plan's order."""
        check_floats("x0", x0, "[B, D]")
        if x0.shape[1] != self.plan.dim:
            raise ValueError(f"x0: got shape {list(x0.shape)}, expected [B, {self.plan.dim}]")
        return reordered(x0, self._to_order)

    def _projection(self) -> dict[str, Tensor]:
        """The operator's arguments for a cell of low rank; none for the full cell."""
        if self.plan.rank is None:
            return {}
        return {"shared_projection": self.shared_projection, "private_projection": self._distinct(self.private_projection)}

    def cross_rnn(self, *tensors: Tensor, **options: Any) -> Tensor:
        """The operator, on this module's backend."""
        return functional.cross_rnn(*tensors, recompute=self.recompute, backend=self.backend, **options)

    def _trunk_states(self, x0: Tensor) -> Tensor | None:
        """The trunk's states [L + 1, B, S]; None if it has no units."""
        plan, trunk_units = self.plan, len(self.plan.shared_units)
        if not trunk_units:
            return None
        trunk = self.shared_weight, self.shared_bias, no_private(self.shared_weight), no_private(self.shared_bias)
        options: dict[str, Any] = {"steps": plan.steps, "cell": plan.cell, "return_states": True}
        if plan.rank is not None:
            options |= {"shared_projection": self.trunk_projection, "private_projection": no_private(self.trunk_projection)}
        return self.cross_rnn(x0[:, :trunk_units], *trunk, **options)[0]

    def _with_private(self, x0: Tensor, above: list[Tensor]) -> Tensor:
        """The last states [T, B, D] of all units; ``above`` holds the states [L + 1, B, C] of the levels above the private units."""
        plan, tasks, steps = self.plan, self.plan.num_tasks, self.plan.steps
        parts = [states[steps].expand(tasks, -1, -1) for states in above]
        if plan.private_units:
            context = beside([states[:steps] for states in above]) if above else None
            private = no_shared(self.private_weight), no_shared(self.private_bias), self.private_weight, self.private_bias
            options = {"steps": steps, "cell": plan.cell, "context": context, **self._projection()}
            parts.append(self.cross_rnn(x0[:, plan.dim - len(plan.private_units) :], *private, **options))
        return reordered(torch.cat(parts, dim=-1), self._from_order)

    def extra_repr(self) -> str:
        """The plan in one line."""
        return self.plan.summary().splitlines()[0]


def no_private(shared: Tensor, tasks: int = 1) -> Tensor:
    """An empty private bank [T, W, 0, ...] for a shared one [W, S, ...]."""
    return shared.new_empty(tasks, shared.shape[0], 0, *shared.shape[2:])


def no_shared(private: Tensor) -> Tensor:
    """An empty shared bank [W, 0, ...] for a private one [T, W, P, ...]."""
    return private.new_empty(private.shape[1], 0, *private.shape[3:])


class TaskLinear(nn.Module):
    """A linear layer for each of T tasks, from states [T, B, in] to [T, B, out].

    Parameters: ``private_weight`` [T, out, in] and ``private_bias`` [T, out], which start uniform in +-1/sqrt(in) like those of
    ``torch.nn.Linear``. ``shared_weight`` [0, in] and ``shared_bias`` [0] are empty: tasks share no row.
    """

    def __init__(self, in_features: int, out_features: int, num_tasks: int, **place: Any) -> None:
        super().__init__()
        self.shared_weight, self.shared_bias = parameter(0, in_features, **place), parameter(0, **place)
        self.private_weight = parameter(num_tasks, out_features, in_features, **place)
        self.private_bias = parameter(num_tasks, out_features, **place)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and biases."""
        bound = 1 / math.sqrt(self.private_weight.shape[-1])
        for values in self.parameters():
            nn.init.uniform_(values, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """x [T, B, in] to [T, B, out]."""
        return torch.baddbmm(self.private_bias.unsqueeze(1), x, self.private_weight.mT)
