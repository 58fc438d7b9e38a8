"""torch-rechub's multi-task models behind the protocol's input layer.

Their logits are exact: no probability is turned back. MMOE, PLE and SharedBottom give logits if their tasks are declared a regression,
which leaves out the sigmoid and nothing else. AITM and ESMM have no such switch; a hook reads what their towers return.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dcrnn_fast.data import PackedMeta
from dcrnn_fast.nn.losses import CALIBRATOR_WEIGHT, expectation_calibrator
from dcrnn_fast.nn.relations import chain_logits

from .networks import Features, Network, Setting, Size, widths


class Embedded(nn.Module):
    """Stands in for torch-rechub's embedding layer where the features are embedded already. It looks up one table, not one a field."""

    def forward(self, x: Tensor, features: Sequence[Any], squeeze_dim: bool = False) -> Tensor:
        """x [B, parts, E] to [B, parts * E], or to the parts that ``features`` name, which lie side by side."""
        return x.flatten(1) if squeeze_dim else x[:, int(features[0].name) : int(features[-1].name) + 1]


class Library(Network):
    """A model of the library. ``towers`` are those whose outputs are the logits; None if the model returns logits."""

    def __init__(self, meta: PackedMeta, setting: Setting, size: Size) -> None:
        super().__init__()
        from torch_rechub.basic.features import SparseFeature

        self.features = Features(meta, size.embedding_dim, setting["dense_bins"])
        self.declared = [SparseFeature(str(part), vocab_size=1, embed_dim=size.embedding_dim) for part in range(self.features.parts)]

    def take(self, model: nn.Module, setting: Setting, towers: Sequence[nn.Module] = ()) -> None:
        """Use ``model``, and read its logits from ``towers`` if there are any."""
        model.embedding = Embedded()
        self.model = model if setting["batch_norm"] else _without_batch_norm(model)
        self.read: dict[int, Tensor] = {}
        for task, tower in enumerate(towers):
            tower.register_forward_hook(lambda _, __, output, task=task: self.read.__setitem__(task, output))

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        output = self.model(self.features(ids, dense))
        if not self.read:
            return output
        logits = torch.cat([self.read[task] for task in sorted(self.read)], dim=1)
        self.read.clear()
        return logits


def _without_batch_norm(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d):
                setattr(module, name, nn.Identity())
    return model


def _layers(setting: Setting, *dims: int) -> dict[str, Any]:
    return {"dims": list(dims), "dropout": setting["dropout"]}


def shared_bottom(meta: PackedMeta, setting: Setting, size: Size) -> Library:
    """One bottom for all tasks."""
    from torch_rechub.models.multi_task import SharedBottom

    (wide, half), network = widths(setting, size), Library(meta, setting, size)
    towers = [_layers(setting, half) for _ in meta.tasks]
    network.take(SharedBottom(network.declared, ["regression"] * len(meta.tasks), _layers(setting, wide, half), towers), setting)
    return network


def mmoe(meta: PackedMeta, setting: Setting, size: Size) -> Library:
    """Experts for all tasks, and a gate over them for each."""
    from torch_rechub.models.multi_task import MMOE

    (wide, half), network = widths(setting, size), Library(meta, setting, size)
    towers, kinds = [_layers(setting, half) for _ in meta.tasks], ["regression"] * len(meta.tasks)
    network.take(MMOE(network.declared, kinds, setting["experts"], _layers(setting, wide, half), towers), setting)
    return network


def ple(meta: PackedMeta, setting: Setting, size: Size) -> Library:
    """Experts of each task and of all, in one or two levels."""
    from torch_rechub.models.multi_task import PLE

    (wide, half), network = widths(setting, size), Library(meta, setting, size)
    towers, kinds = [_layers(setting, half) for _ in meta.tasks], ["regression"] * len(meta.tasks)
    counts = setting["levels"], setting["own_experts"], setting["shared_experts"]
    network.take(PLE(network.declared, kinds, *counts, _layers(setting, wide, half), towers), setting)
    return network


class Transfer(Library):
    """AITM, with its calibrator in the loss if the tasks are a funnel."""

    def __init__(self, meta: PackedMeta, setting: Setting, size: Size) -> None:
        super().__init__(meta, setting, size)
        from torch_rechub.models.multi_task import AITM

        wide, half = widths(setting, size)
        model = AITM(self.declared, len(meta.tasks), _layers(setting, wide, half), [_layers(setting, half) for _ in meta.tasks])
        self.take(model, setting, list(model.towers))
        self.funnel = meta.funnel

    def loss(self, logits: Tensor, labels: Tensor, *, task_weight: nn.Module | None = None) -> Tensor:
        loss = super().loss(logits, labels, task_weight=task_weight)
        return loss + CALIBRATOR_WEIGHT * expectation_calibrator(logits) if self.funnel else loss


class EntireSpace(Library):
    """ESMM, for a funnel of two tasks: the second probability is the product of both towers' probabilities."""

    def __init__(self, meta: PackedMeta, setting: Setting, size: Size) -> None:
        super().__init__(meta, setting, size)
        from torch_rechub.models.multi_task import ESMM

        layers = _layers(setting, *widths(setting, size))
        # The library puts users' and items' features side by side, so the place of the cut changes nothing.
        model = ESMM(self.declared[:1], self.declared[1:], cvr_params=layers, ctr_params=dict(layers))
        self.take(model, setting, [model.tower_ctr, model.tower_cvr])

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        return chain_logits(super().forward(ids, dense))
