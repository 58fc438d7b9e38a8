"""``calibration.json``: for each task a map by which a run's probabilities are calibrated. Applying it needs NumPy alone."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...data.inspect.base_rates import Array
from ...errors import CheckpointError
from ..config import in_words
from ..folder.run_files import read_with_digest

Count = Annotated[int, Field(ge=0)]
SMALLEST, LARGEST = 1e-30, 1 - 2**-25
"""Between them a probability in float32 has a finite logit in float64."""


def logits(probabilities: Array) -> Array:
    """The logits in float64 of probabilities; 0 and 1 count as the nearest numbers between :data:`SMALLEST` and :data:`LARGEST`."""
    p = np.clip(probabilities.astype(np.float64), SMALLEST, LARGEST)
    return np.log(p) - np.log1p(-p)


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)) in float64, without overflow."""
    return np.exp(-np.logaddexp(0.0, -z))


class _Map(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    rows: Count
    positives: Count


class Platt(_Map):
    """Platt's map: a line through the logits.

    >>> Platt(method="platt", rows=9, positives=3, slope=0.5, intercept=1.0)(np.array([2.0])).tolist()
    [2.0]
    """

    method: Literal["platt"]
    slope: Annotated[float, Field(ge=0)]
    intercept: float

    def __call__(self, z: Array) -> Array:
        """Logits [N] to calibrated logits [N]."""
        return self.slope * z + self.intercept


class Isotonic(_Map):
    """An isotonic regression: calibrated logits at knots, linear between them and constant beyond.

    >>> Isotonic(method="isotonic", rows=9, positives=3, knots=[-1.0, 1.0], calibrated=[-2.0, 0.0])(np.array([-9.0, 0.0])).tolist()
    [-2.0, -1.0]
    """

    method: Literal["isotonic"]
    knots: list[float]
    calibrated: list[float]

    @model_validator(mode="after")
    def _rises(self) -> Isotonic:
        if not self.knots or len(self.knots) != len(self.calibrated):
            raise ValueError(f"{len(self.knots)} knots and {len(self.calibrated)} calibrated logits, expected one for each of at least one")
        if any(a >= b for a, b in pairwise(self.knots)) or any(a > b for a, b in pairwise(self.calibrated)):
            raise ValueError("expected knots that rise and calibrated logits that never fall")
        return self

    def __call__(self, z: Array) -> Array:
        """Logits [N] to calibrated logits [N]."""
        return np.interp(z, self.knots, self.calibrated)


class Calibration(BaseModel):
    """The maps of a run, by name, and the digest of the weights to whose predictions they were fitted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    weights: str
    split: Literal["train", "valid", "test"]
    maps: dict[str, Annotated[Platt | Isotonic, Field(discriminator="method")]]

    def apply(self, scores: Mapping[str, Array], tasks: Sequence[str], negative_rate: float = 1.0) -> dict[str, Array]:
        """Calibrated probabilities [N] in float32 by name, for the probabilities of ``DCRNN.predict``.

        A later task of a chain is the product of the calibrated one before it and the calibrated conditional, so it is never above it.
        The maps were fitted to rows as they were in the log: ``negative_rate`` is the model's, by which ``scores`` are corrected.
        """
        found: dict[str, Array] = {}
        for name, calibrated in self.maps.items():
            correction = math.log(negative_rate) if name == tasks[0] else 0.0
            found[name] = sigmoid(calibrated(logits(scores[name]) - correction) + correction)
        for before, task in pairwise(tasks):
            if task not in self.maps:
                found[task] = found[before] * found[f"{task}_given_{before}"]
        return {name: found[name].astype(np.float32) for name in scores}


def calibrated_names(about: Mapping[str, Any]) -> list[str]:
    """The names of the maps for a described model: each task or, in a chain, the first and each task given the one before."""
    tasks = about["tasks"]
    if about["relation"] != "chain":
        return list(tasks)
    return [tasks[0], *(f"{task}_given_{before}" for before, task in pairwise(tasks))]


def read_calibration(path: Path, about: Mapping[str, Any], weights: str) -> Calibration | None:
    """The calibration of a run, or None if it has none.

    ``about`` and ``weights`` are the description and the digest of the run's weight file. Raises :class:`CheckpointError` that names the
    file if it is damaged or changed, or was fitted to other weights.
    """
    remedy = "write it again with dcrnn-fast calibrate, or delete it"
    if not os.path.lexists(path):
        return None
    values = read_with_digest(path, remedy)
    try:
        calibration = Calibration.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(f"{path} holds no calibration: {in_words(error.errors()[0], 'the content')}; {remedy}") from error
    if calibration.weights != weights:
        raise CheckpointError(f"{path} was fitted to other weights than those of the run now; {remedy}")
    if sorted(calibration.maps) != sorted(expected := calibrated_names(about)):
        raise CheckpointError(f"{path} has maps of {', '.join(calibration.maps)}, expected {', '.join(expected)}; {remedy}")
    return calibration
