"""Reports on a packed data set: its contents in numbers, and faults that will spoil a training run. Needs NumPy only.

docs/guide/your-own-data.md explains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ...errors import DataError, shown
from ..packed.arrays import PackedDataset, PackedSplit
from ..packed.meta import SCHEMA, SPLITS, PackedMeta
from .base_rates import Array, constant_log_loss, event_labels, group_warnings, label_counts, label_warnings, masked_by, rate_warnings
from .oov import BLOCK_ROWS, MIN_ROWS, id_counts, id_shares, is_categorical, lost_fields, oov_strengths, rare_fields
from .repeats import NEARLY_UNIQUE, same_fields, unique_fields

SAMPLE_ROWS = 200_000
MIN_CLASS = 30
"""Rows of either class, in train and held out, that an AUC below 1 needs here: with fewer, a good feature may seem almost perfect."""
PRIOR_ROWS = 10.0
LEAK_AUC = 0.995
ONE_SIDED, FEWEST, RARE = 0.99, 10, 0.2
"""An event may have filled a column in if so large a share of its unusual rows is of one class, if so many of these are held out, and if at
most so large a share of all rows is of that class."""


def data_report(data: PackedDataset) -> dict[str, Any]:
    """Numbers about a data set, by split, and warnings of what would spoil a training run. All of it fits strict JSON.

    Reads the splits in blocks of rows and keeps a few numbers a row of one column at a time. `single_feature_auc` reads at most 200,000
    rows of each split; everything else is exact.

    Returns a dict of:
        name, digest: the data set's.
        rows: the number of rows by split.
        tasks: by task, and in a funnel by `{task}_given_{previous}`, and by split: `rows` (with a known label), `positives`, `base_rate`,
            and `constant_log_loss`, the log loss of predicting the train rows' base rate.
        fields: by field: `kind` ("categorical", "hashed" or "buckets"), `ids` (the number of embeddings), and by split the share of the
            rows that are `oov` and `missing`, None where the packed format cannot tell (see
            :func:`dcrnn_fast.data.inspect.oov.id_shares`). A field with several values has the shares of its first one. Of a categorical
            field also `oov_dropout`, see :func:`dcrnn_fast.data.inspect.oov.oov_strengths`.
        dense: by dense column and split: `mean`, `std`, `min`, `max` of the scaled values. Train has mean 0 and standard deviation 1 except
            for missing cells, which are 0.
        groups: None without a group column, else by split: `groups`, `mean_rows` of a group, `rows_without_group`, and `both_classes`, by
            task the share of the groups that hold both classes; the others do not count in GAUC.
        single_feature_auc: by task, see :func:`dcrnn_fast.data.inspect.report.single_feature_auc`.
        warnings: a list of lines.

    Raises TypeError for anything but a :class:`PackedDataset`, and DataError for ids outside their field's range.

    >>> from pathlib import Path
    >>> from dcrnn_fast.data import PackedMeta
    >>> meta = PackedMeta(
    ...     "shop", ("click",), False, "independent", {"city": 3}, (), None, False, {"train": 4}, {"city": ["<oov>", "a", "b"]}, {}, {}, 1
    ... )
    >>> ids, labels = np.array([[1], [2], [1], [0]], dtype=np.int32), np.array([[0.0], [1.0], [0.0], [1.0]], dtype=np.float32)
    >>> report = data_report(PackedDataset(Path("shop"), meta, {"train": PackedSplit("train", ids, None, labels, None, None)}))
    >>> report["tasks"]["click"]["train"]["base_rate"], report["fields"]["city"]["oov"]
    (0.5, {'train': 0.25})
    """
    if not isinstance(data, PackedDataset):
        raise TypeError(f"data={shown(data)}: expected a PackedDataset, as prepare and open_packed return it, got {type(data).__name__}")
    meta, splits = data.meta, data.splits
    shares = {name: id_shares(split, meta) for name, split in splits.items()}
    counts = id_counts(splits["train"], meta) if "train" in splits else ([], [])
    strengths = oov_strengths(data, counts) if {"train", "valid"} <= splits.keys() else {}
    report = {
        "name": meta.name,
        "digest": meta.digest,
        "rows": {name: len(split) for name, split in splits.items()},
        "tasks": _tasks(data),
        "fields": {
            field: {"kind": _kind(meta, column), "ids": meta.fields[column]}
            | {kind: {name: shares[name][field][kind] for name in splits} for kind in ("oov", "missing")}
            | ({"oov_dropout": strengths[field]} if field in strengths else {})
            for field, column in meta.first_columns.items()
        },
        "dense": _dense(data),
        "groups": None if meta.group is None else {name: _groups(split, data) for name, split in splits.items()},
        "single_feature_auc": single_feature_auc(data),
    }
    masked = masked_by(np.asarray(splits["train"].labels), meta.tasks) if "train" in splits else {}
    lines = _warnings(report, shares, meta, masked)
    if "train" in splits:
        lines += [f"field {field!r} is {NEARLY_UNIQUE}; leave it out" for field in unique_fields(meta, counts)]
        for field, other in same_fields(splits["train"], meta).items():
            lines.append(f"field {field!r} says the same as field {other!r}, one to one; leave one of them out")
    with suppress(DataError, ModuleNotFoundError):  # without a schema, or the extra `train`, nothing says which parts were asked for
        from ..schema.table import load_schema

        rule, rows, total = load_schema(data.path / SCHEMA).split, meta.rows, sum(meta.rows.values())
        parts = {"valid": rule.valid, "test": rule.test} if rule is not None and rule.time is not None else {}
        lines += [
            f"the {split} rows are {rows[split] / total:.0%} of all, not {part:.0%}: rows of one time stay together; split by a finer time"
            for split, part in parts.items()
            if part and abs(rows[split] - part * total) > part * total / 2 + 1
        ]
    return report | {"warnings": lines}


def _kind(meta: PackedMeta, field: str) -> str:
    if is_categorical(meta, field):
        return "categorical"
    return "buckets" if meta.fields[field] == len(meta.vocabulary.get(field, ())) + 2 else "hashed"  # a hashed field has no entries


def _tasks(data: PackedDataset) -> dict[str, dict[str, Any]]:
    tasks: dict[str, dict[str, Any]] = {}
    labels = {name: event_labels(np.asarray(split.labels), data.meta.tasks, funnel=data.meta.funnel) for name, split in data.splits.items()}
    for task in dict.fromkeys(task for columns in labels.values() for task in columns):
        counts = {name: label_counts(columns[task]) for name, columns in labels.items()}
        rates = {name: positives / rows if rows else None for name, (rows, positives) in counts.items()}
        tasks[task] = {
            name: {
                "rows": rows,
                "positives": positives,
                "base_rate": rates[name],
                "constant_log_loss": constant_log_loss(rows, positives, rates.get("train")),
            }
            for name, (rows, positives) in counts.items()
        }
    return tasks


def _dense(data: PackedDataset) -> dict[str, dict[str, Any]]:
    by_split = {name: dense_moments(split) for name, split in data.splits.items()}
    return {column: {name: moments[c] for name, moments in by_split.items()} for c, column in enumerate(data.meta.dense)}


def _groups(split: PackedSplit, data: PackedDataset) -> dict[str, Any]:
    assert split.group is not None
    present = np.flatnonzero(np.asarray(split.group) >= 0)
    number, group = np.unique(np.asarray(split.group)[present], return_inverse=True)
    groups = len(number)

    def both(labels: Array) -> float | None:
        labels = labels[present]
        holds = [np.bincount(group[labels == value], minlength=groups) > 0 for value in (0, 1)]
        return float((holds[0] & holds[1]).mean()) if groups else None

    labels = event_labels(np.asarray(split.labels), data.meta.tasks, funnel=data.meta.funnel)
    return {
        "groups": groups,
        "mean_rows": len(present) / groups if groups else None,
        "rows_without_group": len(split) - len(present),
        "both_classes": {task: both(column) for task, column in labels.items()},
    }


def _warnings(report: dict[str, Any], shares: dict[str, Any], meta: PackedMeta, masked: dict[str, tuple[str, int]]) -> list[str]:
    lines, train = [], shares.get("train", {})
    others = [(split, rows) for split, rows in report["rows"].items() if rows and split != "train"]
    for split, rows in others:
        lines += lost_fields(train, shares[split], split, rows)
        lines += empty_columns({name: found for name, found in report["dense"].items() if name not in report["fields"]}, split, rows)
    lines += rare_fields(train, meta.pooled)
    warned = set()
    for task, event in zip(report["tasks"], (*meta.tasks, *meta.tasks[1:]), strict=False):  # in a funnel, conditionals follow the tasks
        for split, rows in report["rows"].items():
            found = report["tasks"][task][split]
            about = label_warnings(task, split, found["rows"], found["positives"]) if rows else []
            if not about and rows and split != "train" and (groups := report["groups"]):
                usable = round((groups[split]["both_classes"][task] or 0) * groups[split]["groups"])
                about = group_warnings(task, split, str(meta.group), groups[split]["groups"], usable)
            if about and (event, split) not in warned:
                warned.add((event, split))
                lines += about
    lines += [
        f"task {task!r}: its labels are known only where {other!r} is {value}: its metrics are of these rows alone, and its probabilities "
        "are wrong elsewhere; write 0 where the event cannot have happened"
        for task, (other, value) in masked.items()
    ]
    for task in meta.tasks:
        counts = report["tasks"][task]
        for split, _ in others if "train" in counts else ():
            lines += rate_warnings(task, split, counts["train"], counts[split])
        lines += leak_warnings(task, report["single_feature_auc"][task])
    return lines


def dense_moments(split: PackedSplit) -> list[dict[str, float | None]]:
    """The `mean`, `std`, `min` and `max` of each dense column, all None if the split has no rows. Reads blocks of rows."""
    if split.dense is None:
        return []
    width = split.dense.shape[1]
    if not len(split):
        return [dict.fromkeys(("mean", "std", "min", "max"))] * width
    sums, squares, low, high = np.zeros(width), np.zeros(width), np.full(width, np.inf), np.full(width, -np.inf)
    for start in range(0, len(split), BLOCK_ROWS):
        block = np.asarray(split.dense[start : start + BLOCK_ROWS], dtype=np.float64)
        sums, squares = sums + block.sum(axis=0), squares + (block * block).sum(axis=0)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    mean = sums / len(split)
    std = np.sqrt(np.maximum(squares / len(split) - mean * mean, 0))
    return [{"mean": float(mean[c]), "std": float(std[c]), "min": float(low[c]), "max": float(high[c])} for c in range(width)]


def empty_columns(dense: Mapping[str, Mapping[str, Mapping[str, float | None]]], split: str, rows: int) -> list[str]:
    """A warning of one line for every dense column that is 0 on all rows of a split, and not in train. `dense` is by column and split.

    A missing value becomes 0, the mean of the train rows; that all values of a filled column lie there is unlikely. Fewer than 20 rows
    give no warning.
    """
    return [
        f"dense column {column!r}: all {split} rows are 0, as a missing value is, and the train rows are not: there the column tells the "
        "model nothing; check that the file fills it, and how it writes missing values"
        for column, by_split in (dense.items() if rows >= MIN_ROWS else ())
        if by_split[split]["min"] == by_split[split]["max"] == 0 and any(by_split.get("train", {}).values())
    ]


def single_feature_auc(data: PackedDataset) -> dict[str, dict[str, Any] | None]:
    """By task: the AUC of each feature alone on held-out rows. With under 30 of a class there or in train, only AUCs of 1; under 10, None.

    A field's id scores the mean label of its train rows, drawn towards the base rate by ten rows. A dense value scores as it is, or
    negated if that ranks better. The held-out rows are the validation rows, or the test rows if those have too few of a class. Of a split
    with more than 200,000 rows, as many are drawn with a fixed seed.

    Returns, by task, ``split`` (the held-out one), ``train_rows`` and ``rows`` (those read), and ``fields`` and ``dense``: the AUC in
    [0, 1] by column, of a field with several values that of the one which predicts best. ``one_sided`` has the columns whose unusual rows,
    those without the column's most frequent value, have one label, and at most a fifth of all rows have it: by column, that ``label``, and
    how many held-out ``rows`` are unusual. Raises DataError for an id outside its field's range.
    """
    samples = {name: _sample(split, data) for name, split in data.splits.items()}
    return {task: _of_task(samples, data, t) for t, task in enumerate(data.meta.tasks)}


def leak_warnings(task: str, found: Mapping[str, Any] | None) -> list[str]:
    """A warning of one line for every column that alone reaches an AUC of 0.995, or whose unusual rows all have one label, as
    :func:`single_feature_auc` found it for ``task``.

    >>> leak_warnings("click", {"split": "valid", "fields": {"hour": 0.62}, "dense": {"hour": 0.55}, "one_sided": {}})
    []
    """
    if found is None:
        return []
    best = {name: max(found[kind].get(name, 0.0) for kind in ("fields", "dense")) for name in {**found["fields"], **found["dense"]}}
    return [
        f"task {task!r}: at least {ONE_SIDED:.0%} of the {held['rows']:,} {found['split']} rows without the most frequent value of column "
        f"{name!r} have the label {held['label']}, of all rows at most {RARE:.0%}: an event may fill it in; leave the column out, unless "
        "its value is known before the event"
        for name, held in found["one_sided"].items()
        if best.get(name, 0.0) < LEAK_AUC
    ] + [
        f"task {task!r}: column {name!r} alone predicts it on the {found['split']} rows with AUC {auc:.4f}: it may hold the label; leave "
        "the column out, unless its value is known before the event"
        for name, auc in best.items()
        if auc >= LEAK_AUC
    ]


def _sample(split: PackedSplit, data: PackedDataset) -> PackedSplit:
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
    dense = None if split.dense is None else np.asfortranarray(split.dense[rows])
    return PackedSplit(split.name, ids, dense, np.asfortranarray(split.labels[rows]), weight=None, group=None)


def _of_task(samples: Mapping[str, PackedSplit], data: PackedDataset, task: int) -> dict[str, Any] | None:
    labels = {name: samples[name].labels[:, task] for name in SPLITS if name in samples}
    classes = {name: (np.flatnonzero(column == 1), np.flatnonzero(column == 0)) for name, column in labels.items()}
    enough = [name for least in (MIN_CLASS, FEWEST) for name, rows in classes.items() if min(map(len, rows)) >= least]
    if "train" not in enough or {*enough} == {"train"}:
        return None
    train, held_out = classes["train"], next(name for name in enough if name != "train")
    positive, negative = classes[held_out]
    lowest = 0.0 if min(map(len, (*train, positive, negative))) >= MIN_CLASS else 1.0  # by chance in 2 of C(20, 10) features
    rate = len(train[0]) / (len(train[0]) + len(train[1]))
    columns, dense, one_sided = dict[str, float](), dict[str, float](), dict[str, "dict[str, int] | None"]()
    for kind, names in (("ids", data.meta.fields), ("dense", data.meta.dense)):
        for place, name in enumerate(names):
            known, asked = (getattr(samples[split], kind)[:, place] for split in ("train", held_out))
            if kind == "dense":
                values, places = np.unique(np.concatenate([known, asked]), return_inverse=True)
                known, asked = np.split(places, [len(known)])
            size = int(max(known.max(), asked.max())) + 1
            hits, misses, positives, negatives = (
                np.bincount(column[rows], minlength=size).astype(np.float64)
                for column, rows in ((known, train[0]), (known, train[1]), (asked, positive), (asked, negative))
            )
            if kind == "ids":
                columns[name] = _auc((hits + PRIOR_ROWS * rate) / (hits + misses + PRIOR_ROWS), positives, negatives)
            else:
                auc = _auc(values, positives, negatives)
                dense[name] = max(auc, 1 - auc)
            usual = int(np.argmax(hits + misses))
            unusual = [counts.sum() - counts[usual] for counts in (hits, misses, positives, negatives)]
            one_sided.setdefault(name, _one_sided(unusual[:2], unusual[2:], len(positive), len(negative)))
    fields = {field: data.meta.pooled.get(field, {"columns": [first]})["columns"] for field, first in data.meta.first_columns.items()}
    features = fields | {column: [column] for column in dense}
    return {
        "split": held_out,
        "train_rows": len(train[0]) + len(train[1]),
        "rows": len(positive) + len(negative),
        "fields": {field: auc for field, own in fields.items() if (auc := max(columns[column] for column in own)) >= lowest},
        "dense": {name: auc for name, auc in dense.items() if auc >= lowest},
        "one_sided": {name: found for name, own in features.items() if (found := next(filter(None, map(one_sided.get, own)), None))},
    }


def _one_sided(train: Sequence[float], held_out: Sequence[float], positives: int, negatives: int) -> dict[str, int] | None:
    """The rare label, if nearly all unusual rows have it, and how many held-out rows are unusual; None if they have both, or are few.

    ``train`` and ``held_out`` are the numbers of unusual rows with a positive and with a negative label.

    >>> _one_sided([80, 0], [40, 0], 100, 900), _one_sided([0, 80], [0, 40], 100, 900)
    ({'label': 1, 'rows': 40}, None)
    """
    rows, label = sum(held_out), int(positives < negatives)
    place = 1 - label  # the positive rows come first
    is_pure = all(split[place] >= max(ONE_SIDED * sum(split), least) for split, least in ((train, MIN_CLASS), (held_out, FEWEST)))
    is_rare = min(positives, negatives) <= RARE * (positives + negatives)
    return {"label": label, "rows": int(rows)} if is_pure and is_rare else None


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
