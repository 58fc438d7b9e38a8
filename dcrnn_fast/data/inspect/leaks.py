"""How well each feature alone predicts each label on held-out rows. A feature that does so almost perfectly may hold the label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ..packed.arrays import PackedDataset, PackedSplit

Array = npt.NDArray[Any]

SAMPLE_ROWS = 200_000
MIN_CLASS = 30
"""Rows of either class, in train and held out, that an AUC needs here: with fewer, one feature of many is almost perfect by chance."""
PRIOR_ROWS = 10.0
LEAK_AUC = 0.995


class _Sample(NamedTuple):
    ids: Array
    dense: Array | None
    labels: Array

    def classes(self, task: int) -> tuple[Array, Array]:
        """The rows with a positive, and those with a negative label."""
        return np.flatnonzero(self.labels[:, task] == 1), np.flatnonzero(self.labels[:, task] == 0)


def single_feature_auc(data: PackedDataset) -> dict[str, dict[str, Any] | None]:
    """By task: the AUC of each feature alone on held-out rows; None if train or the held-out rows have fewer than 30 of a class.

    A field's id scores the mean label of its train rows, drawn towards the base rate by ten rows. A dense value scores as it is, or
    negated if that ranks better. The held-out rows are the validation rows, or the test rows if those have too few of a class. Of a split
    with more than 200,000 rows, as many are drawn with a fixed seed.

    Returns, by task, ``split`` (the held-out one), ``train_rows`` and ``rows`` (those read), and ``fields`` and ``dense``: the AUC in
    [0, 1] by column, of a field with several values that of the one which predicts best. Raises DataError for an id outside its field's
    range.
    """
    samples = {name: _sample(split, data) for name, split in data.splits.items()}
    return {task: _of_task(samples, data, t) for t, task in enumerate(data.meta.tasks)}


def leak_warnings(task: str, found: Mapping[str, Any] | None) -> list[str]:
    """A warning of one line for every column that alone reaches an AUC of 0.995, as :func:`single_feature_auc` found it for ``task``.

    >>> leak_warnings("click", {"split": "valid", "fields": {"hour": 0.62}, "dense": {"hour": 0.55}})
    []
    """
    if found is None:
        return []
    best = {name: max(found[kind].get(name, 0.0) for kind in ("fields", "dense")) for name in {**found["fields"], **found["dense"]}}
    return [
        f"task {task!r}: column {name!r} alone predicts it on the {found['split']} rows with AUC {auc:.4f}: it may hold the label; leave "
        "the column out, unless its value is known before the event"
        for name, auc in best.items()
        if auc >= LEAK_AUC
    ]


def _sample(split: PackedSplit, data: PackedDataset) -> _Sample:
    rows: Array | slice = slice(None)
    if len(split) > SAMPLE_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(len(split), SAMPLE_ROWS, replace=False, shuffle=False))
    ids = np.asfortranarray(split.ids[rows])
    for f, (field, size) in enumerate(data.meta.fields.items()):
        column = ids[:, f]
        if column.size and not 0 <= column.min() <= column.max() < size:
            wrong = column[(column < 0) | (column >= size)][0]
            raise DataError(
                f"{data.path}: field {field!r} holds the id {wrong} in its {split.name} rows, expected 0 to {size - 1}; delete the folder "
                "and prepare the data again"
            )
    return _Sample(ids, None if split.dense is None else np.asfortranarray(split.dense[rows]), np.asfortranarray(split.labels[rows]))


def _of_task(samples: Mapping[str, _Sample], data: PackedDataset, task: int) -> dict[str, Any] | None:
    train = samples["train"].classes(task) if "train" in samples else ()
    held_out = next((name for name in ("valid", "test") if name in samples and _has_enough(samples[name].classes(task))), None)
    if not train or not _has_enough(train) or held_out is None:
        return None
    positive, negative = samples[held_out].classes(task)
    rate = len(train[0]) / (len(train[0]) + len(train[1]))
    columns, dense = {}, {}
    for f, name in enumerate(data.meta.fields):
        known, asked = samples["train"].ids[:, f], samples[held_out].ids[:, f]
        size = int(max(known.max(), asked.max())) + 1
        hits, misses, positives, negatives = (
            np.bincount(column[rows], minlength=size).astype(np.float64)
            for column, rows in ((known, train[0]), (known, train[1]), (asked, positive), (asked, negative))
        )
        columns[name] = _auc((hits + PRIOR_ROWS * rate) / (hits + misses + PRIOR_ROWS), positives, negatives)
    for d, column in enumerate(data.meta.dense):
        held = samples[held_out].dense
        assert held is not None
        scores = np.concatenate([held[positive, d], held[negative, d]])
        is_positive = np.arange(len(scores)) < len(positive)
        auc = _auc(scores, is_positive, ~is_positive)
        dense[column] = max(auc, 1 - auc)
    return {
        "split": held_out,
        "train_rows": len(train[0]) + len(train[1]),
        "rows": len(positive) + len(negative),
        "fields": {
            field: max(columns[name] for name in data.meta.pooled.get(field, {"columns": [first]})["columns"])
            for field, first in data.meta.first_columns.items()
        },
        "dense": dense,
    }


def _has_enough(classes: tuple[Array, Array]) -> bool:
    return min(map(len, classes)) >= MIN_CLASS


def _auc(scores: Array, positives: Array, negatives: Array) -> float:
    """The chance that a positive row scores above a negative one, ties counting half; ``scores[i]`` is that of so many rows of each class.

    >>> _auc(np.array([0.1, 0.9, 0.5]), np.array([0, 2, 1]), np.array([2, 0, 1]))
    0.9444444444444444
    """
    held = (positives > 0) | (negatives > 0)  # Of a large vocabulary, most ids are not in the sample, and sorting them would take long.
    _, place = np.unique(scores[held], return_inverse=True)
    positives, negatives = (np.bincount(place, weights=counts[held]) for counts in (positives, negatives))
    below = np.cumsum(negatives) - negatives
    return float(positives @ (below + negatives / 2) / (positives.sum() * negatives.sum()))
