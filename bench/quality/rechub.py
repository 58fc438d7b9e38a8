"""torch-rechub's multi-task models behind the protocol's input layer.

Their logits are exact: no probability is turned back. MMOE, PLE and SharedBottom give logits if their tasks are declared a regression,
which leaves out the sigmoid and nothing else. AITM and ESMM have no such switch; a hook reads what their towers return.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        """Use ``model``, without batch normalisation if the setting says so, and read its logits from ``towers`` if there are any."""
        model.embedding = Embedded()
        for module in [] if setting["batch_norm"] else list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.BatchNorm1d):
                    setattr(module, name, nn.Identity())
        self.model, self.read = model, dict[int, Tensor]()
        for task, tower in enumerate(towers):
            tower.register_forward_hook(lambda _, __, output, task=task: self.read.__setitem__(task, output))

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        output = self.model(self.features(ids, dense))
        if not self.read:
            return output
        logits = torch.cat([self.read[task] for task in sorted(self.read)], dim=1)
        self.read.clear()
        return logits


def layers(setting: Setting, *dims: int) -> dict[str, Any]:
    """Hidden layers as the library declares them."""
    return {"dims": list(dims), "dropout": setting["dropout"]}


MODELS: dict[str, Callable[[Any, list[Any], list[str], Setting, dict[str, Any], list[dict[str, Any]]], nn.Module]] = {
    "SharedBottom": lambda of, features, kinds, setting, bottom, towers: of.SharedBottom(features, kinds, bottom, towers),
    "MMoE": lambda of, features, kinds, setting, expert, towers: of.MMOE(features, kinds, setting["experts"], expert, towers),
    "PLE": lambda of, features, kinds, setting, expert, towers: of.PLE(
        features, kinds, setting["levels"], setting["own_experts"], setting["shared_experts"], expert, towers
    ),
    "AITM": lambda of, features, kinds, setting, bottom, towers: of.AITM(features, len(kinds), bottom, towers),
}
"""How the library makes each: from features, kinds of tasks, a setting, hidden layers of a bottom or expert, and towers."""


def made(name: str, meta: PackedMeta, setting: Setting, size: Size, hidden: Sequence[int], tower: int) -> Library:
    """A model of these hidden widths."""
    from torch_rechub.models import multi_task

    network, kinds = (Transfer if name == "AITM" else Library)(meta, setting, size), ["regression"] * len(meta.tasks)
    towers = [layers(setting, tower) for _ in kinds]
    model = MODELS[name](multi_task, network.declared, kinds, setting, layers(setting, *hidden), towers)
    network.take(model, setting, list(model.towers) if name == "AITM" else ())
    return network


def build(name: str, meta: PackedMeta, setting: Setting, size: Size) -> Library:
    """A model of the comparison."""
    hidden = widths(setting, size)
    return made(name, meta, setting, size, hidden, hidden[1])


class Transfer(Library):
    """AITM, with its calibrator in the loss if the tasks are a funnel."""

    def __init__(self, meta: PackedMeta, setting: Setting, size: Size) -> None:
        super().__init__(meta, setting, size)
        self.funnel = meta.funnel

    def loss(self, logits: Tensor, labels: Tensor, *, task_weight: nn.Module | None = None) -> Tensor:
        loss = super().loss(logits, labels, task_weight=task_weight)
        return loss + CALIBRATOR_WEIGHT * expectation_calibrator(logits) if self.funnel else loss


class EntireSpace(Library):
    """ESMM, for a funnel of two tasks: the second probability is the product of both towers' probabilities."""

    def __init__(self, meta: PackedMeta, setting: Setting, size: Size) -> None:
        super().__init__(meta, setting, size)
        from torch_rechub.models.multi_task import ESMM

        hidden = layers(setting, *widths(setting, size))
        # The library puts users' and items' features side by side, so the place of the cut changes nothing.
        model = ESMM(self.declared[:1], self.declared[1:], cvr_params=hidden, ctr_params=dict(hidden))
        self.take(model, setting, [model.tower_ctr, model.tower_cvr])

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        return chain_logits(super().forward(ids, dense))
