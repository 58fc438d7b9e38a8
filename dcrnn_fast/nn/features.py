"""The first part of the model: from a row's ids and numbers to what the recurrence and the towers read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..support.model_inputs import check_dense, check_ids, merge_ids, table_rows
from ..support.tracing import in_autocast
from .cpu_layers import Embedding
from .embeddings import FirstOrder, PiecewiseLinearEmbedding, pool, spans
from .layers import WithConstants

EMBEDDING, FIRST_ORDER = "features.embedding.weight", "features.first_order.table.weight"
"""The tables of ids, by their names in the model's state_dict."""


class Inputs(NamedTuple):
    """What :class:`Features` makes of a batch: x0 [B, D]; the first-order term [B, T] and each row's scenario [B], or None."""

    x0: Tensor
    first_order: Tensor | None = None
    scenario: Tensor | None = None


class Features(WithConstants):
    """Ids [B, C] and numbers [B, N] to :class:`Inputs`. :class:`dcrnn_fast.DCRNN` explains the arguments, and has checked them.

    x0 holds the embeddings of all fields side by side, then those of the numbers, or one projection of all numbers. One table holds the
    embeddings of all fields: field f's rows start at offsets[f], which fields that share rows have in common.
    """

    sizes: Tensor
    offsets: Tensor
    id_dropout: Callable[[Tensor], Tensor] | None = None
    """In training mode, changes the ids [B, C] whose embeddings are read. The first-order term reads them as they are."""

    def __init__(
        self,
        field_names: Sequence[str],
        num_embeddings: Sequence[int],
        num_tasks: int,
        *,
        num_dense: int,
        embedding_dim: int,
        embedding_init_std: float,
        dense_bins: int,
        shared_embeddings: Mapping[str, str],
        pooled: Mapping[str, Mapping[str, Any]],
        scenario_column: int | None,
        sparse: bool,
        first_order: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.field_names, self.num_embeddings, self.num_tasks, self.num_dense = field_names, num_embeddings, num_tasks, num_dense
        self.embedding_dim, self.embedding_init_std, self.dense_bins = embedding_dim, embedding_init_std, dense_bins
        self.shared_embeddings, self.pooled, self.scenario_column = shared_embeddings, pooled, scenario_column
        self.spans = spans(field_names, pooled)
        self.first_order = self._first_order(sparse=sparse, **place) if first_order else None
        self._make_tables(sparse=sparse, **place)
        self.dense_projection = nn.Linear(num_dense, embedding_dim, **place) if num_dense and not dense_bins else None
        self.dense_embedding = PiecewiseLinearEmbedding(num_dense, embedding_dim, dense_bins, **place) if num_dense and dense_bins else None
        fields = len(field_names) - sum(len(field["columns"]) - 1 for field in pooled.values())
        self.dim = (fields + (num_dense if dense_bins else bool(num_dense))) * embedding_dim
        """D, the width of x0."""

    def _make_tables(self, *, sparse: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        rows, _ = table_rows(self.field_names, self.num_embeddings, self.shared_embeddings)
        self.embedding = Embedding(rows, self.embedding_dim, sparse=sparse, device=device, dtype=dtype)
        self.embedding.weight.requires_grad_(bool(self.num_embeddings))  # as in layers.parameter
        self.reset_parameters()

    def _first_order(self, *, sparse: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> FirstOrder:
        (rows, _), bins = table_rows(self.field_names, self.num_embeddings, self.shared_embeddings), max(1, self.dense_bins)
        return FirstOrder(rows, self.num_tasks, self.num_dense, bins, sparse=sparse, device=device, dtype=dtype)

    def _constants(self) -> dict[str, Tensor]:
        _, offsets = table_rows(self.field_names, self.num_embeddings, self.shared_embeddings)
        numbers = {"sizes": self.num_embeddings, "offsets": offsets}
        return {name: torch.tensor(values, dtype=torch.int64, device="cpu") for name, values in numbers.items()}

    def reset_parameters(self) -> None:
        """Draw new embeddings of the ids."""
        self._fill_constants(self.embedding.weight.device)
        nn.init.normal_(self.embedding.weight, std=self.embedding_init_std)

    @property
    def id_tables(self) -> list[Tensor]:
        """The tables that ids index: the embeddings, and the first-order term's."""
        first = [] if self.first_order is None or self.first_order.table is None else [self.first_order.table.weight]
        return [self.embedding.weight, *first]

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Inputs:
        """What the model reads of a batch. Raises IndexError, TypeError, ValueError as :meth:`dcrnn_fast.DCRNN.forward` does."""
        in_range = check_ids(ids, self.num_embeddings, self.field_names)
        check_dense(dense, ids.shape[0], self.num_dense)
        read = ids if self.id_dropout is None or not self.training else self.id_dropout(ids)
        rows, of_ids = self._rows(read, in_range), []
        if self.num_embeddings:
            of_ids.append(pool(self.embedding(rows), read, self.spans))
        bins = self._bins(dense)
        term = None
        if self.first_order is not None:
            term = self.first_order.of_ids(rows if read is ids else self._rows(ids, in_range), ids, self.spans)
        scenario = None if self.scenario_column is None else read[:, self.scenario_column]
        x0 = torch.cat(in_autocast(*of_ids, *self._of_numbers(dense, bins)), dim=1)
        return Inputs(x0, self._with_numbers(term, bins), scenario)

    def _rows(self, ids: Tensor, in_range: bool) -> Tensor:
        return merge_ids(ids, self.sizes, self.offsets, self.embedding.num_embeddings, checked=in_range)

    def _bins(self, dense: Tensor | None) -> Tensor | None:
        """How far each number lies in each of its bins, [N, B, Q]; the numbers themselves [N, B, 1] where all have one projection."""
        if dense is None:
            return None
        return dense.T.unsqueeze(2) if self.dense_embedding is None else self.dense_embedding.bins(dense)

    def _of_numbers(self, dense: Tensor | None, bins: Tensor | None) -> list[Tensor]:
        """The numbers' part of x0, [B, N * E] or [B, E], or nothing where there are none."""
        if dense is None or bins is None:
            return []
        if self.dense_projection is not None:
            return [self.dense_projection(dense.to(self.dense_projection.weight.dtype))]
        return [] if self.dense_embedding is None else [self.dense_embedding.of_bins(bins)]

    def _with_numbers(self, term: Tensor | None, bins: Tensor | None) -> Tensor | None:
        """The first-order term of ids [B, T] with that of the numbers."""
        return term if term is None or bins is None or self.first_order is None else term + self.first_order.of_numbers(bins)
