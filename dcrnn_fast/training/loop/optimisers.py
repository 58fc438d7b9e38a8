"""Several optimisers as one."""

from __future__ import annotations

from typing import Any

import torch


class Optimisers:
    """Optimisers that step together, each with parameters of its own: what the trainer and its checkpoints need of one optimiser."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or set them to zero."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self) -> None:
        """Update all parameters."""
        for part in self.parts:
            part.step()
