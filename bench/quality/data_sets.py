"""The data sets of the comparison, and the parts of them that a run may see."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dcrnn_fast.data import PackedDataset, PackedSplit, known_data_sets, prepare
from dcrnn_fast.errors import ConfigError

from ..id_tables import write_log, write_movielens

NAMES = ("census-income", "hillstrom", "movielens-100k", "id-log")
ARRAYS = ("ids", "dense", "labels", "weight", "group")


def load(name: str, folder: Path, *, movielens: Path | None = None, thin: int = 1) -> PackedDataset:
    """The packed data set, written and encoded on the first call. ``thin`` takes every n-th row of each split."""
    if name in known_data_sets():
        dataset = prepare(name)
    else:
        schema, tables = folder / "tables" / f"{name}.yaml", folder / "tables"
        if not schema.is_file():
            tables.mkdir(parents=True, exist_ok=True)
            if name != "id-log" and not (movielens and movielens.is_file()):
                raise ConfigError(
                    f"--data {name} needs the RecBole wheel, which holds it, and --movielens {movielens} is no file: "
                    "run `pip download recbole --no-deps` and give the wheel's path"
                )
            written = write_log(0, tables) if name == "id-log" or movielens is None else write_movielens(movielens, tables)
            Path(written).rename(schema)
        dataset = prepare(str(schema), cache_dir=folder / "cache")
    return dataset if thin == 1 else rows_of(dataset, tuple(dataset.splits), thin)


def rows_of(dataset: PackedDataset, names: Sequence[str], step: int) -> PackedDataset:
    """The same data with every ``step``-th row alone of some splits."""

    def thinned(split: PackedSplit) -> PackedSplit:
        arrays = {name: None if (values := getattr(split, name)) is None else np.asarray(values)[::step] for name in ARRAYS}
        return dataclasses.replace(split, **arrays)

    return dataclasses.replace(dataset, splits={**dataset.splits, **{name: thinned(dataset.split(name)) for name in names}})


def without_test(dataset: PackedDataset) -> PackedDataset:
    """The same data without its test rows: what a tuning trial gets, so that it cannot select on them."""
    return dataclasses.replace(dataset, splits={name: split for name, split in dataset.splits.items() if name != "test"})


def one_task(dataset: PackedDataset, task: int) -> PackedDataset:
    """The same rows and features with one label."""
    meta = dataclasses.replace(dataset.meta, tasks=dataset.meta.tasks[task : task + 1], funnel=False, relation="independent")
    splits = {name: dataclasses.replace(split, labels=split.labels[:, task : task + 1]) for name, split in dataset.splits.items()}
    return dataclasses.replace(dataset, meta=meta, splits=splits)
