"""The layers of DCRNN in plain PyTorch: the recurrence, the towers' layer, the embedding of numbers, and AITM's transfer; and DCN-v2.

Letters: T tasks, B rows, D units, L steps, G vectors of a unit (W and b, with a gate also V and c), r the rank, N scenarios, E the width
of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..sharing import SharingPlan
from ..support.checks import MAX_SIZE, MAX_STEPS, check_choice, check_count
from ..support.model_inputs import check_edges, check_scenario
from ..support.tensors import check_floats, check_placement

BACKENDS = ("auto", "reference", "cpp", "triton", "cuda")
"""The backends of the fast modules, which a module of the same arguments takes too."""


def parameter(*shape: int, **kind: Any) -> nn.Parameter:
    """An uninitialised parameter; one without values needs no gradient."""
    values = torch.empty(*shape, **kind)
    return nn.Parameter(values, requires_grad=values.numel() > 0)


def draw(weight: Tensor, bound: float) -> None:
    """Uniform in +-bound."""
    if weight.numel():
        nn.init.uniform_(weight, -bound, bound)


class CrossRNN(nn.Module):
    """A cross layer as the cell of a recurrence, for every task of a plan: x0 [B, D] to the last states [T, B, D].

    From h = x0, L times, ``h = h + g * x0 * a`` with ``a = W u + b`` and ``g = sigmoid(V u + c)``, or g = 1 for the cell "cross". u are
    the states that a unit reads; with a rank, r projections of them, of which W and V each have their own.

    - "rows": every unit reads all D states. Tasks share the rows of the shared units; each has its own rows for the others.
    - "trunk": a shared unit reads the shared units alone, so all tasks compute the same there; a private unit reads all. Between them may
      lie the units of :class:`ScenarioCrossRNN`.

    Example:
        >>> import torch
        >>> from dcrnn_fast import SharingPlan, reference
        >>> plan = SharingPlan.from_ratio("trunk", num_tasks=2, dim=8, share_ratio=0.5, steps=3)
        >>> reference.CrossRNN(plan)(torch.randn(4, 8)).shape
        torch.Size([2, 4, 8])
    """

    def __init__(self, plan: SharingPlan, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if not isinstance(plan, SharingPlan):
            raise TypeError(f"plan={plan!r}: expected a SharingPlan, got {type(plan).__name__}")
        if plan.scenario_units and not isinstance(self, ScenarioCrossRNN):
            raise ValueError("plan: got one with scenarios, expected one without; ScenarioCrossRNN computes those")
        check_placement(device, dtype)
        self.plan = plan
        self._make_parameters(device=device, dtype=dtype)
        self.reset_parameters()

    def _make_parameters(self, **kind: Any) -> None:
        plan = self.plan
        self.shared_weight = parameter(*plan.shared_shape(), **kind)
        self.shared_bias = parameter(*plan.shared_shape()[:-1], **kind)
        self.private_weight = parameter(*plan.private_shape(), **kind)
        self.private_bias = parameter(*plan.private_shape()[:-1], **kind)
        if plan.rank is not None:
            self.shared_projection = parameter(*plan.shared_projection_shape(), **kind)
            self.private_projection = parameter(*plan.private_projection_shape(), **kind)
            if plan.kind == "trunk":
                self.trunk_projection = parameter(*plan.trunk_projection_shape(), **kind)

    def reset_parameters(self) -> None:
        """Draw new weights; biases are zero."""
        for weight, bias in ((self.shared_weight, self.shared_bias), (self.private_weight, self.private_bias)):
            draw(weight, 1 / math.sqrt(weight.shape[-1]) if weight.numel() else 0)
            nn.init.zeros_(bias)
        for name, projection in self.named_parameters():
            if name.endswith("projection"):
                draw(projection, math.sqrt(3 / projection.shape[-1]) if projection.numel() else 0)

    def forward(self, x0: Tensor) -> Tensor:
        """x0 [B, D] to each task's last state, [T, B, D]."""
        return self._last_states(x0, None)

    def _last_states(self, x0: Tensor, scenario: Tensor | None) -> Tensor:
        check_floats("x0", x0, "[B, D]")
        if x0.shape[1] != self.plan.dim:
            raise ValueError(f"x0: got shape {list(x0.shape)}, expected [B, {self.plan.dim}]")
        last = []
        for task in range(self.plan.num_tasks):
            h = x0
            for step in range(self.plan.steps):
                h = h + self._update(h, x0, task, step, scenario)
            last.append(h)
        return torch.stack(last)

    def _update(self, h: Tensor, x0: Tensor, task: int, step: int, scenario: Tensor | None) -> Tensor:
        """``g * x0 * a`` [B, D] of all units at one step."""
        plan = self.plan
        shared, middle, private = list(plan.shared_units), list(plan.scenario_units), list(plan.private_units)
        order = [*shared, *middle, *private]  # of the updates, and of the columns that a unit reads
        weight_step = 0 if plan.tied else step

        def by(bank: str, units: list[int], columns: list[int], projection: str, *owner: int) -> Tensor:
            """The update of some units, which read some columns, by the owner's rows of a bank; with a rank, by a projection too."""
            at = (*owner, weight_step)
            weight, bias = getattr(self, f"{bank}_weight")[at], getattr(self, f"{bank}_bias")[at]
            projected = None if plan.rank is None else getattr(self, f"{projection}_projection")[weight_step]
            return cell(h[:, columns], x0[:, units], weight, bias, projected)

        updates = []
        if shared:
            updates.append(by("shared", shared, order, "shared") if plan.kind == "rows" else by("shared", shared, shared, "trunk"))
        if middle and scenario is not None:
            update = torch.zeros_like(x0[:, middle])  # where the scenario is unknown
            for number in range(1, plan.num_scenarios + 1):
                own = by("scenario", middle, shared + middle, "scenario", number - 1)
                update = torch.where((scenario == number).unsqueeze(1), own, update)
            updates.append(update)
        if private:
            updates.append(by("private", private, order, "shared", task))
        return torch.cat(updates, dim=1)[:, sorted(range(plan.dim), key=order.__getitem__)]  # in the order of the units


