"""Where does partial sharing win? ``make study NAME=synthetic_tasks`` trains on tasks whose relation is known.

Every model of the quality harness that is named in ``MODELS`` trains by its protocol and with the setting of its trial 0, but for what
``Scope`` says: smaller batches, and a learning rate chosen for each model by the validation log loss on draws that are not used again. Test
AUC is measured on fresh rows for each cosine of the tasks and, at two cosines, for three shares of train rows whose second label is known.
After training we also look into DCRNN's gate. Costs by the number of tasks come from models with random weights.
"""

from __future__ import annotations

import dataclasses
import statistics
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dcrnn_fast import DCRNN
from dcrnn_fast.data import PackedDataset

from ..quality import models as harness
from ..quality.networks import SIZES
from ..quality.protocol import Protocol, fit, metrics
from ..quality.spaces import defaults
from ..quality.speed import flops
from .study import Row, Rows, Study
from .synthetic_data import TASKS, Draw, draw
from .synthetic_gate import signal_and_noise
from .synthetic_report import figure, note, tables

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "single-task": ("single-task", {"rank": None}),
    "dcrnn-none": ("dcrnn-full", {"share_ratio": 0.0}),
    "dcrnn-rows": ("dcrnn-full", {}),
    "dcrnn-trunk": ("dcrnn-trunk", {"rank": None}),
    "dcrnn-hard": ("dcrnn-hard", {"rank": None}),
    "mmoe": ("mmoe", {}),
    "ple": ("ple", {}),
}
"""The harness's name of each model, and what differs from its trial 0."""
LINEAR, BEST = "linear", "best possible"
"""Not models of the harness: logistic regression for each task, and the score from which the labels were drawn."""
SIZE = "small"
TUNED_AT = (0.5, 1.0)
FIRST_TUNING_SEED = 1000


@dataclasses.dataclass(frozen=True)
class Scope:
    """What is trained, and how. ``few`` are pairs of a cosine and the share of train rows whose second label is known."""

    cosines: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    few: tuple[tuple[float, float], ...] = ((0.5, 0.1), (0.5, 0.02), (1.0, 0.1), (1.0, 0.02))
    seeds: int = 10
    tuning_seeds: int = 3
    lrs: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 2e-2)
    rows: Draw = dataclasses.field(default_factory=Draw)
    epochs: int = 12
    dense_bins: int = 8
    batch_size: int = 128
    evaluations: int = 2
    warmup_steps: int = 20
    tasks: tuple[int, ...] = (1, 2, 4, 8)
    """Their numbers for which the costs are told."""


QUICK = Scope(cosines=(0.5,), few=(), seeds=1, tuning_seeds=1, lrs=(1e-2,), rows=Draw(256, 64, 64), epochs=1, tasks=(1, 2))


def setting(model: str, scope: Scope, lr: float) -> dict[str, Any]:
    """The model's setting of trial 0 in this study."""
    name, changes = MODELS[model]
    return defaults(harness.MODELS[name].space) | {"epochs": scope.epochs, "dense_bins": scope.dense_bins, "lr": lr} | changes


def cases(rows: Rows, options: Namespace) -> Iterator[tuple[Any, ...]]:
    """First the tuning. Then the test cases, with the chosen learning rates; None for what does not train by the protocol."""
    scope: Scope = options.scope
    tuning = [
        (model, *TUNED_AT, FIRST_TUNING_SEED + seed, lr)
        for seed in range(scope.tuning_seeds) for model in MODELS for lr in scope.lrs
    ]  # fmt: skip
    if not set(tuning) <= {(row["model"], row["cosine"], row["known"], row["seed"], row["lr"]) for row in rows}:
        yield from tuning
        return
    rates = chosen(rows, scope) | {LINEAR: None, BEST: None}
    for seed in range(scope.seeds):
        for cosine, known in [*((cosine, 1.0) for cosine in scope.cosines), *scope.few]:
            yield from ((model, cosine, known, seed, lr) for model, lr in rates.items())


