"""PyTorch's embedding and dropout, with less work on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..support.tracing import transformed


class Embedding(nn.Embedding):
    """:class:`torch.nn.Embedding`, whose gradient costs less on a CPU. In float32 and float64 it has the same bits.

    PyTorch adds up the gradient of ``embedding`` by a call for each looked-up row, and that of ``index_select`` in one loop over all of
    them, in float32 for 16-bit tables. On a GPU the second adds in no fixed order, so there, in compiled graphs and with ``sparse=True``
    this is ``embedding``. Under ``torch.func`` and in forward mode, which have no rules for sparse tensors, all gradients are dense.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Integers [...] in [0, num_embeddings) to [..., embedding_dim]."""
        sparse = self.sparse and not transformed()
        if sparse or not self.weight.is_cpu or torch.compiler.is_compiling():
            return nn.functional.embedding(rows, self.weight, sparse=sparse)
        return self.weight.index_select(0, rows.flatten()).view(*rows.shape, self.embedding_dim)


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout`, whose masks cost less on a CPU: it draws 16 random bits a value, where PyTorch draws 64.

    The probability is rounded to a multiple of 2**-16, and what is kept is divided by the rounded share, so that a value's expectation is
    exact. The masks depend on the state of PyTorch's global CPU generator alone; they are others than those of ``torch.nn.Dropout``, which
    this is on a GPU, in compiled graphs, under ``torch.func`` and in forward mode.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with each value zeroed with probability p, or else divided by 1 - p; ``x`` itself in evaluation mode."""
        if not self.training or self.p == 0:
            return x
        if not x.is_cpu or torch.compiler.is_compiling() or transformed():
            return super().forward(x)
        words = x.new_empty((x.numel() + 3) // 4, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        numbers = words.view(torch.int16)[: x.numel()].view(x.shape)
        # The lowest numbers drop a value. The comparison writes floats, which no cast must follow.
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        mask = torch.ge(numbers, dropped - 2**15, out=x.new_empty(x.shape))
        return x * mask.mul_(1 / (1 - dropped / 2**16))
