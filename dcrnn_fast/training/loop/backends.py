"""Lets ``auto`` measure backends for a run before its first step, on a device where it measures."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from ...data import BlockLoader
from ...ops import auto
from ...ops.backends import requested
from ..config import RunConfig
from ..device import autocast
from .progress import Report


def measured_backends(
    config: RunConfig, model: nn.Module, loader: BlockLoader, precision: str, device: torch.device, report: Report
) -> str:
    """Let ``auto`` measure what a training step needs, and return what it takes. Of several ranks, the first one measures for all.

    "" where it does not choose. In the mode ``cached`` nothing is measured: each size takes what the file has.
    """
    if device.type not in auto.DEVICES or auto.mode() == "static" or requested(config.backend) != "auto":
        return ""
    if auto.mode() == "cached":
        return "auto (cached)"
    batch = next(loader.batches())
    try:
        with autocast(precision, device):
            found = auto.tune(model, *(part.to(device) for part in (batch.ids, batch.dense) if part is not None))
    except (IndexError, TypeError, ValueError):  # the first step says what is wrong with the batch
        return ""
    taken = sorted(Counter(choice.backend for choice in found.values()).items())
    shares = [f"{name} for {count} size{'s' * (count != 1)}" for name, count in taken]
    report.note(f"auto takes {', '.join(shares)}")
    return f"auto ({', '.join(name for name, _ in taken)})"
