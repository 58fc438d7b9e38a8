"""The models by name: how each is built or fitted, and on which data it fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from torch import nn

import dcrnn_fast
from dcrnn_fast.data import PackedMeta
from dcrnn_fast.errors import ConfigError, shown

from . import rechub
from .networks import Apart, CrossTrunk, Setting, Size, dcrnn
from .spaces import CATBOOST, COMMON, LIGHTGBM, LOGISTIC, OWN, TRAINER, TREES, Space

Build = Callable[[PackedMeta, Setting, Size], nn.Module]


@dataclass(frozen=True)
class Model:
    """What the protocol must know of a model. ``build`` makes the network; the trees and the constant have none."""

    title: str
    space: Space
    build: Build | None = None
    one_task_each: bool = False
    needs: str | None = None
    """The package of the extra ``quality`` that it is part of."""

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return self.needs is None or find_spec(self.needs) is not None


def _single(meta: PackedMeta, setting: Setting, size: Size) -> nn.Module:
    """Of one task a DCRNN, of several the DCRNNs of each: a model of one task has nothing to share."""
    alone = [dataclasses.replace(meta, tasks=(task,), relation="independent") for task in meta.tasks]
    networks = [dcrnn(of_task, setting, size, sharing="rows", share_ratio=1.0) for of_task in alone]
    return networks[0] if len(networks) == 1 else Apart(networks)


def _network(name: str, title: str, build: Build, *, one_task_each: bool = False, needs: str | None = None) -> Model:
    return Model(title, COMMON | OWN[name], build, one_task_each, needs)


NETWORKS: dict[str, tuple[str, Build]] = {
    "dcrnn": ("DCRNN", partial(dcrnn, sharing="rows")),
    "dcrnn-trunk": ("DCRNN, trunk sharing", partial(dcrnn, sharing="trunk")),
    "dcrnn-hard": ("DCRNN, hard sharing", partial(dcrnn, sharing="rows", share_ratio=1.0)),
    "dcrnn-untied": ("DCRNN, untied", partial(dcrnn, sharing="rows", tied=False)),
    "dcrnn-full": ("DCRNN, full cell", partial(dcrnn, sharing="rows")),
    "dcnv2": ("DCN-v2 and towers", partial(CrossTrunk, dcrnn_fast.DCNv2)),
    "gdcn": ("GDCN and towers", partial(CrossTrunk, dcrnn_fast.GDCN)),
}
LIBRARY: dict[str, tuple[str, Build]] = {
    "shared-bottom": ("SharedBottom", rechub.shared_bottom),
    "mmoe": ("MMoE", rechub.mmoe),
    "ple": ("PLE", rechub.ple),
    "aitm": ("AITM", rechub.Transfer),
    "esmm": ("ESMM", rechub.EntireSpace),
}

SHIPPED, TRAINED = "shipped", "trained"
"""DCRNN as ``dcrnn-fast train`` trains it, by the trainer's own code: with its defaults, no trial and no choice; and tuned."""

MODELS: dict[str, Model] = {
    **{name: _network(name, *arguments) for name, arguments in NETWORKS.items()},
    "single-task": _network("single-task", "a DCRNN for each task", _single, one_task_each=True),
    SHIPPED: Model("DCRNN by `dcrnn-fast train`, untuned", {}),
    TRAINED: Model("DCRNN by `dcrnn-fast train`, tuned", TRAINER),
    **{name: _network(name, *arguments, needs="torch_rechub") for name, arguments in LIBRARY.items()},
    "trees": Model("HistGradientBoosting for each task", TREES),
    "lightgbm": Model("LightGBM for each task", LIGHTGBM, needs="lightgbm"),
    "catboost": Model("CatBoost for each task", CATBOOST, needs="catboost"),
    "logistic": Model("logistic regression for each task", LOGISTIC),
    "constant": Model("the constant", {}),
}

AGAINST = "dcrnn"
"""The model with which every other one is compared."""


def fits(name: str, meta: PackedMeta) -> bool:
    """Whether a model is made for such data: ESMM for a funnel of two tasks."""
    return name != "esmm" or (meta.funnel and len(meta.tasks) == 2 and len(meta.fields) > 1)


def check(names: list[str]) -> None:
    """Raise ConfigError for an unknown model, and for one whose package is not installed."""
    for name in names:
        if name not in MODELS:
            raise ConfigError(f"--models {shown(name)}: expected {', '.join(MODELS)}")
    if lacking := [name for name in names if not MODELS[name].installed]:
        packages = ", ".join(sorted({str(MODELS[name].needs).replace("_", "-") for name in lacking}))
        raise ConfigError(f"--models {' '.join(lacking)} need {packages}: run pip install 'dcrnn_fast[quality]', or leave them out")
