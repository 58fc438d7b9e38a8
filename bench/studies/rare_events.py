"""Where should the head of a rare event start? ``make study NAME=rare_events`` trains on one task, of which 0.3% of the rows are positive.

Of an embedded set's first task, or of the clicks of a drawn log, so many positive rows are drawn, of train and validation rows alike; all
negative ones stay. As in the ablation, every setting is the default configuration but for what it names, no test row takes part, and early
stopping keeps the weights that are scored. LightGBM and CatBoost have the defaults of their search spaces, and stop by the same rows.
"""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from dcrnn_fast.data import PackedDataset, PackedSplit
from dcrnn_fast.training.device import deterministic
from dcrnn_fast.training.loop import start

from ..quality import models as harness
from ..quality.data_sets import ARRAYS, thin_census
from ..quality.protocol import Protocol, fit, metrics
from ..quality.spaces import defaults
from ..quality.work import ONE_SIZE
from .ablation import DEFAULT, scores, study_of
from .study import packed, trained

RATE = 0.003
HALF = "heads start at 0.5"
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    HALF: {},
    "stops by AUC": {"early_stopping.monitor": "auc"},
    "heads start at 0.5, stops by AUC": {"early_stopping.monitor": "auc"},
    "LightGBM": {},
    "CatBoost": {},
}


def thinned(split: PackedSplit, seed: int) -> PackedSplit:
    """The negative rows of the first task, and as many positive ones, drawn, as make :data:`RATE` of all."""
    labels = np.asarray(split.labels)[:, 0]
    negative, positive = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    drawn = np.random.default_rng([seed, 7]).permutation(positive)[: round(len(negative) * RATE / (1 - RATE))]
    chosen = np.sort(np.concatenate([negative, drawn]))
    arrays = {name: np.asarray(values)[chosen] for name in ARRAYS if (values := getattr(split, name)) is not None}
    return dataclasses.replace(split, **arrays | {"labels": arrays["labels"][:, :1]})


def rare(data: str, seed: int, options: Namespace, folder: Path) -> PackedDataset:
    """A data set of one rare event; every seed draws other positive rows, or another log."""
    dataset = thin_census(packed(data, seed, options, folder, min_count=1))
    splits = {name: thinned(split, seed) for name, split in dataset.splits.items()}
    rows, tasks = {name: len(split) for name, split in splits.items()}, dataset.meta.tasks[:1]
    meta = dataclasses.replace(dataset.meta, tasks=tasks, funnel=False, relation="independent", rows=rows)
    return dataclasses.replace(dataset, meta=meta, splits=splits)


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows."""
    dataset = rare(data, seed, options, folder)
    if (name := setting.lower()) not in harness.MODELS:
        with mock.patch.object(start, "RARE", 0.0 if setting.startswith(HALF) else start.RARE):
            return scores(trained(dataset, seed, SETTINGS[setting], folder), dataset.meta.tasks)
    with deterministic(1):
        fitted = fit(name, dataset, defaults(harness.MODELS[name].space), seed=seed, size=ONE_SIZE, protocol=Protocol())
    found = {"train": {"best_step": fitted.history[-1][0]}, "valid": metrics(dataset, "valid", fitted.logits(dataset.split("valid")))}
    return scores(found, dataset.meta.tasks)


_study = study_of("rare_events", run, SETTINGS, quick=HALF, data=("hillstrom", "census-income", "id-log"))
STUDY = dataclasses.replace(_study, seeds=5)
