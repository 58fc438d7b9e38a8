"""The contract of the operators that only inference calls: ``request_pack`` and ``request``. They run on the CPU, without a derivative.

A model's tables and weights become one block of memory once, and then one call takes a request from ids and numbers to its answer.
csrc/ops.cpp describes the arguments, and the operators check them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendUnavailable
from .autograd import register_derivative, save_nothing

MULTIPLE = 16
"""The widths of a tower's hidden layers are multiples of it."""
NO_VALUES = "table and the other tensors: expected ones with values, which a traced or meta tensor has not; trace the model itself"


def _request_pack(
    table: Tensor,
    sizes: Tensor,
    offsets: Tensor,
    starts: Tensor,
    pooling: Tensor,
    lower: Tensor | None,
    scale: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    first_order_weight: Tensor | None,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    shared_projection: Tensor,
    private_projection: Tensor,
    steps: int,
    cell: str,
    towers: Tensor,
    widths: Tensor,
    first_order: bool,
    chain: bool,
) -> Tensor:
    raise ValueError(NO_VALUES)


def _request(
    ids: Tensor,
    dense: Tensor | None,
    table: Tensor,
    first_order: Tensor | None,
    packed: Tensor,
    log_rate: float = 0.0,
    probabilities: bool = False,
) -> Tensor:
    raise ValueError(NO_VALUES)


OPERATORS: dict[str, Callable[..., Any]] = {"request_pack": _request_pack, "request": _request}


def register_derivatives(namespace: str) -> None:
    """Make a derivative of these operators an error that says what to do instead."""
    for name in OPERATORS:
        register_derivative(getattr(getattr(torch.ops, namespace), name).default, save_nothing, _no_derivative)


def _no_derivative(ctx: Any, *grads: Tensor | None) -> Sequence[Tensor]:
    raise BackendUnavailable("the operators request_pack and request are for inference and have no derivative: train the model itself")
