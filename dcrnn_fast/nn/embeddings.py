"""What a model makes of a row's ids and numbers: an embedding of each number, one vector of several columns, and the first-order term."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..support.model_inputs import check_edges
from ..support.tracing import in_autocast
from .cpu_layers import Embedding
from .layers import beside


class PiecewiseLinearEmbedding(nn.Module):
    """Dense features [B, N] to N embeddings side by side, [B, N * E].

    Feature n has Q bins with edges e_0 < ... < e_Q. Bin q contributes ``clamp((x - e_q) / (e_{q+1} - e_q), 0, 1)`` of its vector, so the
    embedding is continuous and linear within a bin: the piecewise linear encoding of Gorishniy, Rubachev and Babenko (NeurIPS 2022,
    section 3.2) and a linear layer for each feature. Unlike theirs, the outer bins do not extrapolate: a value beyond the outer edges is
    read as the edge, so that an outlier cannot dominate.

    Parameters: ``weight`` [N, Q, E] and ``bias`` [N, E], which start uniform in +-1/sqrt(Q). Buffers of the state_dict: ``lower`` [N, Q],
    the lower edges, and ``scale`` [N, Q], one over the width of each bin, 0 for a bin that is not used. They start with edges from -2 to 2,
    which suit standardised features; :meth:`set_edges` puts others in place.

    Args:
        num_dense: N.
        embedding_dim: E.
        bins: Q.
        device, dtype: of the parameters. The buffers are float32, and stay so when the module is cast.

    Example:
        >>> import torch
        >>> from dcrnn_fast.nn.embeddings import PiecewiseLinearEmbedding
        >>> layer = PiecewiseLinearEmbedding(num_dense=2, embedding_dim=4, bins=3)
        >>> layer.set_edges([torch.tensor([0.0, 1.0]), torch.tensor([0.0, 5.0, 10.0, 100.0])])
        >>> layer(torch.tensor([[0.5, 20.0]])).shape
        torch.Size([1, 8])
    """

    lower: Tensor
    scale: Tensor

    def __init__(
        self,
        num_dense: int,
        embedding_dim: int,
        bins: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_dense, bins, embedding_dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(num_dense, embedding_dim, device=device, dtype=dtype))
        for name in ("lower", "scale"):
            self.register_buffer(name, torch.empty(num_dense, bins, device=device, dtype=torch.float32))
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
        x = x.to(torch.promote_types(x.dtype, torch.float32)).T.unsqueeze(2)
        bins = x.sub(self.lower.unsqueeze(1)).mul_(self.scale.unsqueeze(1)).clamp_(0, 1)
        return in_autocast(bins.to(self.weight.dtype))[0]


POOLINGS = (None, "mean", "sum")
"""How the embeddings of a field's values become one."""


class Span(NamedTuple):
    """Columns `[start, stop)` of the ids: those of a field with several values, or with `pooling` None, fields of one value."""

    start: int
    stop: int
    pooling: str | None


def spans(columns: Sequence[str], pooled: Mapping[str, Any]) -> list[Span]:
    """The columns in their order, cut into spans; `pooled` as in :mod:`dcrnn_fast.support.pooled_fields`.

    >>> from dcrnn_fast.nn.embeddings import spans
    >>> spans(["city", "day", "tags[0]", "tags[1]"], {"tags": {"columns": ["tags[0]", "tags[1]"], "pooling": "mean"}})
    [Span(start=0, stop=2, pooling=None), Span(start=2, stop=4, pooling='mean')]
    """
    pools = sorted((columns.index(field["columns"][0]), len(field["columns"]), field["pooling"]) for field in pooled.values())
    found, done = [], 0
    for start, length, pooling in pools:
        found += [Span(done, start, None)] if done < start else []
        found.append(Span(start, start + length, pooling))
        done = start + length
    return found + ([Span(done, len(columns), None)] if done < len(columns) else [])


def pool(embedded: Tensor, ids: Tensor, cut: Sequence[Span]) -> Tensor:
    """`embedded` [B, C, E] of `ids` [B, C] to [B, F * E]: side by side, but those of a span with pooling as their sum or mean.

    There id 0 adds nothing and does not count; a row without another id has zeros.

    >>> import torch
    >>> from dcrnn_fast.nn.embeddings import Span, pool
    >>> embedded = torch.tensor([[[1.0], [2.0], [4.0]], [[1.0], [2.0], [9.0]], [[1.0], [9.0], [9.0]]])
    >>> pool(embedded, torch.tensor([[3, 1, 2], [3, 1, 0], [3, 0, 0]]), [Span(0, 1, None), Span(1, 3, "mean")]).tolist()
    [[1.0, 3.0], [1.0, 2.0], [1.0, 0.0]]
    """
    return beside([pool_span(embedded[:, span.start : span.stop], ids[:, span.start : span.stop], span.pooling) for span in cut])


def pool_span(embedded: Tensor, ids: Tensor, pooling: str | None) -> Tensor:
    """The vector of one span's columns."""
    if pooling is None:
        return embedded.flatten(1)
    held = ids != 0
    total = embedded.masked_fill(~held.unsqueeze(-1), 0).sum(1)
    return total if pooling == "sum" else total / held.sum(1, keepdim=True).clamp(min=1).to(total.dtype)


class FirstOrder(nn.Module):
    """Numbers for each id and task, and for each dense feature's bin and task; a row's logits get the sum over its fields and features.

    This is the linear part of a factorisation machine (Rendle, ICDM 2010) and of Wide & Deep (Cheng et al., 2016), one for each task. All
    numbers start at zero.

    Parameters: ``table.weight`` [rows, T], and with dense features ``dense_weight`` [N, bins, T].

    Args:
        rows: of the table of ids; None if another module holds it.
        num_tasks: T.
        num_dense: N, the number of dense features.
        bins: Q, of each of them; 1 where they are read as they are.
        sparse: the table's gradient lists the rows that were read.
        device, dtype: of the parameters.
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