def cell(u: Tensor, x0: Tensor, weight: Tensor, bias: Tensor, projection: Tensor | None) -> Tensor:
    """``g * x0 * a`` of n units [B, n] that read u [B, K]: weight [n, G, K], bias [n, G]; or [n, G, r] with a projection [r, G, K]."""
    products = []
    for vector in range(weight.shape[1]):
        seen = u if projection is None else linear(u, projection[:, vector])
        products.append(linear(seen, weight[:, vector], bias[:, vector]))
    a, *gate = products
    return x0 * a * torch.sigmoid(gate[0]) if gate else x0 * a


class DCNv2(CrossRNN):
    """DCN-v2 (Wang et al., WWW 2021), ``x_{l+1} = x_0 * (W_l x_l + b_l) + x_l``, with a rank ``x_0 * (W_l (V_l x_l) + b_l) + x_l``.

    Its arguments are those of :class:`dcrnn_fast.DCNv2`; ``backend`` has no effect.

    Example:
        >>> import torch
        >>> from dcrnn_fast import reference
        >>> reference.DCNv2(in_features=8, num_layers=3, rank=2)(torch.randn(4, 8)).shape
        torch.Size([4, 8])
    """

    def __init__(
        self,
        in_features: int,
        num_layers: int,
        *,
        rank: int | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_choice("backend", backend, BACKENDS)
        check_count("in_features", in_features, maximum=MAX_SIZE)
        check_count("num_layers", num_layers, maximum=MAX_STEPS)
        plan = SharingPlan.from_ratio("rows", 1, in_features, 1.0, steps=num_layers, cell="cross", tied=False, rank=rank)
        super().__init__(plan, device=device, dtype=dtype)

    def forward(self, x0: Tensor) -> Tensor:
        """x0 [B, in_features] to [B, in_features]."""
        return super().forward(x0).squeeze(0)


class ScenarioCrossRNN(CrossRNN):
    """A cross recurrence with a trunk for each scenario between the trunk of all and the private units.

    A row's scenario is a number from 1 to N, or 0, unknown. A unit of the scenarios reads the shared units and the scenarios' own, with
    the weights of the row's scenario; in rows of an unknown one it keeps x0. A private unit reads all.

    Example:
        >>> import torch
        >>> from dcrnn_fast import SharingPlan, reference
        >>> plan = SharingPlan.from_ratio("trunk", num_tasks=2, dim=8, share_ratio=0.5, num_scenarios=3, scenario_ratio=0.25)
        >>> reference.ScenarioCrossRNN(plan)(torch.randn(4, 8), torch.tensor([1, 3, 0, 1])).shape
        torch.Size([2, 4, 8])
    """

    def _make_parameters(self, **kind: Any) -> None:
        super()._make_parameters(**kind)
        self.scenario_weight = parameter(*self.plan.scenario_shape(), **kind)
        self.scenario_bias = parameter(*self.plan.scenario_shape()[:-1], **kind)
        if self.plan.rank is not None:
            self.scenario_projection = parameter(*self.plan.scenario_projection_shape(), **kind)

    def reset_parameters(self) -> None:
        """Draw new weights; biases and the scenarios' W are zero, so that each scenario starts as the unknown one."""
        super().reset_parameters()
        nn.init.zeros_(self.scenario_weight)
        nn.init.zeros_(self.scenario_bias)
        if self.scenario_weight.numel():
            draw(self.scenario_weight[:, :, :, 1:], 1 / math.sqrt(self.scenario_weight.shape[-1]))

    def forward(self, x0: Tensor, scenario: Tensor | None = None) -> Tensor:
        """x0 [B, D] and each row's scenario [B], None where all are unknown, to each task's last state, [T, B, D]."""
        if scenario is None:
            scenario = torch.zeros(x0.shape[0], dtype=torch.int64, device=x0.device)
        check_scenario(scenario, x0.shape[0], self.plan.num_scenarios)
        return self._last_states(x0, scenario)


class TaskLinear(nn.Module):
    """One linear layer for each task. The bank of rows that tasks share is empty, and keeps its names in the state_dict."""

    def __init__(self, in_features: int, out_features: int, num_tasks: int, **kind: Any) -> None:
        super().__init__()
        self.shared_weight, self.shared_bias = parameter(0, in_features, **kind), parameter(0, **kind)
        self.private_weight = parameter(num_tasks, out_features, in_features, **kind)
        self.private_bias = parameter(num_tasks, out_features, **kind)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and biases, as ``torch.nn.Linear`` does."""
        for values in self.parameters():
            draw(values, 1 / math.sqrt(self.private_weight.shape[2]))

    def forward(self, x: Tensor) -> Tensor:
        """x [T, B, in] to [T, B, out]."""
        return torch.stack([linear(*own) for own in zip(x, self.private_weight, self.private_bias, strict=True)])


class PiecewiseLinearEmbedding(nn.Module):
    """Dense features [B, N] to N embeddings side by side [B, N * E], each linear between the edges of Q bins (Gorishniy et al., 2022).

    A number reads the whole vectors of the bins below it, and the part of its own bin's that lies below it.

    Example:
        >>> import torch
        >>> from dcrnn_fast.reference import PiecewiseLinearEmbedding
        >>> layer = PiecewiseLinearEmbedding(num_dense=2, embedding_dim=4, bins=3)
        >>> layer.set_edges([torch.tensor([0.0, 1.0]), torch.tensor([0.0, 5.0, 10.0, 100.0])])
        >>> layer(torch.tensor([[0.5, 20.0]])).shape
        torch.Size([1, 8])
    """

    lower: Tensor
    scale: Tensor

    def __init__(
        self,
        num_dense: int,
        embedding_dim: int,
        bins: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = parameter(num_dense, bins, embedding_dim, **kind)
        self.bias = parameter(num_dense, embedding_dim, **kind)
        for name in ("lower", "scale"):  # the lower edge of each bin, and one over its width
            self.register_buffer(name, torch.empty(num_dense, bins, device=device, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters; the edges go from -2 to 2."""
        bins = self.weight.shape[1]
        self.lower.copy_(torch.linspace(-2, 2, bins + 1, device="cpu", dtype=torch.float32)[:-1])
        self.scale.fill_(bins / 4)
        for values in (self.weight, self.bias):
            draw(values, bins**-0.5)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """A cast leaves the edges in float32: 16 bits are too few for years."""
        edges = self.lower, self.scale
        super()._apply(fn, recurse)
        if self.lower.dtype != torch.float32:
            self.lower, self.scale = (values.to(self.weight.device) for values in edges)
        return self

    def set_edges(self, edges: Sequence[Tensor]) -> None:
        """Take each feature's rising edges, at most Q + 1. A bin that is left over is never entered."""
        check_edges(edges, *self.lower.shape)
        self.lower.zero_()
        self.scale.zero_()
        for feature, values in enumerate(edges):
            self.lower[feature, : len(values) - 1] = values[:-1]
            self.scale[feature, : len(values) - 1] = (1 / values.float().diff()).clamp(max=torch.finfo(torch.float32).max)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, N] to [B, N * E]."""
        vectors = torch.einsum("bnq,nqe->bne", self.bins(x).to(self.weight.dtype), self.weight) + self.bias
        return vectors.flatten(1)

    def bins(self, x: Tensor) -> Tensor:
        """The part of each bin that lies below x [B, N]: [B, N, Q] in [0, 1]."""
        return ((x.to(torch.promote_types(x.dtype, torch.float32)).unsqueeze(2) - self.lower) * self.scale).clamp(0, 1)


class FirstOrder(nn.Module):
    """A number for each id and task, and for each bin of each dense feature and task; :meth:`forward` adds up those of a row."""

    def __init__(self, rows: int, num_tasks: int, num_dense: int, bins: int, *, sparse: bool, **kind: Any) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.zeros(rows, num_tasks, **kind), freeze=rows == 0, sparse=sparse)
        self.dense_weight = nn.Parameter(torch.empty(num_dense, bins, num_tasks, **kind)) if num_dense else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Go back to zeros."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, fields: Tensor, bins: Tensor | None) -> Tensor:
        """[B, T], of what the table holds for the fields of a row [B, F, T], and of the bins [B, N, Q] of the dense features."""
        term = fields.sum(1)
        if bins is not None and self.dense_weight is not None:
            term = term + torch.einsum("bnq,nqt->bt", bins.to(self.dense_weight.dtype), self.dense_weight)
        return term


class InformationTransfer(nn.Module):
    """AITM (Xi et al., 2021): each task but the first attends to its own tower state and to what the task before it hands over."""

    def __init__(self, num_tasks: int, width: int, **kind: Any) -> None:
        super().__init__()

        def one_a_pair() -> nn.ModuleList:
            return nn.ModuleList(nn.Linear(width, width, **kind) for _ in range(num_tasks - 1))

        self.info, self.query, self.key, self.value = one_a_pair(), one_a_pair(), one_a_pair(), one_a_pair()

    def forward(self, states: Tensor) -> Tensor:
        """The towers' states [T, B, H] to those after the transfer, [T, B, H]."""
        after = [states[0]]
        for task in range(1, len(states)):
            info, query, key, value = (layers[task - 1] for layers in (self.info, self.query, self.key, self.value))
            offered = torch.stack([torch.relu(info(after[-1])), states[task]])  # [2, B, H]
            score = (query(offered) * key(offered)).sum(2) / math.sqrt(states.shape[2])
            after.append((torch.softmax(score, dim=0).unsqueeze(2) * value(offered)).sum(0))
        return torch.stack(after)
