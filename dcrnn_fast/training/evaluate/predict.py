"""A model's predictions and metrics over a whole split, and the predictions as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...data import BlockLoader, PackedMeta, PackedSplit
from ...data.codes.texts import constant_ids
from ...data.inspect.base_rates import event_labels
from ...data.packed.arrays import Progress, no_progress
from ...data.packed.loader import part_of
from ...errors import DataError, TrainingDivergedError
from ...support.files import writing_output
from ..ranks import ONE, Ranks
from .intercept import shifted as after_intercepts
from .intercept import with_intercepts
from .metrics import Array, task_metrics
from .ranking import add_ranking

BATCH = 8192


@torch.no_grad()
def finite_predictions(
    model: nn.Module,
    split: PackedSplit,
    meta: PackedMeta,
    device: torch.device,
    ranks: Ranks = ONE,
    progress: Progress = no_progress,
    *,
    as_served: bool = False,
) -> dict[str, Array]:
    """``model.predict`` over all rows of a split, in their order: arrays [N] float32 by name. Leaves the model in evaluation mode.

    Fields that are known in training alone are read as they are, or ``as_served`` as scoring reads them.

    Each of several ranks computes its part of the batches of one process, and gets the predictions of all. Raises
    :class:`TrainingDivergedError` if a prediction is not finite.
    """
    model.eval()
    loader = BlockLoader(split, BATCH)
    own = part_of(len(loader), ranks.count, ranks.rank)
    parts, done = dict[str, list[Array]](), 0
    fixed = constant_ids(meta.fields, meta.vocabulary, meta.derived) if as_served else {}
    for batch in islice(loader.batches(start=own.start), own.stop - own.start) if own.start < own.stop else [loader.no_rows()]:
        dense = None if batch.dense is None else batch.dense.to(device)
        ids = batch.ids.clone() if fixed else batch.ids
        for field, id_ in fixed.items():
            ids[:, list(meta.fields).index(field)] = id_
        for name, value in model.predict(ids.to(device), dense).items():  # type: ignore[operator]
            parts.setdefault(name, []).append(value.cpu().numpy())
        done += len(batch.ids)
        progress("predicting rows", done, len(split))
    whole = ranks.rows(*(torch.from_numpy(np.concatenate(values)) for values in parts.values()))
    predictions = {name: values.numpy() for name, values in zip(parts, whole, strict=True)}
    if bad := [name for name, values in predictions.items() if not np.isfinite(values).all()]:
        raise TrainingDivergedError(
            f"the predictions {', '.join(bad)} on the {split.name} rows of {meta.name} are not finite: "
            "weights or dense values are too large"
        )
    return predictions


def evaluate_split(
    model: nn.Module,
    split: PackedSplit,
    meta: PackedMeta,
    device: torch.device,
    ranks: Ranks = ONE,
    *,
    weighted: bool = False,
    shifted: bool = False,
    k: int | None = None,
    predictions: Mapping[str, Array] | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics of every task over a split, of its ``predictions`` if they are known, see :func:`metrics_of` for ``k``.

    ``shifted``: with those of :func:`.intercept.with_intercepts`.

    Several ranks, which must all call this, share the predictions; rank 0 computes the metrics of all rows.
    Raises :class:`TrainingDivergedError` if a prediction is not finite.
    """
    predicted = predictions or finite_predictions(model, split, meta, device, ranks)

    def found() -> dict[str, dict[str, Any]]:
        metrics = metrics_of(predicted, split, meta, weighted=weighted, k=k)
        rows = np.asarray(split.labels), meta.tasks, _weight(split, weighted=weighted)
        return with_intercepts(metrics, predicted, *rows) if shifted else metrics

    return ranks.from_first(found)


def losses_after_intercepts(predictions: Mapping[str, Array], split: PackedSplit, meta: PackedMeta, *, weighted: bool) -> Array:
    """What each row adds to the mean over tasks and rows of the log loss after the best intercept of each task, [N]."""
    found = after_intercepts(predictions, np.asarray(split.labels), meta.tasks, _weight(split, weighted=weighted))
    whole = [losses * (len(split) / each) for _, losses, each, *_ in found if each]
    return np.mean(whole, axis=0) if whole else np.zeros(len(split))


def metrics_of(
    predictions: Mapping[str, Array], split: PackedSplit, meta: PackedMeta, *, weighted: bool = False, k: int | None = None
) -> dict[str, dict[str, Any]]:
    """:func:`task_metrics` of predictions [N] for the rows of a split.

    ``weighted``: also by their weights, if they have any. With ``k`` and a group, also those of :mod:`.ranking`.
    """
    group = None if split.group is None else np.asarray(split.group)
    weight, labels = _weight(split, weighted=weighted), np.asarray(split.labels)
    metrics = task_metrics(predictions, labels, meta.tasks, funnel=meta.funnel, group=group, weight=weight)
    if k is not None and group is not None:
        add_ranking(metrics, event_labels(labels, meta.tasks, funnel=meta.funnel), predictions, group, k)
    return metrics


def _weight(split: PackedSplit, *, weighted: bool) -> Array | None:
    return np.asarray(split.weight) if weighted and split.weight is not None else None


def write_predictions(path: Path, predictions: Mapping[str, Array], labels: Array, tasks: Sequence[str]) -> None:
    """Write each prediction [N] as float32 under its name, and each task's label as ``{task}_label``: 0, 1 or null where it is unknown.

    The file is Parquet. ``labels`` [N, T] are in the order of ``tasks``. Raises :class:`DataError` if two columns would have one name, or
    if the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(values) for name, values in predictions.items()}
    for task, column in zip(tasks, labels.T, strict=True):
        if (name := f"{task}_label") in columns:
            raise DataError(f"predictions {path}: {name} is both a prediction and the label of the task {task}; rename a task")
        unknown = np.isnan(column)
        columns[name] = pa.array(np.where(unknown, 0, column).astype(np.uint8), mask=unknown)
    with writing_output("predictions", path) as beside:
        pq.write_table(pa.table(columns), str(beside))
