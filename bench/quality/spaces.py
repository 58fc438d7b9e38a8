"""The search spaces, which spaces.yaml holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Space = dict[str, dict[str, Any]]
SPACES: dict[str, dict[str, Space]] = yaml.safe_load(Path(__file__).with_name("spaces.yaml").read_text(encoding="utf-8"))
COMMON: Space = SPACES["common"]  # type: ignore[assignment]
WHOLE = ("epochs", "min_samples_leaf", "min_data_in_leaf")
"""Numbers that are whole."""


def space(name: str) -> Space:
    """The space of a model; empty where nothing is tuned."""
    return COMMON | SPACES["networks"][name] if name in SPACES["networks"] else SPACES["others"].get(name, {})


def defaults(space: Space) -> dict[str, Any]:
    """The setting of trial 0."""
    return {name: part["default"] for name, part in space.items()}
