"""How do untuned models compare where rows are many and the tasks' sharing is known? ``make study NAME=large_log`` draws such logs.

A log has 1,000,000 impressions of 40,000 users and 20,000 items, each with a category. The logit of a click and that of a consume after a
click each add up a bias of every id, and the product of a user's and an item's vector. ``shared`` is the correlation of the two tasks'
biases and vectors: at 0 a user's clicks say nothing of what the user consumes, at 1 they say all. Each seed draws another log.

Thirteen models of the comparison train with the defaults of their search spaces (trial 0), on the same rows; trees may have more rounds
than there, since rows are many. The train rows' ids all have an embedding. Test rows are read once; nothing is chosen by them.
"""

from __future__ import annotations

import dataclasses
import statistics
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from dcrnn_fast.data import PackedDataset, PackedMeta, PackedSplit
from dcrnn_fast.training.device import deterministic

from ..quality import models as harness
from ..quality.data_sets import long_tail
from ..quality.models import SHIPPED
from ..quality.protocol import Protocol, fit, metrics
from ..quality.spaces import defaults
from ..quality.work import ONE_SIZE
from .study import Content, Row, Study, Table, beside, grouped, seeds_of

BEST = "best possible"
"""No model: the probabilities from which the labels were drawn."""
MODELS = (
    BEST, SHIPPED, "dcrnn", "single-task", "dcnv2", "gdcn", "shared-bottom", "mmoe", "ple", "aitm", "esmm", "lightgbm", "catboost",
    "logistic",
)  # fmt: skip
TASKS = ("click", "consume")
SHARED = {"shared 0.3": 0.3, "shared 0.9": 0.9}
PROTOCOL = Protocol(max_rounds=3000)
PARTS = {"train": 0.8, "valid": 0.1, "test": 0.1}
BASES = (-1.6, -1.2)
VECTORS = 8


@dataclasses.dataclass(frozen=True)
class Scope:
    """How much is drawn."""

    rows: int = 1_000_000
    users: int = 40_000
    items: int = 20_000
    categories: int = 100

    @property
    def fields(self) -> dict[str, tuple[int, float]]:
        """By field, how many ids there are and the standard deviation of their biases."""
        return {"user": (self.users, 0.6), "item": (self.items, 0.6), "category": (self.categories, 0.4), "hour": (24, 0.2)}


def draw(shared: float, seed: int, scope: Scope) -> tuple[PackedDataset, np.ndarray]:
    """A log, and the probabilities [N, 2] of its test rows' labels."""
    rng = np.random.default_rng([seed, 29])
    fields, count = scope.fields, scope.rows
    ids = {name: rng.choice(size, count, p=long_tail(rng, size)) for name, (size, _) in fields.items()}
    ids["category"] = rng.integers(0, scope.categories, scope.items)[ids["item"]]
    logits = np.repeat(np.array(BASES)[None], count, axis=0)
    for name, (size, deviation) in fields.items():
        logits += deviation * alike(rng, shared, size)[ids[name]]
    users, items = (alike(rng, shared, size, VECTORS) for size in (scope.users, scope.items))
    for task in range(len(TASKS)):
        logits[:, task] += 0.24 * (users[ids["user"], :, task] * items[ids["item"], :, task]).sum(axis=1)
    probability = np.cumprod(1 / (1 + np.exp(-logits)), axis=1)
    labels = np.cumprod(rng.random((count, len(TASKS))) < 1 / (1 + np.exp(-logits)), axis=1).astype(np.float32)
    ends = np.cumsum([0, *(round(part * count) for part in PARTS.values())])
    encoded, sizes = encode(ids, ends[1])
    splits = {
        name: PackedSplit(name, encoded[start:end], None, labels[start:end], None, None)
        for name, start, end in zip(PARTS, ends, ends[1:], strict=False)
    }
    meta = PackedMeta(
        name="large-log", tasks=TASKS, funnel=True, relation="chain", fields=sizes, dense=(), group=None, has_weight=False,
        rows={name: len(split) for name, split in splits.items()}, vocabulary={name: ["<oov>"] * size for name, size in sizes.items()},
        scaling={}, checksums={}, format_version=1, digest=f"large-log {shared} {seed} {scope}",
    )  # fmt: skip
    return PackedDataset(Path("large-log"), meta, splits), probability[ends[2] : ends[3]]


