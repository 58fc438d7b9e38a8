"""What ``auto`` chooses by, and what it chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import cross_rnn, low_rank_cross_rnn, param_gather

STATIC = "reference"
"""What is taken where nothing was measured: the one implementation that needs no check."""

CONTRACTS = {"param_gather": param_gather, "cross_rnn": cross_rnn, "low_rank_cross_rnn": low_rank_cross_rnn}
INPUTS = {name: contract.INPUTS for name, contract in CONTRACTS.items()}
"""The differentiable inputs of each operator."""
SIZES = {name: contract.SIZES for name, contract in CONTRACTS.items()}
"""The sizes on which the time of each operator depends, but the batch size."""


class Key(NamedTuple):
    """What a choice depends on.

    ``kind`` is the dtype as the products see it, ``needs`` names the :data:`INPUTS` that need a gradient (none in inference), ``sizes`` are
    in the order of :data:`SIZES`, ``batch`` is the batch size by :func:`bucket`, or 0 for an operator without a batch.
    """

    operator: str
    kind: str
    needs: tuple[str, ...]
    sizes: tuple[int, ...]
    batch: int

    def columns(self) -> dict[str, str]:
        """The fields as text, for people."""
        return {
            "operator": self.operator,
            "kind": self.kind,
            "gradients": "+".join(self.needs) or "none",
            "sizes": " ".join(f"{name}={size:d}" for name, size in zip(SIZES[self.operator], self.sizes, strict=True)),
            "batch": f"<={self.batch}" if self.batch else "-",
        }

    def __str__(self) -> str:
        shown = self.columns()
        batch = f" batch{shown['batch']}" if self.batch else ""
        return f"{shown['operator']}({shown['kind']}, {shown['sizes']}{batch}, gradients: {shown['gradients']})"


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
