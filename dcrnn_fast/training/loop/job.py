"""What a run is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...data import PackedDataset
from ..config import RunConfig
from ..folder.layout import RunFolder
from ..ranks import ONE, Ranks
from .progress import Report


@dataclass(frozen=True)
class Job:
    """One model to train on one data set inside one run folder, on these ranks; see :func:`dcrnn_fast.training.train`."""

    config: RunConfig
    dataset: PackedDataset
    folder: RunFolder
    report: Report
    device: torch.device
    ranks: Ranks = ONE
