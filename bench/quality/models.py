"""The models by name: how each is built or fitted, its search space, and on which data it fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import nn

import dcrnn_fast
from dcrnn_fast.data import PackedMeta

from . import rechub
from .networks import Apart, CrossTrunk, Setting, Size, dcrnn

Build = Callable[[PackedMeta, Setting, Size], nn.Module]
Space = dict[str, dict[str, Any]]
SPACES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("spaces.yaml").read_text(encoding="utf-8"))
WHOLE = ("epochs", "min_samples_leaf", "min_data_in_leaf")
"""Numbers of a setting that are whole."""
ONE_SIZE, TUNED_SIZE = "one", "medium"
"""The size of models that have no widths; and the one whose chosen setting all sizes take."""
SHIPPED, TRAINED = "shipped", "trained"
"""DCRNN as ``dcrnn-fast train`` trains it, by the trainer's own code: with its defaults, no trial and no choice; and tuned."""
LIBRARY = ("shared-bottom", "mmoe", "ple", "aitm", "esmm")
"""torch-rechub's models."""
AGAINST = "dcrnn"
"""The model with which every other one is compared."""


class Subject(NamedTuple):
    """What is tuned and measured: a model of a size on a data set."""

    data: str
    model: str
    size: str

    def __str__(self) -> str:
        return ", ".join(self)


@dataclasses.dataclass(frozen=True)
class Model:
    """What the protocol must know of a model. ``build`` makes the network; trees, and DCRNN in its own trainer, have none."""

    title: str
    space: Space
    build: Build | None = None


def space(name: str) -> Space:
    """The search space of a model; empty where nothing is tuned."""
    return SPACES["common"] | SPACES["networks"][name] if name in SPACES["networks"] else SPACES["others"].get(name, {})


def defaults(space: Space) -> dict[str, Any]:
    """The setting of trial 0."""
    return {name: part["default"] for name, part in space.items()}


def _single(meta: PackedMeta, setting: Setting, size: Size) -> nn.Module:
    """Of one task a DCRNN, of several the DCRNNs of each: a model of one task has nothing to share."""
    alone = [dataclasses.replace(meta, tasks=(task,), relation="independent") for task in meta.tasks]
    networks = [dcrnn(of_task, setting, size, sharing="rows", share_ratio=1.0) for of_task in alone]
    return networks[0] if len(networks) == 1 else Apart(networks)


BUILDS: dict[str, tuple[str, Build | None]] = {
    "dcrnn": ("DCRNN", partial(dcrnn, sharing="rows")),
    "dcrnn-trunk": ("DCRNN, trunk sharing", partial(dcrnn, sharing="trunk")),
    "dcrnn-hard": ("DCRNN, hard sharing", partial(dcrnn, sharing="rows", share_ratio=1.0)),
    "dcrnn-untied": ("DCRNN, untied", partial(dcrnn, sharing="rows", tied=False)),
    "dcrnn-full": ("DCRNN, full cell", partial(dcrnn, sharing="rows")),
    "dcnv2": ("DCN-v2 and towers", partial(CrossTrunk, dcrnn_fast.DCNv2)),
    "gdcn": ("GDCN and towers", partial(CrossTrunk, dcrnn_fast.GDCN)),
    "single-task": ("a DCRNN for each task", _single),
    SHIPPED: ("DCRNN by `dcrnn-fast train`, untuned", None),
    TRAINED: ("DCRNN by `dcrnn-fast train`, tuned", None),
    "shared-bottom": ("SharedBottom", partial(rechub.build, "SharedBottom")),
    "mmoe": ("MMoE", partial(rechub.build, "MMoE")),
    "ple": ("PLE", partial(rechub.build, "PLE")),
    "aitm": ("AITM", partial(rechub.build, "AITM")),
    "esmm": ("ESMM", rechub.EntireSpace),
    "trees": ("HistGradientBoosting for each task", None),
    "lightgbm": ("LightGBM for each task", None),
    "catboost": ("CatBoost for each task", None),
    "logistic": ("logistic regression for each task", None),
}
"""The title and the network of each."""
MODELS: dict[str, Model] = {name: Model(title, space(name), build) for name, (title, build) in BUILDS.items()}


def fits(name: str, meta: PackedMeta) -> bool:
    """Whether a model is made for such data: ESMM for a funnel of two tasks."""
    return name != "esmm" or (meta.funnel and len(meta.tasks) == 2 and len(meta.fields) > 1)
