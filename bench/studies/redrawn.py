"""Which differences of the comparison are more than the luck of one split? ``make study NAME=redrawn`` draws two small sets again.

hillstrom has 179 conversions among its test rows, id-log about 300 consumes: another split moves an AUC further than the models
differ. Here hillstrom's rows go to train, validation and test anew, in parts of the same sizes, and id-log is drawn anew, with
``min_count`` 5 as in the comparison and with 1, the default. Each model takes the setting that ``make quality`` chose for it on the first
split, which is not among these; ``dcrnn-fast train`` takes its defaults. All models of a draw have the same rows and the same seed.
Rows are encoded as in the first split.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dcrnn_fast.data import PackedDataset
from dcrnn_fast.training.device import deterministic

from .. import results
from ..quality import models as harness
from ..quality.data_sets import ARRAYS
from ..quality.models import SHIPPED
from ..quality.protocol import Protocol, fit, metrics
from ..quality.work import ONE_SIZE
from .study import Content, Row, Study, Table, beside, grouped, packed, seeds_of, standard_error

MODELS = tuple(name for name in harness.MODELS if name != "constant")
DATA = {"hillstrom": "hillstrom", "id-log": "id-log", "id-log, min_count 1": "id-log"}
"""What is drawn again, and the data set whose chosen settings it takes."""
TEST_TO_TRAIN = 19_200 / 40_320
"""Of hillstrom's rows."""


def redrawn(data: str, seed: int, options: Namespace, folder: Path) -> PackedDataset:
    """Another log for each seed, or other splits of the same rows."""
    dataset = packed(data, seed, options, folder)
    return dataset if data.startswith("id-log") else split_again(dataset, seed)


def split_again(dataset: PackedDataset, seed: int) -> PackedDataset:
    """The rows of all splits in a drawn order, cut into splits of the same sizes."""
    parts = list(dataset.splits.values())
    order = np.random.default_rng([seed, 29]).permutation(sum(map(len, parts)))
    ends = np.cumsum([len(part) for part in parts])[:-1]
    whole = {name: [getattr(part, name) for part in parts] for name in ARRAYS}
    cut = {name: np.split(np.concatenate(values)[order], ends) for name, values in whole.items() if values[0] is not None}
    again = (dataclasses.replace(part, **{name: values[at] for name, values in cut.items()}) for at, part in enumerate(parts))
    meta = dataclasses.replace(dataset.meta, digest=f"{dataset.meta.digest} {seed}")
    return dataclasses.replace(dataset, meta=meta, splits=dict(zip(dataset.splits, again, strict=True)))


def chosen(data: str, model: str) -> tuple[dict[str, Any], str]:
    """The committed setting of a model, but for keys that are no longer searched, and its size."""
    size = "medium" if harness.MODELS[model].build else ONE_SIZE
    rows = results.read("quality.json")["chosen"]
    setting = next(row["setting"] for row in rows if (row["data"], row["model"], row["size"]) == (DATA[data], model, size))
    return {key: value for key, value in setting.items() if key in harness.MODELS[model].space}, size


def run(data: str, model: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """Each task's AUC on the test rows, which are read once."""
    dataset, (setting, size) = redrawn(data, seed, options, folder), chosen(data, model)
    with deterministic(1):
        fitted = fit(model, dataset, setting, seed=seed, size=size, protocol=Protocol())
    found = metrics(dataset, "test", fitted.logits(dataset.split("test")))
    return {"auc": {task: values["auc"] for task, values in found.items()}, "seconds": round(fitted.seconds, 1)}


def means(rows: Iterable[Row]) -> list[float]:
    """Of each row, the mean over the tasks."""
    return [statistics.fmean(row["auc"].values()) for row in rows]


def corrected_error(values: Sequence[float]) -> float:
    """The standard error of a mean over splits of the same rows, which are no independent draws (Nadeau and Bengio, 2003)."""
    return standard_error(values) * math.sqrt(1 + len(values) * TEST_TO_TRAIN)


def tables(content: Content) -> list[Table]:
    """For each model its mean AUC on each set; in brackets the difference from untuned DCRNN's on the same draws."""
    by_case, lines = grouped(content["rows"], "data", "setting"), []
    for model in (name for name in MODELS if any(model == name for _, model in by_case)):
        cells = []
        for data in DATA:
            rows = {row["seed"]: row for row in by_case.get((data, model), [])}
            ours = {row["seed"]: row for row in by_case.get((data, SHIPPED), [])}
            seeds = sorted(rows.keys() & ours.keys())
            own, others = (means(found[seed] for seed in seeds) for found in (rows, ours))
            spread = corrected_error if data == "hillstrom" else standard_error
            cells.append(beside(own, others, spread) if seeds else "not measured")
        lines.append([harness.MODELS[model].title, *cells])
    return [(["model", *DATA], lines)]


def note(content: Content) -> str:
    return (
        f"Test AUC, mean of the tasks and of {seeds_of(content)} draws; in brackets the mean difference from DCRNN as `dcrnn-fast train` "
        "trains it untuned, ± its standard error over the draws. Splits of hillstrom share rows, for which its error is corrected."
        + content.get("remark", "")
    )


STUDY = Study(
    "redrawn",
    run,
    lambda row: ", ".join(f"{task} AUC {auc:.4f}" for task, auc in row["auc"].items()) + f", {row['seconds']:.0f} s",
    tables,
    note,
    data=tuple(DATA),
    settings=MODELS,
    seeds=20,
    first_seed=1,
    start=lambda options: harness.check(list(options.settings)),
    quick={"seeds": 1, "data": ["id-log"], "settings": [SHIPPED, "dcrnn"]},
)
