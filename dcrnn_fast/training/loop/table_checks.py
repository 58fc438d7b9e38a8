"""Checks of a table of which each training step writes the rows of its batch alone, without a pass over the table at every check."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...nn.optim import RowWiseAdagrad
from ..config import OptimiserConfig
from ..folder.tensors import all_finite, total
from .optim import Optimisers, named_parameters


class SparseTable:
    """A table [N, E] and the :class:`RowWiseAdagrad` that trains it.

    The first check of a process reads the whole table. A later one reads the state [N] and the rows of the last step. That says as much: a
    gradient that is not finite leaves such a state for ever, and with a finite state a step adds at most ``lr * sqrt(E)`` to a value.
    ``decay`` is the product of the largest ``lr`` and ``weight_decay``. Above 2, decay alone makes rows grow: every check reads the table.
    """

    def __init__(self, table: nn.Parameter, optimiser: RowWiseAdagrad, decay: float) -> None:
        self._table, self._optimiser, self._decay = table, optimiser, decay
        self._read = False

    def all_finite(self) -> bool:
        """Whether every value of the table is finite."""
        if self._read and self._decay <= 2:
            return all(all_finite(part) for part in self._written())
        self._read = True
        return all_finite(self._table.detach())

    def sum(self) -> float:
        """A sum that is the same on all ranks: of the table before the first step, and later of what :meth:`all_finite` reads."""
        return sum(total(part) for part in self._written() or [self._table.detach()])

    def _written(self) -> list[Tensor]:
        """The state of all rows and the rows of the last step; empty before the first step."""
        if self._table.grad is None:
            return []
        rows = self._table.grad._indices()[0]
        return [self._optimiser.state[self._table]["sum"], torch.index_select(self._table.detach(), 0, rows)]


def sparse_tables(options: OptimiserConfig, optimiser: Optimisers, modules: Mapping[str, nn.Module]) -> dict[str, SparseTable]:
    """The tables that row-wise Adagrad trains, by the names that :func:`.optim.named_parameters` gives them."""
    names = {id(parameter): name for name, parameter in named_parameters(modules)}
    return {
        names[id(table)]: SparseTable(table, part, options.lr * group["lr_scale"] * group["weight_decay"])
        for part in optimiser.parts
        if isinstance(part, RowWiseAdagrad)
        for group in part.param_groups
        for table in group["params"]
    }