def alike(rng: np.random.Generator, shared: float, *shape: int) -> np.ndarray:
    """Standard normal values [*shape, 2] whose correlation along the last axis is ``shared``."""
    common, own = rng.normal(size=(*shape, 1)), rng.normal(size=(*shape, len(TASKS)))
    return np.sqrt(shared) * common + np.sqrt(1 - shared) * own


def encode(ids: dict[str, np.ndarray], train: int) -> tuple[np.ndarray, dict[str, int]]:
    """The ids [N, F] as numbers from 1 on, 0 where the train rows lack one, and how many numbers each field has."""
    columns, sizes = [], {}
    for name, values in ids.items():
        known = np.unique(values[:train])
        at = np.searchsorted(known, values).clip(max=len(known) - 1)
        columns.append(np.where(known[at] == values, at + 1, 0))
        sizes[name] = len(known) + 1
    return np.stack(columns, axis=1).astype(np.int32), sizes


def run(data: str, model: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """Each task's test AUC and log loss, and the seconds of training. The seed decides the log and how a model starts."""
    dataset, probability = draw(SHARED[data], seed, options.scope)
    if model == BEST:
        return scores(dataset, np.log(probability) - np.log1p(-probability)) | {"seconds": 0.0}
    size = "medium" if harness.MODELS[model].build else ONE_SIZE
    with deterministic(1):
        fitted = fit(model, dataset, defaults(harness.MODELS[model].space), seed=seed, size=size, protocol=PROTOCOL)
    steps = {"steps": fitted.history[-1][0], "parameters": fitted.parameters}
    return scores(dataset, fitted.logits(dataset.split("test"))) | {"seconds": round(fitted.seconds, 1)} | steps


def scores(dataset: PackedDataset, logits: np.ndarray) -> dict[str, Any]:
    """By task, from the logits [N, 2] of the test rows."""
    return {"test": {task: {key: found[key] for key in ("auc", "log_loss")} for task, found in metrics(dataset, "test", logits).items()}}


def told(row: Row) -> str:
    return ", ".join(f"{task} AUC {found['auc']:.4f}" for task, found in row["test"].items()) + f", {row['seconds']:.0f} s"


def tables(content: Content) -> list[Table]:
    """For each model its AUC of each task and log, in brackets the difference from DCRNN's on the same draws; and its seconds."""
    by_model, lines = grouped(content["rows"], "setting"), []
    ours = {(row["data"], row["seed"]): row for row in by_model.get(SHIPPED, [])}
    for model in (name for name in MODELS if name in by_model):
        cells = []
        for data, task in ((data, task) for data in SHARED for task in TASKS):
            rows = [row for row in by_model[model] if row["data"] == data and (data, row["seed"]) in ours]
            values, others = ([row["test"][task]["auc"] for row in some] for some in (rows, [ours[data, row["seed"]] for row in rows]))
            cells.append(beside(values, others) if rows else "not measured")
        seconds = f"{statistics.median(row['seconds'] for row in by_model[model]):.0f}" if model != BEST else "-"
        lines.append([model if model == BEST else harness.MODELS[model].title, *cells, seconds])
    return [(["model", *(f"{data}: {task}" for data in SHARED for task in TASKS), "seconds"], lines)]


def note(content: Content) -> str:
    return (
        f"Test AUC of 100,000 rows, mean of {seeds_of(content)} drawn logs; in brackets the mean difference from DCRNN as "
        "`dcrnn-fast train` trains it, ± its standard error over the logs. Seconds: median time of training by one thread."
        + content.get("remark", "")
    )


STUDY = Study(
    "large_log",
    run,
    told,
    tables,
    note,
    data=tuple(SHARED),
    settings=MODELS,
    about=lambda options: {"log": dataclasses.asdict(options.scope)},
    add_options=lambda parser: parser.set_defaults(scope=Scope()),
    start=lambda options: harness.check([name for name in options.settings if name != BEST]),
    quick={"seeds": 1, "settings": [BEST, SHIPPED], "scope": Scope(rows=4000, users=300, items=200, categories=10)},
)
