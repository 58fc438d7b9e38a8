"""Scenarios: a trunk for all rows, one below it for each scenario, and private units for each task (hierarchical sharing)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..support.model_inputs import check_scenario
from ..support.tracing import may_read_values
from .layers import CrossRNN, no_private, no_shared, parameter


class ScenarioCrossRNN(CrossRNN):
    """A cross recurrence of three levels, for every task of a :class:`~dcrnn_fast.SharingPlan` with scenarios.

    A *scenario* is a group of rows, such as a channel or a country. (HiNet, Zhou et al., 2023, arXiv 2303.06095, has levels for scenarios
    and tasks too, as mixtures of experts.) The D units are:

    - S units of the global trunk, which read the trunk's S states;
    - C units of the scenario's trunk, which read S + C states, the global trunk's and their own. Each of the N scenarios has its own
      weights, which all tasks share;
    - P = D - S - C private units, which read all D states. Each task has its own weights, which all scenarios share.

    Rows of the unknown scenario 0 use the global trunk alone: their C units keep x0. Scenarios start like the unknown one, with W and b at
    zero.

    Parameters in addition to those of :class:`CrossRNN`, whose arguments it takes: ``scenario_weight`` [N, W, C, G, S + C], whose V starts
    uniform in +-1/sqrt(S + C), and ``scenario_bias`` [N, W, C, G]. With a rank r the weights have r columns, and all scenarios share
    ``scenario_projection`` [W, r, G, S + C].

    The operator is called once for each scenario in the batch. Code that may not read values (compiled and exported graphs, captured CUDA
    graphs, ``vmap``) computes every scenario for every row instead.

    Example:
        >>> import torch
        >>> from dcrnn_fast import ScenarioCrossRNN, SharingPlan
        >>> plan = SharingPlan.from_ratio("trunk", num_tasks=2, dim=8, share_ratio=0.5, num_scenarios=3, scenario_ratio=0.25)
        >>> ScenarioCrossRNN(plan)(torch.randn(4, 8), torch.tensor([1, 3, 0, 1])).shape
        torch.Size([2, 4, 8])
    """

    computes_scenarios = True

    def _make_parameters(self, **place: Any) -> None:
        super()._make_parameters(**place)
        shape = self.plan.scenario_shape()
        self.scenario_weight, self.scenario_bias = parameter(*shape, **place), parameter(*shape[:-1], **place)
        if self.plan.rank is not None:
            self.scenario_projection = parameter(*self.plan.scenario_projection_shape(), **place)

    def reset_parameters(self) -> None:
        """Draw new weights, and set the biases and the scenarios' W to zero."""
        super().reset_parameters()
        nn.init.zeros_(self.scenario_bias)
        if self.scenario_weight.numel():
            nn.init.zeros_(self.scenario_weight[:, :, :, 0])
            bound = 1 / math.sqrt(self.scenario_weight.shape[-1])
            nn.init.uniform_(self.scenario_weight[:, :, :, 1:], -bound, bound)

    def forward(self, x0: Tensor, scenario: Tensor | None = None) -> Tensor:
        """Each task's last state [T, B, D].

        Args:
            x0: floating [B, D].
            scenario: each row's, int64 or int32 [B] in [0, N]; None is 0 for all.

        Raises:
            TypeError, ValueError, IndexError: another dtype or shape, or a scenario outside [0, N].
        """
        x0 = self._in_order(x0)
        if scenario is None:
            scenario = torch.zeros(x0.shape[0], dtype=torch.int64, device=x0.device)
        span = check_scenario(scenario, x0.shape[0], self.plan.num_scenarios)
        trunk = self._trunk_states(x0)
        above = [] if trunk is None else [trunk]
        if self.plan.scenario_units:
            own = x0[:, len(self.plan.shared_units) : self.plan.scenario_columns]
            context = None if trunk is None else trunk[: self.plan.steps]  # the trunk's states before each step
            if span is None or not may_read_values(scenario):
                above.append(self._of_all(own, context, scenario))
            else:
                above.append(self._of_groups(own, context, scenario, several=span[0] < span[1]))
        return self._with_private(x0, above)

    def _of_groups(self, x0: Tensor, context: Tensor | None, scenario: Tensor, *, several: bool) -> Tensor:
        """The states [L + 1, B, C] of the scenarios' units from their x0 [B, C], by one call for each scenario that has rows."""
        if not self.plan.num_scenarios:
            return self._unknown(x0)
        sizes = torch.bincount(scenario, minlength=self.plan.num_scenarios + 1).tolist()
        order = torch.argsort(scenario, stable=True) if several else None
        if order is not None:
            x0 = x0.index_select(0, order)
            context = None if context is None else context.index_select(1, order)
        # Without any known scenario, the first runs on no rows: the parameters have a gradient after every batch, as DDP expects.
        present = [number for number, size in enumerate(sizes) if size and number] or [1]
        rows = [sizes[0], *[sizes[number] for number in present]]
        unknown, *starts = x0.split(rows)
        contexts = [None] * len(starts) if context is None else context.split(rows, dim=1)[1:]
        weights, biases = self.scenario_weight.unbind(), self.scenario_bias.unbind()
        parts = []
        for number, start, above in zip(present, starts, contexts, strict=True):
            banks = weights[number - 1].unsqueeze(0), biases[number - 1].unsqueeze(0)
            parts.append(self._run(start, above, *banks)[0])
        states = torch.cat([self._unknown(unknown).to(parts[0].dtype), *parts], dim=1)
        return states if order is None else states.index_select(1, torch.argsort(order))

    def _of_all(self, x0: Tensor, context: Tensor | None, scenario: Tensor) -> Tensor:
        """The same by all scenarios on all rows, as the operator's tasks; then each row's own."""
        known = self._run(x0, context, self.scenario_weight, self.scenario_bias)  # [N, L + 1, B, C]
        states = torch.cat([self._unknown(x0).unsqueeze(0).to(known.dtype), known])
        return states.gather(0, scenario.long().view(1, 1, -1, 1).expand(1, *states.shape[1:]))[0]

    def _unknown(self, x0: Tensor) -> Tensor:
        return x0.expand(self.plan.steps + 1, -1, -1)

    def _run(self, x0: Tensor, context: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
        """The states [N, L + 1, B, C] of the scenarios whose weights [N, W, C, G, K] and biases are given."""
        options: dict[str, Any] = {"steps": self.plan.steps, "cell": self.plan.cell, "context": context, "return_states": True}
        if self.plan.rank is not None:
            options["shared_projection"] = self.scenario_projection
            options["private_projection"] = no_private(self.scenario_projection, len(weight))
        return self.cross_rnn(x0, no_shared(weight), no_shared(bias), weight, bias, **options)
