"""What does a run keep whose validation rows have another base rate? ``make study NAME=late_labels`` trains where their labels are cut.

Of a real log of groceries the labels of the train and validation rows are what the day after them knows, see :mod:`.groceries`: 31% of the
train rows are positive, and 7% of the validation rows, which are of the last fortnight. The test rows follow, with all of their labels.
"plain log loss" monitors the log loss without intercepts, as runs did before.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from dcrnn_fast.training.config import RunConfig

from . import groceries
from .ablation import DEFAULT
from .continuing import STUDY as CONTINUING
from .study import Content, Row, Table, beside, grouped, seeds_of, trained

CUT, WHOLE = "labels cut", "all labels"
PLAIN = "plain log loss"


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """Each task's test AUC and log loss, and the step that was kept."""
    dataset = groceries.draw(seed, options.completejourney, cut=data == CUT)
    monitored = property(lambda config: "log_loss") if setting == PLAIN else RunConfig.monitored
    with mock.patch.object(RunConfig, "monitored", monitored):
        found = trained(dataset, seed, {}, folder)
    test = {task: {key: found["test"][task][key] for key in ("auc", "log_loss")} for task in dataset.meta.tasks}
    return {"test": test, "best_step": found["train"]["best_step"], "seconds": round(found["train"]["seconds"], 1)}


def tables(content: Content) -> list[Table]:
    """By setting and labels, each task's test AUC, and the steps that were kept."""
    lines = []
    for (data, setting), rows in grouped(content["rows"], "data", "setting").items():
        aucs = [[row["test"][task]["auc"] for row in rows] for task in groceries.TASKS]
        lines.append([data, setting, *(beside(own, own) for own in aucs), ", ".join(str(row["best_step"]) for row in rows)])
    return [(["labels", "monitor", *groceries.TASKS, "steps kept"], lines)]


def note(content: Content) -> str:
    return f"Test AUC, mean of {seeds_of(content)} seeds, each with other households."


def told(row: Row) -> str:
    return CONTINUING.told(row) + f", step {row['best_step']} kept"


STUDY = replace(
    CONTINUING,
    name="late_labels",
    run=run,
    told=told,
    tables=tables,
    note=note,
    data=(CUT, WHOLE),
    settings=(DEFAULT, PLAIN),
    fits=lambda data, setting, seed, options: options.completejourney is not None,
    quick={"seeds": 1, "data": [CUT], "settings": [DEFAULT]},
)
