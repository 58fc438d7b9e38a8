"""Where should the head of a rare event start? ``make study NAME=rare_events`` trains on one task, of which 0.3% of the rows are positive,
or 0.1% in the set that is named so.

Of an embedded set's first task, or of the clicks of a drawn log, so many positive rows are drawn, of train and validation rows alike; all
negative ones stay. As in the ablation, every setting is the default configuration but for what it names, no test row takes part, and early
stopping keeps the weights that are scored. LightGBM, CatBoost and logistic regression have the defaults of their search spaces, and
read the same rows. On the largest set a run of CatBoost takes several minutes, so it is left out there.
"""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from dcrnn_fast.data import PackedDataset, PackedSplit
from dcrnn_fast.training.loop import learned

from ..quality.data_sets import rows_of, thin_census
from .ablation import DEFAULT, scores, study_of
from .numbers import LIBRARIES, of_library
from .study import packed, trained

DATA = {"hillstrom": 0.003, "census-income": 0.003, "census-income, 0.001": 0.001, "id-log": 0.003}
"""By data set the part of positive rows."""
PARTS = {DEFAULT: 1.0, "from 0.5": 0.0, "half of the way": 0.5, "stops by AUC": 1.0}
"""By setting, the part of the way from 0.5 to the rate, in logits, that the head has when the first step begins."""
SETTINGS = (*PARTS, *LIBRARIES)


def thinned(split: PackedSplit, rate: float, seed: int) -> PackedSplit:
    """The negative rows of the first task, and as many positive ones, drawn, as make this part of all."""
    labels = np.asarray(split.labels)[:, 0]
    negative, positive = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    drawn = np.random.default_rng([seed, 7]).permutation(positive)[: round(len(negative) * rate / (1 - rate))]
    kept = rows_of(split, np.sort(np.concatenate([negative, drawn])))
    return dataclasses.replace(kept, labels=kept.labels[:, :1])


def rare(data: str, seed: int, options: Namespace, folder: Path) -> PackedDataset:
    """A data set of one rare event; every seed draws other positive rows, or another log."""
    dataset = packed(data.partition(",")[0], seed, options, folder, min_count=1)
    dataset = thin_census(dataset) if DATA[data] > 0.001 else dataset
    splits = {name: thinned(split, DATA[data], seed) for name, split in dataset.splits.items()}
    rows, tasks = {name: len(split) for name, split in splits.items()}, dataset.meta.tasks[:1]
    meta = dataclasses.replace(dataset.meta, tasks=tasks, funnel=False, relation="independent", rows=rows)
    return dataclasses.replace(dataset, meta=meta, splits=splits)


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows."""
    dataset = rare(data, seed, options, folder)
    if setting in LIBRARIES:
        return of_library(dataset, setting, seed)
    keys = {"early_stopping.monitor": "auc"} if setting == "stops by AUC" else {}
    part, begin = PARTS[setting], learned.start_heads
    with mock.patch.object(learned, "start_heads", lambda model, found: begin(model, found._replace(intercepts=part * found.intercepts))):
        return scores(trained(dataset, seed, keys, folder), dataset.meta.tasks)


_study = study_of("rare_events", run, dict.fromkeys(SETTINGS), quick="from 0.5", data=tuple(DATA))
STUDY = dataclasses.replace(_study, seeds=5, fits=lambda data, setting, *_: (data, setting) != ("census-income, 0.001", "CatBoost"))
