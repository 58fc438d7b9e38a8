"""Lets ``auto`` measure backends for a run before it compiles a graph or makes a step, on a device where it measures."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from ...data import BlockLoader, PackedDataset
from ...ops import auto
from ...ops.backends import requested
from ..config import RunConfig
from ..device import autocast
from ..evaluate.predict import BATCH
from .progress import Report


def measured_backends(
    config: RunConfig, model: nn.Module, loader: BlockLoader, dataset: PackedDataset, precision: str, device: torch.device, report: Report
) -> str:
    """Let ``auto`` measure what training steps and evaluations need, and return what it takes. Rank 0 measures for all ranks.

    ``loader`` has the batches of the steps. "" where ``auto`` does not choose. In the mode ``cached`` nothing is measured: each size takes
    what the file has.
    """
    if device.type not in auto.DEVICES or auto.mode() == "static" or requested(config.backend) != "auto":
        return ""
    if auto.mode() == "cached":
        return "auto (cached)"
    found: dict[auto.Key, auto.Choice] = {}
    try:
        with autocast(precision, device):
            for inputs in _first_and_last(loader, device):
                found |= auto.tune(model, *inputs)
        for name in ("valid", "test"):  # in float32
            for inputs in _first_and_last(BlockLoader(dataset.split(name), BATCH), device):
                found |= auto.tune(model, *inputs, training=False)
    except (IndexError, TypeError, ValueError):  # the first step says what is wrong with the batch
        return ""
    taken = sorted(Counter(choice.backend for choice in found.values()).items())
    shares = [f"{name} for {count} size{'s' * (count != 1)}" for name, count in taken]
    report.note(f"auto takes {', '.join(shares)}")
    return f"auto ({', '.join(name for name, _ in taken)})"


def _first_and_last(loader: BlockLoader, device: torch.device) -> list[list[torch.Tensor]]:
    """What a model is called with for the first batch and, if the last one is shorter, for so many of its rows; as many on every rank."""
    batch, rows_left = next(loader.batches()), len(loader.split) % loader.batch_size
    inputs = [part.to(device) for part in (batch.ids, batch.dense) if part is not None]
    return [inputs, [part[: rows_left // loader.shards] for part in inputs]] if rows_left else [inputs]
