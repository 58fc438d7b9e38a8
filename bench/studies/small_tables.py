"""How many rows should a step have where a table is small? ``make study NAME=small_tables`` trains on 3,000 to 20,000 train rows.

A step of 512 rows leaves so few of them that early stopping ends a run within the warm-up, with the constant. As in the ablation, every
setting is the default configuration but for the keys that it names, no test row takes part, and a default should have the lowest log loss
over the constant's. LightGBM and logistic regression have the defaults of their search spaces and read the same validation rows.
"""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from dcrnn_fast.data import PackedDataset, prepare

from ..quality.data_sets import rows_of, write_log
from .ablation import DEFAULT, scores, study_of
from .numbers import LIBRARIES, LINEAR, TREES, of_library
from .study import packed, trained

SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    **{f"{rows} rows a step": {"optimiser.batch_size": rows} for rows in (512, 256, 128, 64, 32)},
    "a warm-up of 10 steps, 512 rows a step": {"optimiser.batch_size": 512, "optimiser.warmup_steps": 10},
    TREES: {},
    LINEAR: {},
}
LOGS = {"id-log, 3,000 rows": (4_300, 150, 60), "id-log, 5,600 rows": (8_000, 300, 100), "id-log, 14,000 rows": (20_000, 1_000, 400)}
"""Rows in all, users and items; 0.7 of the rows are train rows."""
PARTS = {"hillstrom, 4,000 rows": 4_000, "census-income, 5,000 rows": 5_000, "movielens-100k, 8,000 rows": 8_000}
"""Of an embedded set, drawn train rows; of MovieLens-100K the last ones before the validation rows."""


def small(data: str, seed: int, options: Namespace, folder: Path, min_count: int = 1) -> PackedDataset:
    """The data set; every seed draws another log, or other train rows."""
    if data in LOGS:
        rows, users, items = LOGS[data]
        return prepare(write_log(seed, folder, min_count=min_count, rows=rows, users=users, items=items), cache_dir=folder / "cache")
    dataset = packed(data.partition(",")[0], seed, options, folder, min_count=1)
    train = dataset.split("train")
    chosen = np.random.default_rng([seed, 5]).permutation(len(train))[: PARTS[data]]
    if data.startswith("movielens"):
        chosen = np.arange(len(train))[-PARTS[data] :]
    meta = dataclasses.replace(dataset.meta, rows={**dataset.meta.rows, "train": len(chosen)})
    return dataclasses.replace(dataset, meta=meta, splits={**dataset.splits, "train": rows_of(train, chosen)})


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows, by task."""
    dataset = small(data, seed, options, folder)
    if setting in LIBRARIES:
        return of_library(dataset, setting, seed)
    return scores(trained(dataset, seed, SETTINGS[setting], folder), dataset.meta.tasks)


_study = study_of("small_tables", run, SETTINGS, quick=TREES, data=(*LOGS, *PARTS))
STUDY = dataclasses.replace(_study, seeds=5, quick={**_study.quick, "data": ["hillstrom, 4,000 rows"]})
