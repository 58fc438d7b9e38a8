"""Labels by task: base rates, the log loss of predicting them, and warnings of labels that teach or measure little. Needs NumPy only."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MIN_CLASS = 10
ODDS_RATIO, STANDARD_ERRORS = 2.0, 5.0


def event_labels(labels: Array, tasks: Sequence[str], *, funnel: bool) -> dict[str, Array]:
    """The labels [N] of each task and, in a funnel, of each ``{task}_given_{previous}``, which is known where the event before happened.

    ``labels`` [N, T] are 0, 1 or NaN, in the order of ``tasks``.

    >>> event_labels(np.array([[1.0, 0.0], [0.0, 0.0]]), ("click", "buy"), funnel=True)["buy_given_click"].tolist()
    [0.0, nan]
    """
    columns = dict(zip(tasks, labels.T, strict=True))
    for position, task in enumerate(tasks[1:] if funnel else (), start=1):
        before = labels[:, position - 1]
        columns[f"{task}_given_{tasks[position - 1]}"] = np.where(before == 1, labels[:, position], np.float32(np.nan))
    return columns


def label_counts(labels: Array) -> tuple[int, int]:
    """The number of known and of positive labels; ``labels`` [N] are 0, 1 or NaN for unknown."""
    return int(labels.size - np.count_nonzero(np.isnan(labels))), int(np.count_nonzero(labels == 1))


def base_rates(labels: Array, tasks: Sequence[str], *, funnel: bool) -> dict[str, float]:
    """The part of positive labels among the known ones, of everything that :func:`event_labels` names. A rate over no rows is left out.

    >>> base_rates(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, np.nan]]), ("click", "buy"), funnel=True)
    {'click': 0.5, 'buy': 0.3333333333333333, 'buy_given_click': 0.5}
    """
    counts = {name: label_counts(column) for name, column in event_labels(labels, tasks, funnel=funnel).items()}
    return {name: positives / rows for name, (rows, positives) in counts.items() if rows}


def constant_log_loss(rows: int, positives: int, rate: float | None) -> float | None:
    """The log loss of predicting ``rate`` for ``rows`` rows with ``positives`` positive ones; None where rows or rate are unknown.

    As in scikit-learn, a rate of 0 or 1 counts as the nearest number inside (0, 1).
    """
    if not rows or rate is None:
        return None
    rate = min(max(rate, sys.float_info.epsilon), 1 - sys.float_info.epsilon)
    return -(positives * math.log(rate) + (rows - positives) * math.log1p(-rate)) / rows


def label_warnings(task: str, split: str, rows: int, positives: int) -> list[str]:
    """A warning if the known labels of a task are constant, or have fewer than ten positives or negatives, on the rows of a split."""
    effect = "a model learns little from them" if split == "train" else "AUC says little there"
    remedy = f"use more {split} rows, or an event that is less rare"
    if not rows:
        return [f"task {task!r}: no label of the {split} rows is known: {effect}; correct the task's column in the schema, or the split"]
    if positives in (0, rows):
        effect = "a model learns nothing else from them" if split == "train" else "AUC is undefined there"
        remedy = "correct the task's column, `positive` or `threshold` in the schema, or the split"
        return [f"task {task!r}: all {rows:,} known labels of the {split} rows are {int(positives > 0)}: {effect}; {remedy}"]
    if min(positives, rows - positives) < MIN_CLASS:
        return [f"task {task!r}: the {split} rows hold {positives:,} positive and {rows - positives:,} negative labels: {effect}; {remedy}"]
    return []


def masked_by(labels: Array, tasks: Sequence[str]) -> dict[str, tuple[str, int]]:
    """By task whose labels are known only where another task has one class, of its two: that task, and the class.

    >>> masked_by(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, np.nan]]), ("click", "buy"))
    {'buy': ('click', 1)}
    """
    found = {}
    for task, own in zip(tasks, labels.T, strict=True):
        for other, column in zip(tasks, labels.T, strict=True):
            among = column[~np.isnan(own)]
            if len(among) and (among == among[0]).all() and (column == 0).any() and (column == 1).any():
                found[task] = other, int(among[0])
    return found


def group_warnings(task: str, split: str, group: str, groups: int, usable: int) -> list[str]:
    """A warning if fewer than ten groups of a split hold both classes of a task."""
    if usable >= MIN_CLASS:
        return []
    effect = "it says little there" if usable else "it is undefined there"
    return [
        f"task {task!r}: {usable:,} of the {groups:,} groups {group!r} of the {split} rows hold both classes, and GAUC is of these alone: "
        f"{effect}; use more {split} rows, or a coarser group"
    ]


def rate_warnings(task: str, split: str, train: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """A warning if the odds of a task's event differ twofold or more between train and a split, and by more than chance.

    ``train`` and ``other`` hold the task's ``rows`` (with a known label) and ``positives``. By chance: the rates differ by fewer than five
    standard errors of the difference of two proportions.
    """
    sides = [(side["positives"], side["rows"]) for side in (train, other)]
    if any(not 0 < positives < rows for positives, rows in sides):
        return []
    (before, now), (odds_before, odds_now) = ([p / n for p, n in sides], [p / (n - p) for p, n in sides])
    pooled = sum(p for p, _ in sides) / sum(n for _, n in sides)
    error = math.sqrt(pooled * (1 - pooled) * sum(1 / n for _, n in sides))
    if max(odds_before / odds_now, odds_now / odds_before) < ODDS_RATIO or abs(before - now) < STANDARD_ERRORS * error:
        return []
    return [
        f"task {task!r}: its base rate is {before:.4g} on the train rows and {now:.4g} on the {split} rows: probabilities learned on train "
        f"will be too {'low' if now > before else 'high'} there; check how the rows were split or sampled, or judge by AUC and recalibrate"
    ]
