"""What the operator ``features`` reads beside ids and numbers: a table, and what a number's bins hold in its width."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .model import DCRNN


class Lookup(NamedTuple):
    """A table [V, E], the size and first row of each field, and of binned numbers the lower edges, scales, weights and biases, or none."""

    table: Tensor
    sizes: Tensor
    offsets: Tensor
    bins: tuple[Tensor, ...] = ()

    def part(self, fields: Tensor, numbers: Tensor) -> Lookup:
        """The same for some of the fields and numbers, by their positions."""
        bins = tuple(tensor[numbers] for tensor in self.bins) if len(numbers) else ()
        return Lookup(self.table, self.sizes[fields], self.offsets[fields], bins)

    def __call__(self, ids: Tensor, dense: Tensor | None, row: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """[B, (F + N) * E] of ids [B, F] and numbers [B, N]; with ``row`` and ``places``, copies of the row with these blocks in it."""
        numbers = (dense, *self.bins) if self.bins else (None,) * 5
        return torch.ops.dcrnn_fast.features.default(ids, self.table, self.sizes, self.offsets, *numbers, row, places)


def embeddings(model: DCRNN) -> Lookup:
    """Of the embeddings of ids, and of numbers that have their own."""
    table, layer = model.embedding.weight.detach(), model.dense_embedding
    bins = () if layer is None else (layer.lower, layer.scale, layer.weight, layer.bias)
    return Lookup(table, model.sizes, model.offsets, tuple(tensor.detach().to(exact(table)) for tensor in bins))


def first_order(model: DCRNN) -> Lookup | None:
    """Of the first-order term; None in a model without it."""
    if model.first_order is None or model.first_order.table is None:
        return None
    table, layer, weight = model.first_order.table.weight.detach(), model.dense_embedding, model.first_order.dense_weight
    bins = () if layer is None or weight is None else (layer.lower, layer.scale, weight, weight.new_zeros(weight.shape[::2]))
    return Lookup(table, model.sizes, model.offsets, tuple(tensor.detach().to(exact(table)) for tensor in bins))


def exact(tensor: Tensor) -> torch.dtype:
    """The dtype in which the operators for inference compute beside a tensor."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
