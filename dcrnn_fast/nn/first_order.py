"""The first-order term: what each id and each number says about a task by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .cpu_layers import Embedding
from .pooling import Span, pool


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
        """The sums [B, T] over the fields, of rows of the table [B, C] and their ids [B, C]; see :mod:`.pooling` for ``cut``."""
        assert self.table is not None
        values = self.table(rows)
        if all(span.pooling is None for span in cut):
            return values.sum(1)
        return pool(values, ids, cut).unflatten(1, (-1, values.shape[2])).sum(1)

    def of_numbers(self, encoded: Tensor) -> Tensor:
        """The sums [B, T] over the dense features, of their bins [B, N, Q]."""
        assert self.dense_weight is not None
        return encoded.flatten(1).to(self.dense_weight.dtype) @ self.dense_weight.flatten(0, 1)


def with_first_order(z: Tensor, term: Tensor | None) -> Tensor:
    """The towers' outputs [B, T] with the term, if there is one."""
    return z if term is None else z + term
