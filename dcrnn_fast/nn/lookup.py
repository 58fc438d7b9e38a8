"""What the operator ``features`` reads: a model's tables and bins, and of a user with many items, which columns are whose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..support.checks import check_choice, check_count, check_tensor

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


class Part:
    """The user's columns, or the items': of ids by position ``fields``, and of dense numbers by position ``numbers``."""

    def __init__(self, whose: str, model: DCRNN, fields: Sequence[int], numbers: Sequence[int], lookup: Lookup | None) -> None:
        self._whose = whose
        device = model.embedding.weight.device
        self.fields = torch.tensor(fields, dtype=torch.int64, device=device)
        self.numbers = torch.tensor(numbers, dtype=torch.int64, device=device)
        self.blocks = torch.cat([self.fields, len(model.num_embeddings) + self.numbers])  # of x0, one a field and a binned number
        self.lookup = None if lookup is None else lookup.part(self.fields, self.numbers)

    def check(self, ids: Tensor, dense: Tensor | None) -> None:
        """Raise TypeError or ValueError unless ids are [F] of the user or [N, F] of items, and dense too, or None where F is 0."""
        rows: list[Any] = ["N"] if self._whose == "item" else []
        for name, value, columns in (("ids", ids, self.fields), ("dense", dense, self.numbers)):
            if value is None and name == "dense" and not len(columns):
                continue
            expected = [*rows, len(columns)]
            words = f"[{', '.join(map(str, expected))}]"
            check_tensor(f"{self._whose}_{name}", value, f"numbers {words}")
            assert value is not None
            shape = list(value.shape)
            if len(shape) != len(expected) or shape[-1:] != expected[-1:] or (rows and rows != ["N"] and shape[:1] != rows):
                raise ValueError(f"{self._whose}_{name}: got shape {shape}, expected {words}")
            rows = shape[:-1]


class Split:
    """A model's columns, divided into the items' and the user's, which are all others."""

    def __init__(self, model: DCRNN, item_fields: Sequence[str], item_numbers: Sequence[int], lookup: Lookup | None = None) -> None:
        """``lookup`` is that of the whole model, which :meth:`features` needs.

        Raises TypeError, ValueError: a field or a number that the model does not have, or one given twice.
        """
        names = model.field_names
        for field in item_fields:
            check_choice("item_fields: a field", field, names)
        for number in item_numbers:
            check_count("item_numbers: a column of dense", number, minimum=0, maximum=model.num_dense - 1)
        for name, given in (("item_fields", item_fields), ("item_numbers", item_numbers)):
            if len(set(given)) < len(given):
                raise ValueError(f"{name}={list(given)}: expected each one once")
        fields = [names.index(field) for field in item_fields]
        self.items = Part("item", model, fields, list(item_numbers), lookup)
        self.user = Part("user", model, _others(len(names), fields), _others(model.num_dense, item_numbers), lookup)
        self._scenario = model.scenario_column

    def scenarios(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, ...]:
        """The scenario [N] of each row, or nothing in a model without scenarios."""
        if self._scenario is None:
            return ()
        of_items = self.items.fields == self._scenario
        return (item_ids[:, of_items].squeeze(1) if of_items.any() else user_ids[self.user.fields == self._scenario].expand(len(item_ids)),)

    def ids(self, user: Tensor, items: Tensor) -> Tensor:
        """Rows of ids [N, F], each of which repeats the user's."""
        return _side_by_side(self.user.fields, user, self.items.fields, items, len(items))

    def dense(self, user: Tensor | None, items: Tensor | None, rows: int) -> Tensor | None:
        """Rows of numbers [N, Nd], each of which repeats the user's; None where there are none."""
        if user is None or items is None:
            given = user if user is not None else items
            return given if given is None else given.expand(rows, -1)
        return _side_by_side(self.user.numbers, user, self.items.numbers, items, rows)

    def features(
        self, user_ids: Tensor, item_ids: Tensor, user_dense: Tensor | None, item_dense: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """x0 [N, D] and the first-order term float64 [N, T], or None, by the operator ``features``, of the user once."""
        user, items = self.user.lookup, self.items.lookup
        assert user is not None
        assert items is not None
        nothing = user.table.new_zeros((len(self.user.blocks) + len(self.items.blocks)) * user.table.shape[1])
        row, of_user = user(user_ids.unsqueeze(0), None if user_dense is None else user_dense.unsqueeze(0), nothing, self.user.blocks)
        x0, term = items(item_ids, item_dense, row[0], self.items.blocks)
        return x0, None if term is None or of_user is None else term.add_(of_user)


def _others(count: int, taken: Sequence[int]) -> list[int]:
    return [place for place in range(count) if place not in taken]


def _side_by_side(user_places: Tensor, user: Tensor, item_places: Tensor, items: Tensor, rows: int) -> Tensor:
    dtype = torch.promote_types(user.dtype, items.dtype)
    found = torch.empty(rows, len(user_places) + len(item_places), dtype=dtype, device=items.device)
    found[:, user_places] = user.to(dtype)
    found[:, item_places] = items.to(dtype)
    return found
