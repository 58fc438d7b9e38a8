"""What the networks have in common: the input layer, towers and the loss; and the networks that are ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import dcrnn_fast
from dcrnn_fast.data import PackedMeta
from dcrnn_fast.nn.cpu_layers import Embedding
from dcrnn_fast.nn.features import PiecewiseLinearEmbedding
from dcrnn_fast.nn.losses import combine, task_losses

Setting = Mapping[str, Any]


class Size(NamedTuple):
    """The width of a field's embedding, and the factor on all hidden widths and on the rank."""

    embedding_dim: int
    scale: float


SIZES = {"small": Size(4, 0.5), "medium": Size(8, 1.0), "large": Size(16, 2.0)}


def widths(setting: Setting, size: Size) -> tuple[int, int]:
    """The widths of two hidden layers."""
    first = round(setting["width"] * size.scale)
    return first, first // 2


class Features(nn.Module):
    """The input layer of every network, the same as DCRNN's: one table for all fields, and the dense columns embedded or projected to one.

    ids [B, F] and dense [B, N] become [B, parts, E]; the dense columns come last.
    """

    offsets: Tensor

    def __init__(self, meta: PackedMeta, embedding_dim: int, dense_bins: int) -> None:
        super().__init__()
        sizes = np.array(list(meta.fields.values()), dtype=np.int64)
        self.register_buffer("offsets", torch.from_numpy(sizes.cumsum() - sizes), persistent=False)
        self.embedding = Embedding(int(sizes.sum()), embedding_dim)
        dense, self.dense, self.embedding_dim = len(meta.dense), None, embedding_dim
        if dense:
            self.dense = PiecewiseLinearEmbedding(dense, embedding_dim, dense_bins) if dense_bins else nn.Linear(dense, embedding_dim)
        self.parts = len(sizes) + (dense if dense_bins else bool(dense))
        self.width = self.parts * embedding_dim

    def forward(self, ids: Tensor, dense: Tensor | None) -> Tensor:
        embedded = self.embedding(ids + self.offsets)
        if self.dense is None or dense is None:
            return embedded
        return torch.cat([embedded, self.dense(dense).to(embedded.dtype).unflatten(1, (-1, self.embedding_dim))], dim=1)


def tower(wide: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """ReLU layers with dropout and a linear head: [B, wide] to [B, 1]."""
    layers: list[nn.Module] = []
    for below, above in pairwise([wide, *hidden]):
        layers += [nn.Linear(below, above), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


class Network(nn.Module):
    """A model of other design than DCRNN: forward(ids, dense) gives the logits [B, T] of each task's event over all impressions."""

    def loss(self, logits: Tensor, labels: Tensor, *, task_weight: nn.Module | None = None) -> Tensor:
        """DCRNN's loss: the binary cross entropy of each task over its known labels, combined."""
        return combine(task_losses(logits, labels), task_weight)


class CrossTrunk(Network):
    """A cross network, DCN-v2's or GDCN's, shared by all tasks, and a tower for each."""

    def __init__(self, cross: type[nn.Module], meta: PackedMeta, setting: Setting, size: Size) -> None:
        super().__init__()
        self.features = Features(meta, size.embedding_dim, setting["dense_bins"])
        self.cross = cross(self.features.width, setting["layers"])
        self.towers = nn.ModuleList(tower(self.features.width, widths(setting, size), setting["dropout"]) for _ in meta.tasks)

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        crossed = self.cross(self.features(ids, dense).flatten(1))
        return torch.cat([of_task(crossed) for of_task in self.towers], dim=1)


class Apart(Network):
    """One network a task, with nothing shared: for the costs. The protocol trains and stops each by itself."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        return torch.cat([network(ids, dense) for network in self.networks], dim=1)


def dcrnn(meta: PackedMeta, setting: Setting, size: Size, **fixed: Any) -> dcrnn_fast.DCRNN:
    """DCRNN with the relation of the data set, and the full cell if the setting has no rank. ``fixed`` holds what names the variant."""
    options = {"share_ratio": setting["share_ratio"]} if "share_ratio" in setting else {}
    return dcrnn_fast.DCRNN(
        meta.fields,
        embedding_dim=size.embedding_dim,
        num_dense=len(meta.dense),
        tasks=meta.tasks,
        relation=meta.relation,
        steps=setting["steps"],
        rank=round(setting["rank"] * size.scale) if setting.get("rank") else None,
        tower_dims=widths(setting, size),
        dropout=setting["dropout"],
        dense_bins=setting["dense_bins"],
        first_order=False,  # as in the committed results; docs/evidence/defaults.md says what the term is worth
        **(fixed | options),
    )
