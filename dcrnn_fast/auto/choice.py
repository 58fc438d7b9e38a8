"""What ``auto`` chooses by, and what it chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

STATIC = "reference"
"""What is taken where nothing was measured: the one implementation that needs no check."""


@dataclass(frozen=True, order=True)
class Key:
    """What a choice depends on. ``kind`` is the dtype as the products see it, ``rows`` the batch size by :func:`bucket`."""

    operator: str
    training: bool
    kind: str
    dim: int
    context: int
    gates: int
    tasks: int
    steps: int
    rows: int
    tied: bool
    return_states: bool
    recompute: bool


@dataclass(frozen=True)
class Choice:
    """The backend to take, its time over the reference's, and why others were refused. ``lasting``: it may be kept in a file."""

    backend: str
    ratio: float = 1.0
    refused: Mapping[str, str] = field(default_factory=dict)
    lasting: bool = True

    def __str__(self) -> str:
        refused = "; ".join(f"{name} refused: {why}" for name, why in self.refused.items())
        return f"{self.backend}, {self.ratio:.2f} of the reference's time{'; ' * bool(refused)}{refused}"


def bucket(rows: int) -> int:
    """``rows`` rounded up to a power of four, at least 16."""
    size = 16
    while size < rows:
        size *= 4
    return size