def chosen(rows: Rows, scope: Scope) -> dict[str, float]:
    """Of each model the learning rate with the lowest mean validation log loss over the tuning seeds."""
    losses: dict[tuple[str, float], list[float]] = {}
    for row in (row for row in rows if row["seed"] >= FIRST_TUNING_SEED):
        losses.setdefault((row["model"], row["lr"]), []).append(row["log_loss"])
    return {model: min(scope.lrs, key=lambda lr: statistics.fmean(losses[model, lr])) for model in MODELS}


def run(model: str, cosine: float, known: float, seed: int, lr: float | None, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The validation log loss and, but for a tuning seed, each task's test AUC and the gate's values.

    The seed decides the draw, the weights and the order of the rows.
    """
    scope: Scope = options.scope
    drawn = draw(cosine, seed, known=known, rows=scope.rows)
    if lr is None:
        return {"auc": _auc(drawn.dataset, drawn.scores["test"] if model == BEST else linear(drawn.dataset))}
    protocol = Protocol(batch_size=scope.batch_size, evaluations=scope.evaluations, warmup_steps=scope.warmup_steps)
    fitted = fit(MODELS[model][0], drawn.dataset, setting(model, scope, lr), seed=seed, size=SIZE, protocol=protocol)
    row: dict[str, Any] = {"log_loss": min(loss for _, loss in fitted.history), "parameters": fitted.parameters}
    if seed < FIRST_TUNING_SEED:
        row["auc"] = _auc(drawn.dataset, fitted.logits(drawn.dataset.split("test")))
        if all(isinstance(network, DCRNN) for network in fitted.networks):
            row["gate"] = signal_and_noise(fitted.networks, drawn.dataset)
    return row


def _auc(dataset: PackedDataset, logits: np.ndarray) -> dict[str, float]:
    return {task: found["auc"] for task, found in metrics(dataset, "test", logits).items()}


def linear(dataset: PackedDataset) -> np.ndarray:
    """The logits [N, 2] of a logistic regression for each task on the test rows."""
    from sklearn.linear_model import LogisticRegression

    train, test, columns = dataset.split("train"), dataset.split("test"), []
    for task in range(len(dataset.meta.tasks)):
        known = ~np.isnan(train.labels[:, task])
        fitted = LogisticRegression(max_iter=1000).fit(train.dense[known], train.labels[known, task])
        columns.append(fitted.decision_function(test.dense))
    return np.stack(columns, axis=1)


def growth(scope: Scope) -> list[dict[str, Any]]:
    """Parameters and FLOPs a row of each model, with random weights, for each number of tasks."""
    drawn, rows = draw(0.5, 0, rows=scope.rows).dataset, []
    for count in scope.tasks:
        meta = dataclasses.replace(drawn.meta, tasks=tuple(f"task {number}" for number in range(count)))
        splits = {name: dataclasses.replace(split, labels=np.tile(split.labels[:, :1], count)) for name, split in drawn.splits.items()}
        dataset = dataclasses.replace(drawn, meta=meta, splits=splits)
        for model, (name, _) in MODELS.items():
            build = harness.MODELS[name].build
            assert build is not None
            made = build(meta, setting(model, scope, scope.lrs[0]), SIZES[SIZE])
            costs = {"parameters": sum(parameter.numel() for parameter in made.parameters()), "flops": round(flops(made, dataset))}
            rows.append({"model": model, "tasks": count, **costs})
    return rows


def told(row: Row) -> str:
    return "AUC {:.4f} {:.4f}".format(*(row["auc"][task] for task in TASKS)) if "auc" in row else f"log loss {row['log_loss']:.4f}"


STUDY = Study(
    "synthetic_tasks",
    run,
    told,
    tables,
    note,
    columns=("model", "cosine", "known", "seed", "lr"),
    cases=cases,
    about=lambda options: {"study": dataclasses.asdict(options.scope)},
    start=lambda options: harness.check([name for name, _ in MODELS.values()]),
    finish=lambda content, options: {"lr": chosen(content["rows"], options.scope), "growth": growth(options.scope)},
    draw=figure,
    add_options=lambda parser: parser.set_defaults(scope=Scope()),
    quick={"scope": QUICK},
)
