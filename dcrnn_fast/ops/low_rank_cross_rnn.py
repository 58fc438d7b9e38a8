"""The operator ``low_rank_cross_rnn``: as :mod:`.cross_rnn`, with a projection to r columns between what a unit reads and its weights.

It saves z and y, which are few, and are enough to compute the states again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..reference.operators import cross_rnn as plain
from ..sharing import Cell
from . import cross_rnn
from .checks import check_tensors
from .cross_rnn import GradMask, check_inputs, check_saved, check_weights, gradient, out_shape

INPUTS = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "context", "shared_projection", "private_projection")
"""The differentiable arguments, in the order of the gradients."""


def check(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    shared_projection: Tensor,
    private_projection: Tensor,
    steps: int,
    cell: str = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    allow_tf32: bool = False,
    saved: bool = False,
) -> dict[str, int]:
    """The sizes by letter. Raise TypeError or ValueError unless the arguments fit each other."""
    sizes = check_inputs(x0, context, steps, cell)
    projections = ("shared_projection", shared_projection, "WMGK"), ("private_projection", private_projection, "TWNGK")
    check_tensors(("x0", x0), projections, sizes)
    sizes["r"] = sizes["M"] + sizes["N"]
    if sizes["r"] == 0:
        raise ValueError("shared_projection, private_projection: got M + N = 0 rows, expected the rank r >= 1")
    check_weights(x0, "r", shared_weight, shared_bias, private_weight, private_bias, sizes)
    return sizes


def check_backward(grad: Tensor, activations: Tensor, grad_mask: int, *arguments: Any) -> dict[str, int]:
    """The sizes by letter. Raise TypeError or ValueError unless the forward's arguments and the backward's fit each other."""
    sizes = check(*arguments)
    x0, *_, context, return_states, _ = arguments
    most = GradMask.X0 | GradMask.WEIGHTS | GradMask.CONTEXT | GradMask.PROJECTIONS
    check_saved(x0, (grad, out_shape(sizes, return_states)), (activations, saved_shape(sizes)), grad_mask, most, context)
    return sizes


def saved_shape(sizes: dict[str, int]) -> list[int]:
    """The activations z and, in a gated cell, y: [T, L, B, G, r]."""
    return [sizes[letter] for letter in "TLBGr"]


def fake(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    shared_projection: Tensor,
    private_projection: Tensor,
    steps: int,
    cell: str = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    allow_tf32: bool = False,
    saved: bool = False,
) -> tuple[Tensor, Tensor]:
    """Empty results: the output, and the activations, [0] where they are not saved."""
    weights = shared_weight, shared_bias, private_weight, private_bias
    sizes = check(x0, *weights, shared_projection, private_projection, steps, cell, context)
    return x0.new_empty(out_shape(sizes, return_states)), x0.new_empty(saved_shape(sizes) if saved else [0])


def fake_backward(
    grad: Tensor,
    activations: Tensor,
    grad_mask: int,
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    shared_projection: Tensor,
    private_projection: Tensor,
    steps: int,
    cell: str,
    context: Tensor | None,
    return_states: bool,
    allow_tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Empty gradients of :data:`INPUTS`, [0] for one that is not asked for."""
    weights = shared_weight, shared_bias, private_weight, private_bias
    of_forward = x0, *weights, shared_projection, private_projection, steps, cell, context, return_states, allow_tf32
    check_backward(grad, activations, grad_mask, *of_forward)
    return (
        gradient(x0, x0, grad_mask & GradMask.X0),
        gradient(x0, shared_weight, grad_mask & GradMask.WEIGHTS),
        gradient(x0, shared_bias, grad_mask & GradMask.WEIGHTS),
        gradient(x0, private_weight, grad_mask & GradMask.WEIGHTS),
        gradient(x0, private_bias, grad_mask & GradMask.WEIGHTS),
        gradient(x0, context, grad_mask & GradMask.CONTEXT),
        gradient(x0, shared_projection, grad_mask & GradMask.PROJECTIONS),
        gradient(x0, private_projection, grad_mask & GradMask.PROJECTIONS),
    )


OPERATORS: dict[str, Callable[..., Any]] = {"low_rank_cross_rnn": fake, "low_rank_cross_rnn_backward": fake_backward}
"""By the operator's name, the function that computes the shapes for tracing. Its signature is the schema."""


def by_plain_pytorch(
    x0: Tensor, shared_weight: Tensor, shared_bias: Tensor, private_weight: Tensor, private_bias: Tensor, context: Tensor | None,
    shared_projection: Tensor, private_projection: Tensor, steps: int, cell: Cell, return_states: bool, recompute: bool,
) -> Tensor:  # fmt: skip
    """The reference's result. It saves what autograd saves."""
    tensors = x0, shared_weight, shared_bias, private_weight, private_bias
    check(*tensors, shared_projection, private_projection, steps, cell, context)
    projections = {"shared_projection": shared_projection, "private_projection": private_projection}
    return plain(*tensors, steps=steps, cell=cell, context=context, return_states=return_states, **projections)


def register_autograd(namespace: str, tf32_device: str) -> Callable[..., Tensor]:
    """As :func:`.cross_rnn.register_autograd`."""
    return cross_rnn.register_autograd(namespace, tf32_device, "low_rank_cross_rnn")
