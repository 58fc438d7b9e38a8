"""The third part of the model: a tower for each task, from the recurrence's states to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .cpu_layers import Dropout
from .layers import TaskLinear
from .relations import InformationTransfer


class Towers(nn.Module):
    """Hidden layers with relu and dropout, and a head, for each of T tasks; with ``transfer``, AITM's between them.

    Args:
        widths: D, and the widths of the hidden layers.
        num_tasks: T.
        dropout: probability in [0, 1) after every hidden layer.
        transfer: see :class:`.relations.InformationTransfer`.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        widths: Sequence[int],
        num_tasks: int,
        *,
        dropout: float,
        transfer: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        layers = (TaskLinear(below, width, num_tasks, device=device, dtype=dtype) for below, width in pairwise(widths))
        self.layers = nn.ModuleList(layers)
        self.dropout = Dropout(dropout)
        self.transfer = InformationTransfer(num_tasks, widths[-1], device=device, dtype=dtype) if transfer else None
        self.head = TaskLinear(widths[-1], 1, num_tasks, device=device, dtype=dtype)

    def forward(self, states: Tensor, first_order: Tensor | None = None) -> Tensor:
        """z [B, T] from the states [T, B, D], plus the first-order term [B, T], if there is one."""
        for layer in self.layers:
            states = self.dropout(torch.relu(layer(states)))
        if self.transfer is not None:
            states = self.transfer(states)
        z: Tensor = self.head(states).squeeze(-1).T
        return z if first_order is None else z + first_order
