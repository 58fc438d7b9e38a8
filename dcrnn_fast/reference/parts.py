"""The parts of the reference model before and after the recurrence, written to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..support.model_inputs import check_dense, check_ids
from .layers import FirstOrder, InformationTransfer, PiecewiseLinearEmbedding, TaskLinear


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
        check_ids(ids, self.sizes, self.names)
        check_dense(dense, ids.shape[0], self.num_dense)
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
            held = (ids[:, columns] != 0).unsqueeze(2)  # id 0 is no value
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
