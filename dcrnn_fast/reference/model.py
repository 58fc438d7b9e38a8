"""DCRNN in plain PyTorch, written to be read: it says what the model computes. Speed is none of its business.

    ids [B, F], dense [B, N]
      -> x0 [B, D]          the embeddings of all fields side by side             Features
      -> h  [T, B, D]       the cross recurrence, for each task                   CrossRNN, or ScenarioCrossRNN
      -> z  [B, T]          towers, transfer and head, and the first-order term   Towers
      -> logits [B, T]      under "chain", of events by the chain rule            DCRNN.event_logits

It shares no code with the fast modules in ``dcrnn_fast/nn``, nor with the operators; its parameters have the same names and start alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from ..sharing import Cell, Sharing, SharingPlan
from ..support import model_inputs
from ..support.checks import check_choice, check_flag
from ..support.defaults import DENSE_BINS, DROPOUT, EMBEDDING_DIM, EMBEDDING_INIT_STD, RANK, SHARE_RATIO, STEPS, TOWER_DIMS
from ..support.model_inputs import Relation
from ..support.tensors import check_placement
from .layers import BACKENDS, CrossRNN, FirstOrder, InformationTransfer, PiecewiseLinearEmbedding, ScenarioCrossRNN, TaskLinear


class Inputs(NamedTuple):
    """x0 [B, D], and the first-order term [B, T] or 0."""

    x0: Tensor
    first_order: Tensor | float


class Features(nn.Module):
    """The embeddings of ids and numbers, and the first-order term."""

    def __init__(
        self, names: Sequence[str], sizes: Sequence[int], num_tasks: int, num_dense: int, embedding_dim: int, embedding_init_std: float,
        dense_bins: int, shared: Mapping[str, str], pooled: Mapping[str, Any], *, sparse: bool, first_order: bool,
        first_order_only: Sequence[str] = (), **kind: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.names, self.sizes, self.num_dense, self.pooled = tuple(names), tuple(sizes), num_dense, pooled
        self.embedding_init_std, self.first_order_only = embedding_init_std, first_order_only

        # One table holds the rows of one field after those of another. A field that shares embeddings reads the rows of another field.
        own = {name: size for name, size in zip(names, sizes, strict=True) if name not in shared}
        start = dict(zip(own, accumulate(own.values(), initial=0), strict=False))
        self.starts = [start[shared.get(name, name)] for name in names]
        rows = sum(own.values())
        self.first_order = FirstOrder(rows, num_tasks, num_dense, max(1, dense_bins), sparse=sparse, **kind) if first_order else None
        self.embedding = nn.Embedding(rows, embedding_dim, sparse=sparse, **kind)
        self.embedding.weight.requires_grad_(bool(names))
        self.reset_parameters()

        # Each field, binned number, or projection of all numbers has E units of x0. A field of several values owns several columns of ids.
        pool_of = {column: name for name, pool in pooled.items() for column in pool["columns"]}
        self.columns: dict[str, list[int]] = {}
        for column, name in enumerate(names):
            self.columns.setdefault(pool_of.get(name, name), []).append(column)
        self.dense_projection = nn.Linear(num_dense, embedding_dim, **kind) if num_dense and not dense_bins else None
        self.dense_embedding = PiecewiseLinearEmbedding(num_dense, embedding_dim, dense_bins, **kind) if num_dense and dense_bins else None
        self.dim = (len(self.columns) + (num_dense if dense_bins else bool(num_dense))) * embedding_dim

    def reset_parameters(self) -> None:
        """Draw new embeddings of the ids; those of fields that the first-order term alone reads are zeros."""
        nn.init.normal_(self.embedding.weight, std=self.embedding_init_std)
        for start, size, name in zip(self.starts, self.sizes, self.names, strict=True):
            if name in self.first_order_only:
                nn.init.zeros_(self.embedding.weight[start : start + size])

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Inputs:
        """The embeddings of all fields side by side, then the dense features, embedded or projected; and what each says by itself."""
        model_inputs.check_ids(ids, self.sizes, self.names)
        model_inputs.check_dense(dense, ids.shape[0], self.num_dense)
        embedded = self.by_field(self.embedding, ids)  # [B, F, E]
        for place, name in enumerate(self.columns):
            if name in self.first_order_only:
                embedded[:, place] = 0
        parts = [embedded.flatten(1)]
        if dense is not None and self.dense_projection is not None:
            parts.append(self.dense_projection(dense.to(self.dense_projection.weight.dtype)))
        if dense is not None and self.dense_embedding is not None:
            parts.append(self.dense_embedding(dense))
        x0 = torch.cat(parts, dim=1)
        if self.first_order is None:
            return Inputs(x0, 0.0)
        bins = None if dense is None else dense.unsqueeze(2) if self.dense_embedding is None else self.dense_embedding.bins(dense)
        return Inputs(x0, self.first_order(self.by_field(self.first_order.table, ids), bins))

    def by_field(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        """[B, F, width]: for each field the table's row of its id, or the sum or mean of the rows of its ids."""
        vectors = table(ids + torch.tensor(self.starts, dtype=torch.int64, device=ids.device))  # [B, columns, width]
        fields = []
        for name, columns in self.columns.items():
            if name not in self.pooled:
                fields.append(vectors[:, columns[0]])
                continue
            held = (ids[:, columns] != 0).unsqueeze(2)  # id 0 is not a value
            total = torch.where(held, vectors[:, columns], 0).sum(1)
            fields.append(total / held.sum(1).clamp(min=1).to(total.dtype) if self.pooled[name]["pooling"] == "mean" else total)
        return torch.stack(fields, dim=1) if fields else vectors


