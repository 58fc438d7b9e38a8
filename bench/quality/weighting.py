"""The ways to weigh the tasks' losses: fixed, uncertainty, and DWA and FAMO of torchjd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dcrnn_fast import UncertaintyWeighting

DEFAULT = ("fixed", "uncertainty")
NEEDS_TORCHJD = ("dwa", "famo")
NAMES = (*DEFAULT, *NEEDS_TORCHJD)


class Weighting:
    """The weighting of one run. ``module`` takes the losses [T] to a scalar; None adds them up."""

    def __init__(self, name: str, tasks: int) -> None:
        self.name, self.module = name if tasks > 1 else "fixed", _module(name, tasks) if tasks > 1 else None

    @property
    def trained(self) -> dict[str, nn.Module]:
        """What the model's optimiser trains too. DWA and FAMO see to their weights themselves."""
        return {"weighting": self.module} if self.name == "uncertainty" and self.module else {}

    def after_step(self, losses: Callable[[], Tensor]) -> None:
        """FAMO compares a batch's losses [T] before and after the step: it costs a second forward."""
        if self.name == "famo":
            with torch.no_grad():
                self._torchjd.update(losses())

    def after_epoch(self) -> None:
        """DWA compares the mean losses of the last two epochs."""
        if self.name == "dwa":
            self._torchjd.step()

    @property
    def _torchjd(self) -> Any:
        return self.module


def _module(name: str, tasks: int) -> nn.Module | None:
    if name == "fixed":
        return None
    if name == "uncertainty":
        return UncertaintyWeighting(tasks)
    from torchjd import scalarization

    return scalarization.DWA() if name == "dwa" else scalarization.FAMO(tasks)
