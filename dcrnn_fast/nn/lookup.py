"""What the operator ``features`` reads beside ids and numbers: the tables of a model's embeddings and first-order term, and its bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .model import DCRNN


class Lookup(NamedTuple):
    """A table [V, E], the size and first row of each field, and of binned numbers the lower edges, scales, weights and biases, or none;
    of the first-order term, if there is one, a table [V, T] and the weights of the bins, if there are some.
    """

    table: Tensor
    sizes: Tensor
    offsets: Tensor
    bins: tuple[Tensor, ...] = ()
    first_order: Tensor | None = None
    first_order_weight: Tensor | None = None

    def part(self, fields: Tensor, numbers: Tensor) -> Lookup:
        """The same for some of the fields and numbers, by their positions."""
        bins = tuple(tensor[numbers] for tensor in self.bins) if len(numbers) else ()
        weight = None if self.first_order_weight is None or not len(numbers) else self.first_order_weight[numbers]
        return Lookup(self.table, self.sizes[fields], self.offsets[fields], bins, self.first_order, weight)

    def __call__(
        self, ids: Tensor, dense: Tensor | None, row: Tensor | None = None, places: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """[B, (F + N) * E] of ids [B, F] and numbers [B, N]; with ``row`` and ``places``, copies of the row with these blocks in it.

        And the first-order term float64 [B, T], or None.
        """
        numbers = (dense, *self.bins) if self.bins else (None,) * 5
        x0, term = torch.ops.dcrnn_fast.features.default(
            ids, self.table, self.sizes, self.offsets, *numbers, row, places, self.first_order, self.first_order_weight
        )
        return x0, None if self.first_order is None else term


def lookup(model: DCRNN) -> Lookup:
    """Of all fields of a model, and of its numbers if they are binned."""
    table, layer, term = model.embedding.weight, model.dense_embedding, model.first_order
    bins = [] if layer is None else [layer.lower, layer.scale, layer.weight, layer.bias]
    first = None if term is None or term.table is None else term.table.weight.detach()
    weight = None if first is None or term is None or layer is None or term.dense_weight is None else _exactly(term.dense_weight, table)
    return Lookup(table.detach(), model.sizes, model.offsets, tuple(_exactly(tensor, table) for tensor in bins), first, weight)


def exact(tensor: Tensor) -> torch.dtype:
    """The dtype in which the operators for inference compute beside a tensor."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _exactly(tensor: Tensor, table: Tensor) -> Tensor:
    return tensor.detach().to(exact(table))
