"""Reports on a packed data set: its contents in numbers, and faults that will spoil a training run. Needs NumPy only.

docs/guide/data-report.md explains it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import shown
from ..packed.arrays import PackedDataset, PackedSplit
from ..packed.meta import PackedMeta
from .base_rates import Array, constant_log_loss, event_labels, group_warnings, label_counts, label_warnings, masked_by, rate_warnings
from .dense import dense_moments, empty_columns
from .leaks import leak_warnings, single_feature_auc
from .oov import id_shares, is_categorical, lost_fields, rare_fields
from .oov_dropout import oov_strengths


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
            field also `oov_dropout`, see :func:`dcrnn_fast.data.inspect.oov_dropout.oov_strengths`.
        dense: by dense column and split: `mean`, `std`, `min`, `max` of the scaled values. Train has mean 0 and standard deviation 1 except
            for missing cells, which are 0.
        groups: None without a group column, else by split: `groups`, `mean_rows` of a group, `rows_without_group`, and `both_classes`, by
            task the share of the groups that hold both classes; the others do not count in GAUC.
        single_feature_auc: by task, see :func:`dcrnn_fast.data.inspect.leaks.single_feature_auc`.
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
    strengths = oov_strengths(data) if {"train", "valid"} <= splits.keys() else {}
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
    return report | {"warnings": _warnings(report, shares, meta, masked)}


def _kind(meta: PackedMeta, field: str) -> str:
    if is_categorical(meta, field):
        return "categorical"
    return "buckets" if meta.fields[field] == len(meta.vocabulary.get(field, ())) + 2 else "hashed"  # a hashed field has no entries


def _tasks(data: PackedDataset) -> dict[str, dict[str, Any]]:
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for name, split in data.splits.items():
        for task, labels in event_labels(np.asarray(split.labels), data.meta.tasks, funnel=data.meta.funnel).items():
            counts.setdefault(task, {})[name] = label_counts(labels)
    tasks: dict[str, dict[str, Any]] = {}
    for task, by_split in counts.items():
        rows, positives = by_split.get("train", (0, 0))
        rate = positives / rows if rows else None
        tasks[task] = {
            name: {
                "rows": rows,
                "positives": positives,
                "base_rate": positives / rows if rows else None,
                "constant_log_loss": constant_log_loss(rows, positives, rate),
            }
            for name, (rows, positives) in by_split.items()
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
