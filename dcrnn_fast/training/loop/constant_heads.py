"""The constant as a state of a model: heads by which it predicts the base rate of the train rows for every row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

SMALLEST = 1e-7


@contextmanager
def constant_heads(model: nn.Module, rates: Mapping[str, float], tasks: Sequence[str], *, chain: bool) -> Iterator[None]:
    """Within the block, a DCRNN predicts ``rates[task]`` for every row; afterwards its heads are what they were.

    The heads' weights are 0 and their biases are the rates' logits, so the weights of such a model are those of the constant.

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
