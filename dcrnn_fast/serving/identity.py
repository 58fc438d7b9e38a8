"""The digest that tells one served model from another."""

from __future__ import annotations

from ..support.strict_json import json_digest
from ..training.evaluate.calibration_file import Calibration


def model_id(weights: str, encoding: str, calibration: Calibration | None) -> str:
    """SHA-256, in hex, over the digests of a run's weights, encoder and calibration; without a calibration, over null in its place.

    ``weights`` and ``encoding`` are the digests that ``model.safetensors`` holds. A run folder and all files that are exported from it have
    one id, whatever their format and backend.

    >>> from dcrnn_fast.serving import model_id
    >>> model_id("3f", "9a", None)[:12]
    '444af7a5f1a5'
    """
    calibrated = None if calibration is None else json_digest(calibration.model_dump())
    return json_digest({"calibration": calibrated, "encoder": encoding, "weights": weights})
