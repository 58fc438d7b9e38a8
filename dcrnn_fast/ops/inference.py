"""The operators that only inference calls: ``request_pack`` and ``request``. They run on the CPU alone, and check their arguments.

A model's tables and weights become one block of memory once, and then one call takes a request from ids and numbers to its answer.
csrc/ops.cpp describes the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..errors import BackendUnavailable

MULTIPLE = 16
"""The widths of a tower's hidden layers are multiples of it."""
SCHEMAS = {
    "request_pack": "(Tensor table, Tensor sizes, Tensor offsets, Tensor starts, Tensor pooling, Tensor? lower, Tensor? scale, "
    "Tensor? weight, Tensor? bias, Tensor? first_order_weight, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, "
    "Tensor private_bias, Tensor shared_projection, Tensor private_projection, SymInt steps, str cell, Tensor towers, Tensor widths, "
    "bool first_order, bool chain) -> Tensor",
    "request": "(Tensor ids, Tensor? dense, Tensor table, Tensor? first_order, Tensor packed, float log_rate=0., bool probabilities=False) "
    "-> Tensor",
}


def no_trace(*arguments: Any, **options: Any) -> Tensor:
    """In place of the shapes for tracing. Raises ValueError, which says what to do instead."""
    raise ValueError(
        "table and the other tensors: expected ones with values, which a traced or meta tensor has not; trace the model itself"
    )


def no_derivative(ctx: Any, *grads: Tensor | None) -> Sequence[Tensor]:
    """In place of a derivative. Raises BackendUnavailable, which says what to do instead."""
    raise BackendUnavailable("the operators request_pack and request are for inference and have no derivative: train the model itself")
