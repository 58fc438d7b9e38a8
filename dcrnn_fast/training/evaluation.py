"""A model's predictions and metrics over a whole split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import BlockLoader, PackedMeta, PackedSplit
from ..errors import TrainingDivergedError
from .metrics import Array, task_metrics

BATCH = 8192


@torch.no_grad()
def predict_split(model: nn.Module, split: PackedSplit, device: torch.device) -> dict[str, Array]:
    """``model.predict`` over all rows of a split, in their order: arrays [N] float32 by name. Leaves the model in evaluation mode."""
    model.eval()
    parts: dict[str, list[Array]] = {}
    for batch in BlockLoader(split, BATCH).batches():
        dense = None if batch.dense is None else batch.dense.to(device)
        for name, value in model.predict(batch.ids.to(device), dense).items():  # type: ignore[operator]
            parts.setdefault(name, []).append(value.cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def evaluate_split(model: nn.Module, split: PackedSplit, meta: PackedMeta, device: torch.device) -> dict[str, dict[str, Any]]:
    """Metrics of every task over a split, see :func:`task_metrics`.

    Raises :class:`TrainingDivergedError` if a prediction is not finite.
    """
    predictions = predict_split(model, split, device)
    bad = [name for name, values in predictions.items() if not np.isfinite(values).all()]
    if bad:
        raise TrainingDivergedError(
            f"the predictions {', '.join(bad)} on the {split.name} rows of {meta.name} are not finite: "
            "weights or dense values are too large"
        )
    group = None if split.group is None else np.asarray(split.group)
    return task_metrics(predictions, np.asarray(split.labels), meta.tasks, funnel=meta.funnel, group=group)
