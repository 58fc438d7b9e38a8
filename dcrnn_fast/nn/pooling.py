"""The embeddings of a row's columns as one vector, in which a field with several values has one embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """Columns `[start, stop)` of the ids: those of a field with several values, or with `pooling` None, fields of one value."""

    start: int
    stop: int
    pooling: str | None


def spans(columns: Sequence[str], pooled: Mapping[str, Any]) -> list[Span]:
    """The columns in their order, cut into spans; `pooled` as in :mod:`dcrnn_fast.support.pooled_fields`.

    >>> from dcrnn_fast.nn.pooling import spans
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
    >>> from dcrnn_fast.nn.pooling import Span, pool
    >>> embedded = torch.tensor([[[1.0], [2.0], [4.0]], [[1.0], [2.0], [9.0]], [[1.0], [9.0], [9.0]]])
    >>> pool(embedded, torch.tensor([[3, 1, 2], [3, 1, 0], [3, 0, 0]]), [Span(0, 1, None), Span(1, 3, "mean")]).tolist()
    [[1.0, 3.0], [1.0, 2.0], [1.0, 0.0]]
    """
    return torch.cat([pool_span(embedded[:, span.start : span.stop], ids[:, span.start : span.stop], span.pooling) for span in cut], dim=1)


def pool_span(embedded: Tensor, ids: Tensor, pooling: str | None) -> Tensor:
    """The vector of one span's columns."""
    if pooling is None:
        return embedded.flatten(1)
    held = ids != 0
    total = embedded.masked_fill(~held.unsqueeze(-1), 0).sum(1)
    return total if pooling == "sum" else total / held.sum(1, keepdim=True).clamp(min=1).to(total.dtype)
