"""The first part of the model: from a row's ids and numbers to what the recurrence and the towers read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..support.fields import table_rows
from ..support.model_inputs import check_dense, check_edges, check_ids, merge_ids
from ..support.tracing import in_autocast
from .cpu_layers import Embedding
from .layers import beside

EMBEDDING, FIRST_ORDER = "features.embedding.weight", "features.first_order.table.weight"
"""The tables of ids, by their names in the model's state_dict."""
POOLINGS = (None, "mean", "sum")
"""How the embeddings of a field's values become one."""


class PiecewiseLinearEmbedding(nn.Module):
    """Dense features [B, N] to N embeddings side by side, [B, N * E].

    Feature n has Q bins with edges e_0 < ... < e_Q. Bin q contributes ``clamp((x - e_q) / (e_{q+1} - e_q), 0, 1)`` of its vector: the
    piecewise linear encoding of Gorishniy, Rubachev and Babenko (NeurIPS 2022, section 3.2) and a linear layer for each feature. Unlike
    theirs, the outer bins do not extrapolate, so that an outlier cannot dominate.

    Parameters: ``weight`` [N, Q, E] and ``bias`` [N, E], which start uniform in +-1/sqrt(Q). Buffers of the state_dict, in float32 also
    when the module is cast: ``lower`` [N, Q], the lower edges of the bins, and ``scale`` [N, Q], one over the width of each bin, 0 for a
    bin that is not used. They start with edges from -2 to 2, which suit standardised features.
    """

    lower: Tensor
    scale: Tensor

    def __init__(self, num_dense: int, embedding_dim: int, bins: int, **place: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_dense, bins, embedding_dim, **place))
        self.bias = nn.Parameter(torch.empty(num_dense, embedding_dim, **place))
        for name in ("lower", "scale"):
            self.register_buffer(name, torch.empty(num_dense, bins, device=self.weight.device, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters, and go back to edges from -2 to 2."""
        bins = self.weight.shape[1]
        self.lower.copy_(torch.linspace(-2, 2, bins + 1, device="cpu", dtype=torch.float32)[:-1])
        self.scale.fill_(bins / 4)
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(bins**-0.5), bins**-0.5)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """A cast leaves the edges in float32: in 16 bits, years are the same number."""
        edges = self.lower, self.scale
        super()._apply(fn, recurse)
        if self.lower.dtype != torch.float32:
            self.lower, self.scale = (values.to(self.weight.device) for values in edges)
        return self

    def set_edges(self, edges: list[Tensor]) -> None:
        """Take the edges of each feature: N tensors of 2 to Q + 1 rising numbers. Bins that are left over stay unused.

        Raises ValueError: another number of tensors, or numbers that do not rise, are not finite, or are too many or too few.
        """
        num_dense, bins = self.lower.shape
        check_edges(edges, num_dense, bins)
        lower, scale = torch.zeros(2, num_dense, bins, device="cpu", dtype=torch.float32)
        for feature, values in enumerate(edges):
            values = values.to("cpu", torch.float32)
            lower[feature, : len(values) - 1] = values[:-1]
            scale[feature, : len(values) - 1] = 1 / (values[1:] - values[:-1])
        self.lower.copy_(lower)
        self.scale.copy_(scale.clamp(max=torch.finfo(torch.float32).max))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, N] to [B, N * E] in the dtype of the parameters."""
        return self.of_bins(self.bins(x))

    def of_bins(self, bins: Tensor) -> Tensor:
        """:meth:`bins` [N, B, Q] to [B, N * E]."""
        return torch.baddbmm(self.bias.unsqueeze(1), bins, self.weight).transpose(0, 1).flatten(1)

    def bins(self, x: Tensor) -> Tensor:
        """How far x [B, N] lies in each bin, [N, B, Q] in [0, 1]. A value is compared with the edges in float32 at least."""
        x = x.to(torch.promote_types(x.dtype, torch.float32)).T.contiguous().unsqueeze(2)  # or the products would copy the bins
        bins = x.sub(self.lower.unsqueeze(1)).mul_(self.scale.unsqueeze(1)).clamp_(0, 1)
        return in_autocast(bins.to(self.weight.dtype))[0]


class Span(NamedTuple):
    """Columns `[start, stop)` of the ids: those of a field with several values, or with `pooling` None, fields of one value."""

    start: int
    stop: int
    pooling: str | None


def spans(columns: Sequence[str], pooled: Mapping[str, Any]) -> list[Span]:
    """The columns in their order, cut into spans; `pooled` as in :mod:`dcrnn_fast.support.fields`."""
    owners = {column: (name, field["pooling"]) for name, field in pooled.items() for column in field["columns"]}
    found = []
    for owner, several in groupby(range(len(columns)), lambda place: owners.get(columns[place])):
        places = list(several)
        found.append(Span(places[0], places[-1] + 1, None if owner is None else owner[1]))
    return found


def pool(embedded: Tensor, ids: Tensor, cut: Sequence[Span]) -> Tensor:
    """`embedded` [B, C, E] of `ids` [B, C] to [B, F * E]: side by side, but those of a span with pooling as their sum or mean."""
    return beside([pool_span(embedded[:, span.start : span.stop], ids[:, span.start : span.stop], span.pooling) for span in cut])


def pool_span(embedded: Tensor, ids: Tensor, pooling: str | None) -> Tensor:
    """The vector of one span's columns. With a pooling, id 0 adds nothing and does not count; a row without another id has zeros."""
    if pooling is None:
        return embedded.flatten(1)
    held = ids != 0
    total = embedded.masked_fill(~held.unsqueeze(-1), 0).sum(1)
    return total if pooling == "sum" else total / held.sum(1, keepdim=True).clamp(min=1).to(total.dtype)


class FirstOrder(nn.Module):
    """Numbers for each id and task, and for each dense feature's bin and task; a row's logits get the sum over its fields and features.

    This is the linear part of a factorisation machine (Rendle, ICDM 2010) and of Wide & Deep (Cheng et al., 2016), one for each task.
    Parameters, which start at zero: ``table.weight`` [rows, T], and with N dense features of Q bins ``dense_weight`` [N, Q, T].

    ``rows`` is None if another module holds the table. Numbers that are read as they are have one bin.
    """

    def __init__(self, rows: int | None, num_tasks: int, num_dense: int = 0, bins: int = 1, *, sparse: bool = False, **place: Any) -> None:
        super().__init__()
        self.table = None
        if rows is not None:  # made from zeros, it draws no random numbers: all other weights start as they do without the term
            self.table = Embedding.from_pretrained(torch.zeros(rows, num_tasks, **place), freeze=not rows, sparse=sparse)
        self.dense_weight = nn.Parameter(torch.empty(num_dense, bins, num_tasks, **place)) if num_dense else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Go back to zeros."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def of_ids(self, rows: Tensor, ids: Tensor, cut: Sequence[Span]) -> Tensor:
        """The sums [B, T] over the fields, of rows of the table [B, C] and their ids [B, C]; see :func:`pool` for ``cut``."""
        assert self.table is not None
        values = self.table(rows)
        if all(span.pooling is None for span in cut):
            return values.sum(1)
        return pool(values, ids, cut).unflatten(1, (-1, values.shape[2])).sum(1)

    def of_numbers(self, encoded: Tensor) -> Tensor:
        """The sums [B, T] over the dense features, of their bins [N, B, Q]."""
        assert self.dense_weight is not None
        return torch.bmm(encoded.to(self.dense_weight.dtype), self.dense_weight).sum(0)


class Inputs(NamedTuple):
    """What :class:`Features` makes of a batch: x0 [B, D]; the first-order term [B, T] and each row's scenario [B], or None."""

    x0: Tensor
    first_order: Tensor | None = None
    scenario: Tensor | None = None


class Features(nn.Module):
    """Ids [B, C] and numbers [B, N] to :class:`Inputs`. :class:`dcrnn_fast.DCRNN` explains the arguments, and has checked them.

    x0 holds the embeddings of all fields side by side, then those of the numbers, or one projection of all numbers. One table holds the
    embeddings of all fields: field f's rows start at offsets[f], which fields that share rows have in common.
    """

    sizes: Tensor
    offsets: Tensor
    without_embedding: Tensor
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
        first_order_only: Sequence[str] = (),
        **place: Any,
    ) -> None:
        super().__init__()
        self.field_names, self.num_embeddings, self.num_tasks, self.num_dense = field_names, num_embeddings, num_tasks, num_dense
        self.embedding_dim, self.embedding_init_std, self.dense_bins = embedding_dim, embedding_init_std, dense_bins
        self.shared_embeddings, self.pooled, self.scenario_column = shared_embeddings, pooled, scenario_column
        self.spans = spans(field_names, pooled)
        self.first_order_only = [name in first_order_only for name in field_names]
        self.rows, self._first_rows = table_rows(field_names, num_embeddings, shared_embeddings)
        self._make_tables(sparse=sparse, first_order=first_order, **place)
        self.dense_projection = nn.Linear(num_dense, embedding_dim, **place) if num_dense and not dense_bins else None
        self.dense_embedding = PiecewiseLinearEmbedding(num_dense, embedding_dim, dense_bins, **place) if num_dense and dense_bins else None
        fields = len(field_names) - sum(len(field["columns"]) - 1 for field in pooled.values())
        self.dim = (fields + (num_dense if dense_bins else bool(num_dense))) * embedding_dim
        """D, the width of x0."""

    def _make_tables(self, *, first_order: bool, **options: Any) -> None:
        bins = max(1, self.dense_bins)
        self.first_order = FirstOrder(self.rows, self.num_tasks, self.num_dense, bins, **options) if first_order else None
        self.embedding = Embedding(self.rows, self.embedding_dim, **options)
        self.embedding.weight.requires_grad_(bool(self.num_embeddings))  # as in layers.parameter
        self.register_load_state_dict_post_hook(_fill_again)
        self.reset_parameters()

    def _fill_constants(self, device: torch.device) -> None:
        """The columns' sizes and first rows, as buffers that are in no state_dict."""
        for name, values in (("sizes", self.num_embeddings), ("offsets", self._first_rows)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64, device=device), persistent=False)
        if any(self.first_order_only):
            columns = torch.tensor(self.first_order_only, device=device).unsqueeze(1)
            self.register_buffer("without_embedding", columns, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """The constants are filled again where ``to_empty`` has given them new memory."""
        before = self._buffers.get("sizes")
        super()._apply(fn, recurse)
        after = self._buffers.get("sizes")
        if after is not None and after is not before:
            self._fill_constants(after.device)
        return self

    def reset_parameters(self) -> None:
        """Draw new embeddings of the ids."""
        self._fill_constants(self.embedding.weight.device)
        nn.init.normal_(self.embedding.weight, std=self.embedding_init_std)
        for rows in self.unread_rows:
            nn.init.zeros_(rows)

    @property
    def unread_rows(self) -> list[Tensor]:
        """The embeddings of the fields that the first-order term alone reads: zeros, which no step moves."""
        starts_sizes = zip(self._first_rows, self.num_embeddings, self.first_order_only, strict=True)
        return [self.embedding.weight.narrow(0, start, size) for start, size, only in starts_sizes if only]

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
            embedded = self.embedding(rows)
            if any(self.first_order_only):
                embedded = embedded.masked_fill(self.without_embedding, 0)
            of_ids.append(pool(embedded, read, self.spans))
        term = None
        if self.first_order is not None:
            term = self.first_order.of_ids(rows if read is ids else self._rows(ids, in_range), ids, self.spans)
        scenario = None if self.scenario_column is None else read[:, self.scenario_column]
        return Inputs(*self._with_numbers(of_ids, term, dense), scenario)

    def _rows(self, ids: Tensor, in_range: bool) -> Tensor:
        return merge_ids(ids, self.sizes, self.offsets, self.embedding.num_embeddings, checked=in_range)

    def _with_numbers(self, of_ids: list[Tensor], term: Tensor | None, dense: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x0 [B, D] and the first-order term [B, T] or None, from those of the ids and the numbers [B, N] or None."""
        if dense is None:
            return torch.cat(of_ids, dim=1), term
        if self.dense_embedding is not None:
            bins = self.dense_embedding.bins(dense)
            of_numbers = self.dense_embedding.of_bins(bins)
        else:
            assert self.dense_projection is not None
            bins = dense.T.unsqueeze(2)
            of_numbers = self.dense_projection(dense.to(self.dense_projection.weight.dtype))
        if term is not None and self.first_order is not None:
            term = term + self.first_order.of_numbers(bins)
        return torch.cat(in_autocast(*of_ids, of_numbers), dim=1), term


def _fill_again(features: Features, _: object) -> None:
    """When a state_dict has brought parameters: on their device, but those that FSDP keeps on the CPU are computed with elsewhere."""
    weight = features.embedding.weight
    features._fill_constants(weight.device if features.sizes.is_meta or type(weight) is nn.Parameter else features.sizes.device)