class Towers(nn.Module):
    """For each task hidden layers and a head; with ``transfer``, AITM's between the tasks."""

    def __init__(self, widths: Sequence[int], num_tasks: int, dropout: float, *, transfer: bool, **kind: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TaskLinear(below, width, num_tasks, **kind) for below, width in pairwise(widths))
        self.dropout = nn.Dropout(dropout)
        self.transfer = InformationTransfer(num_tasks, widths[-1], **kind) if transfer else None
        self.head = TaskLinear(widths[-1], 1, num_tasks, **kind)

    def forward(self, states: Tensor) -> Tensor:
        """States [T, B, D] to [B, T]."""
        for layer in self.layers:
            states = self.dropout(torch.relu(layer(states)))
        if self.transfer is not None:
            states = self.transfer(states)
        return self.head(states).squeeze(2).T


class DCRNN(nn.Module):
    """The model. Its arguments are those of :class:`dcrnn_fast.DCRNN`, where they are explained; ``backend`` has no effect.

    Example:
        >>> import torch
        >>> from dcrnn_fast.reference import DCRNN
        >>> model = DCRNN([100, 50], num_dense=2, tasks=("see", "click", "consume"))
        >>> model(torch.tensor([[7, 3], [99, 0]]), torch.randn(2, 2)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        num_embeddings: Sequence[int] | Mapping[str, int],
        *,
        num_dense: int = 0,
        embedding_dim: int = EMBEDDING_DIM,
        embedding_init_std: float = EMBEDDING_INIT_STD,
        dense_bins: int = DENSE_BINS,
        shared_embeddings: Mapping[str, str] | None = None,
        pooled: Mapping[str, Mapping[str, Any]] | None = None,
        sparse: bool = False,
        first_order: bool = True,
        first_order_only: Sequence[str] = (),
        tasks: Sequence[str] = ("click", "consume"),
        steps: int = STEPS,
        cell: Cell = "gated",
        tied: bool = True,
        rank: int | None = RANK,
        sharing: Sharing = "rows",
        share_ratio: float = SHARE_RATIO,
        tower_dims: Sequence[int] = TOWER_DIMS,
        dropout: float = DROPOUT,
        relation: Relation = "chain",
        scenario: str | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.field_names, self.num_embeddings = model_inputs.check_features(
            num_embeddings, num_dense, embedding_dim, embedding_init_std, dense_bins
        )
        num_dense, embedding_dim, dense_bins = int(num_dense), int(embedding_dim), int(dense_bins)
        self.shared_embeddings = model_inputs.check_shared_embeddings(shared_embeddings, self.field_names, self.num_embeddings)
        self.pooled = model_inputs.check_pooled(pooled, self.field_names, self.shared_embeddings)
        check_flag("sparse", sparse)
        check_flag("first_order", first_order)
        first_order_only = model_inputs.check_first_order_only(
            first_order_only, self.field_names, self.shared_embeddings, self.pooled, first_order=first_order
        )
        self.tasks, self.conditionals = model_inputs.check_tasks(tasks)
        tower_dims = model_inputs.check_towers(tower_dims, dropout, relation)
        self.scenario_column = model_inputs.check_scenario_field(scenario, share_ratio, sharing, self.field_names, self.pooled)
        check_choice("backend", backend, BACKENDS)
        check_placement(device, dtype)
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.num_dense, self.relation = num_dense, relation
        self._negative_rate = 1.0

        self.features = Features(
            self.field_names, self.num_embeddings, len(self.tasks), num_dense, embedding_dim, embedding_init_std, dense_bins,
            self.shared_embeddings, self.pooled, sparse=sparse, first_order=first_order,
            first_order_only=first_order_only, **kind,
        )  # fmt: skip
        scenarios = 0 if self.scenario_column is None else self.num_embeddings[self.scenario_column] - 1
        self.plan = SharingPlan.from_ratio(
            sharing, len(self.tasks), self.features.dim, share_ratio, steps=steps, cell=cell, tied=tied, rank=rank,
            num_scenarios=scenarios, scenario_ratio=0.0 if scenario is None else model_inputs.SCENARIO_RATIO,
        )  # fmt: skip
        self.cross = (CrossRNN if scenario is None else ScenarioCrossRNN)(self.plan, **kind)
        widths = [self.features.dim, *tower_dims]
        self.towers = Towers(widths, len(self.tasks), float(dropout), transfer=relation == "transfer", **kind)

    def reset_parameters(self) -> None:
        """Draw new parameters."""
        for module in self.modules():
            if isinstance(module, (Features, CrossRNN, FirstOrder, TaskLinear, PiecewiseLinearEmbedding, nn.Linear)):
                module.reset_parameters()

    @property
    def num_parameters(self) -> int:
        """The number of values in all parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def negative_rate(self) -> float:
        """The part of the rows without the first event that the log kept; :meth:`predict` corrects for it."""
        return self._negative_rate

    @negative_rate.setter
    def negative_rate(self, rate: float) -> None:
        model_inputs.check_negative_rate(rate, len(self.tasks), self.relation)
        self._negative_rate = float(rate)

    def conditional_logits(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """z [B, T], the outputs of the towers and the first-order term. Under "chain" each is an event's logit given the one before it."""
        x0, first_order = self.features(ids, dense)
        states = self.cross(x0) if self.scenario_column is None else self.cross(x0, ids[:, self.scenario_column])
        z: Tensor = self.towers(states) + first_order
        return z

    def event_logits(self, z: Tensor) -> Tensor:
        """Logits [B, T] of each event over all rows. Under "chain" the probability of event t is sigmoid(z_1) * ... * sigmoid(z_t)."""
        if self.relation != "chain":
            return z
        log_p = logsigmoid(z.double()).cumsum(1).clamp(max=-torch.finfo(torch.float64).tiny)  # below 0: a logit is finite
        return (log_p - torch.log(-torch.expm1(log_p))).to(torch.promote_types(z.dtype, torch.float32))

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits [B, T] of each task's event over all rows, from ids [B, F] and dense [B, N]."""
        return self.event_logits(self.conditional_logits(ids, dense))

    @torch.no_grad()
    def predict(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] in float32 by task; under "chain" also of each event given the one before it."""
        z = self.conditional_logits(ids, dense)
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        # Sampling divided the odds of the first event by the rate. The other events were seen in rows with the first, which all were kept.
        z = torch.cat([z[:, :1] + math.log(self.negative_rate), z[:, 1:]], dim=1)
        found = dict(zip(self.tasks, torch.sigmoid(self.event_logits(z)).float().unbind(1), strict=True))
        if self.relation == "chain":
            found |= dict(zip(self.conditionals, torch.sigmoid(z[:, 1:]).float().unbind(1), strict=True))
        return found

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        sample_weight: Tensor | None = None,
        task_weight: Sequence[float] | Tensor | nn.Module | None = None,
        strict_funnel: bool = True,
    ) -> Tensor:
        """The sum over tasks of the mean cross entropy of the rows whose label is known (not NaN); "transfer" adds AITM's calibrator."""
        model_inputs.check_labels(logits, labels, self.tasks, funnel=strict_funnel and self.relation == "chain")
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        row = torch.ones_like(logits[:, 0])
        if sample_weight is not None:
            model_inputs.check_sample_weight(sample_weight, logits.shape[0])
            row = sample_weight.to(logits.dtype)

        def mean(values: Tensor, weight: Tensor) -> Tensor:
            return (values * weight).sum(0) / torch.where(weight.sum(0) > 0, weight.sum(0), 1)

        known = ~labels.isnan()
        entropy = binary_cross_entropy_with_logits(logits, torch.where(known, labels, 0).to(logits.dtype), reduction="none")
        losses = mean(entropy, known * row.unsqueeze(1))  # [T]
        if isinstance(task_weight, nn.Module):
            loss = task_weight(losses)
        else:
            loss = (losses * (1 if task_weight is None else torch.as_tensor(task_weight).to(losses))).sum()
        if self.relation == "transfer":  # an event that looks likelier than the one before it
            p = torch.sigmoid(logits)
            loss = loss + 0.6 * mean(torch.relu(p[:, 1:] - p[:, :-1]).sum(1), row)
        return loss
