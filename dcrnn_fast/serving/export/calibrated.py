"""A run's calibration as a module, so that an exported graph gives calibrated probabilities and its reader needs no code for it.

It computes in float64 what :meth:`dcrnn_fast.training.evaluate.calibration_file.Calibration.apply` does, by operators that every format of
`export` has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...training.evaluate.calibration_file import LARGEST, SMALLEST, Calibration, Isotonic, Platt


class Calibrated(nn.Module):
    """Gives the calibrated probabilities of a model: ids, and dense where it takes dense, to probabilities [B] in float32 by name.

    ``tasks`` and ``negative_rate`` are the model's.
    """

    def __init__(self, model: nn.Module, calibration: Calibration, tasks: Sequence[str], negative_rate: float) -> None:
        super().__init__()
        self.model = model
        self.tasks, self.names = tuple(tasks), tuple(calibration.maps)
        rates = [negative_rate if name == tasks[0] else 1.0 for name in self.names]
        # A list, because PyTorch's modules have names of their own that a task may have.
        self.maps = nn.ModuleList(_Map(one, rate) for one, rate in zip(calibration.maps.values(), rates, strict=True))

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] by name, of ids [B, F] and dense [B, Nd]."""
        scores: Mapping[str, Tensor] = self.model(ids) if dense is None else self.model(ids, dense)
        found = {name: calibrated(scores[name]) for name, calibrated in zip(self.names, self.maps, strict=True)}
        for before, task in pairwise(self.tasks):
            if task not in found:
                found[task] = found[before] * found[f"{task}_given_{before}"]
        return {name: found[name].float() for name in scores}


class _Map(nn.Module):
    """Probabilities [B] in float32 to calibrated ones in float64. All numbers are buffers: formats keep these in float64."""

    correction: Tensor
    bounds: Tensor

    def __init__(self, fit: Platt | Isotonic, negative_rate: float) -> None:
        super().__init__()
        self.line = _Line(fit) if isinstance(fit, Platt) else _Steps(fit)
        self.register_buffer("correction", torch.tensor(math.log(negative_rate), dtype=torch.float64))
        self.register_buffer("bounds", torch.tensor([SMALLEST, LARGEST], dtype=torch.float64))

    def forward(self, probabilities: Tensor) -> Tensor:
        p = torch.minimum(torch.maximum(probabilities.double(), self.bounds[0]), self.bounds[1])
        z = torch.log(p) - torch.log1p(-p) - self.correction
        return torch.sigmoid(self.line(z) + self.correction)


class _Line(nn.Module):
    slope: Tensor
    intercept: Tensor

    def __init__(self, fit: Platt) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(fit.slope, dtype=torch.float64))
        self.register_buffer("intercept", torch.tensor(fit.intercept, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.slope * z + self.intercept


class _Steps(nn.Module):
    """NumPy's interpolation. The knot at or below a logit is found by a binary search of as many steps as the number of knots asks for."""

    knots: Tensor
    calibrated: Tensor
    slopes: Tensor

    def __init__(self, fit: Isotonic) -> None:
        super().__init__()
        knots, calibrated = torch.tensor(fit.knots, dtype=torch.float64), torch.tensor(fit.calibrated, dtype=torch.float64)
        self.steps = [2**power for power in reversed(range((len(knots) - 1).bit_length()))]
        # Knots at infinity, which no logit reaches, fill up to a power of two, so that the search needs no bounds.
        infinite = knots.new_full((2 ** len(self.steps) - len(knots),), math.inf)
        self.register_buffer("knots", torch.cat([knots, infinite]))
        self.register_buffer("calibrated", calibrated)
        slopes = (calibrated.diff() / knots.diff()).nan_to_num(posinf=0.0)  # Between knots at a denormal distance lies no logit.
        self.register_buffer("slopes", torch.cat([slopes, knots.new_zeros(1)]))

    def forward(self, z: Tensor) -> Tensor:
        z = torch.maximum(z, self.knots[0])
        at = torch.zeros_like(z, dtype=torch.int64)
        for step in self.steps:
            further = at + step
            at = torch.where(z >= self.knots.index_select(0, further), further, at)
        below = self.knots.index_select(0, at)
        return self.calibrated.index_select(0, at) + self.slopes.index_select(0, at) * (z - below)
