"""Prepares a model for its first step: heads that predict the base rates, and edges of the numeric embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...data.build.apply import bucket_edges

SMALLEST = 1e-7
"""A rate of 0 counts as this one, and a rate of 1 as one minus this."""
MOST_ROWS = 1_000_000
"""Rows from which edges are learnt at most; of more rows, evenly spaced ones are taken."""


@contextmanager
def constant_heads(model: nn.Module, rates: Mapping[str, float], tasks: Sequence[str], *, chain: bool) -> Iterator[None]:
    """Within the block, a DCRNN predicts ``rates[task]`` for every row; afterwards its heads are what they were.

    The heads' weights are 0 and their biases are the rates' logits, so such a model is the constant.

    Args:
        model: it has one head a task, ``model.head``.
        rates: see :func:`dcrnn_fast.data.inspect.base_rates.base_rates`. A task without one has 0.5; a rate of 0 or 1
            counts as 1e-7 from it.
        tasks: in the order of the heads.
        chain: whether a head gives the event given the one before it: then its rate is the quotient of both tasks' rates.
    """
    head = model.head
    assert isinstance(head, nn.Module)
    weight, bias = head.get_parameter("private_weight"), head.get_parameter("private_bias")
    logits = []
    for at, task in enumerate(tasks):
        rate = rates.get(task, 0.5)
        before = rates.get(tasks[at - 1], 0.5) if chain and at else 1.0
        logits.append(_logit(rate / before if before else rate))
    before_the_block = weight.detach().clone(), bias.detach().clone()
    with torch.no_grad():
        weight.zero_()
        bias.copy_(torch.tensor(logits, dtype=torch.float64).unsqueeze(1))
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before_the_block[0])
            bias.copy_(before_the_block[1])


def _logit(rate: float) -> float:
    rate = min(max(rate, SMALLEST), 1 - SMALLEST)
    return math.log(rate) - math.log1p(-rate)


def dense_edges(dense: npt.NDArray[np.float32], bins: int) -> list[Tensor]:
    """For each dense column of ``dense`` [R, N] the rising edges of at most ``bins`` bins, as float32.

    Between the smallest and the largest value they are the edges of :func:`dcrnn_fast.data.codes.quantiles.bucket_edges`: quantiles, with
    frequent values kept apart. A column of one value gets one bin above it.
    """
    rows = dense[:: -(-len(dense) // MOST_ROWS)]
    return [torch.from_numpy(_edges(rows[:, column].astype(np.float64), bins)) for column in range(dense.shape[1])]


def _edges(values: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.float32]:
    ends = [values.min(), values.max()] if values.min() < values.max() else [values[0], values[0] + 1]
    for buckets in range(bins, 1, -1):
        edges = np.unique(np.concatenate([ends, bucket_edges(values, buckets)]).astype(np.float32))
        if len(edges) <= bins + 1:  # a frequent value can split a bucket in two
            return edges
    return np.unique(np.array(ends, dtype=np.float32))
