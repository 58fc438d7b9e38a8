"""The operator ``low_rank_cross_rnn``: as :mod:`.cross_rnn`, with a projection to r columns between what a unit reads and its weights.

It saves z and y, which are few, and are enough to compute the states again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from . import cross_rnn
from .cross_rnn import DEFAULTS, OPTIONS, SAVED, TENSORS

INPUTS = (*cross_rnn.INPUTS, "shared_projection", "private_projection")
"""The differentiable arguments, in the order of the gradients."""
PROJECTIONS = "Tensor shared_projection, Tensor private_projection"
SCHEMA = f"({TENSORS}, {PROJECTIONS}, {DEFAULTS}) -> (Tensor, Tensor)"
SCHEMA_BACKWARD = f"({SAVED}, {TENSORS}, {PROJECTIONS}, {OPTIONS}) -> ({', '.join(['Tensor'] * 8)})"


def _with_projections(function: Callable[..., Any], first: int) -> Callable[..., Any]:
    """A function of :mod:`.cross_rnn`, for the arguments of this operator: the projections are those from the position ``first`` on."""

    def call(*arguments: Any) -> Any:
        return function(*arguments[:first], *arguments[first + 2 :], projections=arguments[first : first + 2])

    return call


check, check_backward = _with_projections(cross_rnn.check, 5), _with_projections(cross_rnn.check_backward, 8)
fake, fake_backward = _with_projections(cross_rnn.fake, 5), _with_projections(cross_rnn.fake_backward, 8)
by_plain_pytorch = cross_rnn.by_plain_pytorch
register_autograd = partial(cross_rnn.register_autograd, operator="low_rank_cross_rnn")
