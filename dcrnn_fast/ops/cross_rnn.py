"""The operator ``cross_rnn``: what its arguments must satisfy, the shapes of its results, and its derivative.

The formula stands in :func:`dcrnn_fast.reference.cross_rnn`, the schema in csrc/ops.cpp. The backward is an operator of its own without a
derivative: second derivatives are the reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntFlag
from typing import Any

import torch
from torch import Tensor

from ..reference.operators import cross_rnn as plain
from ..sharing import GATES, Cell
from ..support.checks import MAX_STEPS, check_alike, check_choice, check_count, check_memory, check_tensor
from ..support.tracing import constant_in_graphs
from .autograd import needs_gradient, no_second_derivative, register_derivative, save_nothing
from .checks import check_tensors

INPUTS = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "context")
"""The differentiable arguments, in the order of the gradients."""


class GradMask(IntFlag):
    """Which gradients a backward computes. Those of all weights and biases come together, and so do those of both projections."""

    X0 = 1
    SHARED_WEIGHT = 2
    SHARED_BIAS = 4
    PRIVATE_WEIGHT = 8
    PRIVATE_BIAS = 16
    CONTEXT = 32
    SHARED_PROJECTION = 64
    PRIVATE_PROJECTION = 128
    WEIGHTS = 30
    PROJECTIONS = 192


def check(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    steps: int,
    cell: str = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    allow_tf32: bool = False,
    saved: bool = False,
) -> dict[str, int]:
    """The sizes by letter. Raise TypeError or ValueError unless the arguments fit each other."""
    sizes = check_inputs(x0, context, steps, cell)
    check_weights(x0, "K", shared_weight, shared_bias, private_weight, private_bias, sizes)
    return sizes


def check_backward(grad: Tensor, activations: Tensor, grad_mask: int, *arguments: Any) -> dict[str, int]:
    """The sizes by letter. Raise TypeError or ValueError unless the forward's arguments and the backward's fit each other."""
    sizes = check(*arguments)
    x0, *_, context, return_states, _ = arguments
    most = GradMask.X0 | GradMask.WEIGHTS | GradMask.CONTEXT
    check_saved(x0, (grad, out_shape(sizes, return_states)), (activations, saved_shape(sizes)), grad_mask, most, context)
    return sizes


def check_inputs(x0: Tensor, context: Tensor | None, steps: int, cell: str) -> dict[str, int]:
    """The sizes L, B, D, C, G and K = C + D. Raise TypeError or ValueError unless these arguments fit each other."""
    check_choice("cell", cell, tuple(GATES))
    if isinstance(steps, int):  # a traced graph may leave it open
        check_count("steps", steps, maximum=MAX_STEPS)
    sizes = {"L": steps, "G": GATES[cell]}
    given = [("x0", x0, "BD")] if context is None else [("x0", x0, "BD"), ("context", context, "LBC")]
    check_tensors(("x0", x0), given, sizes)
    if sizes["D"] == 0:
        raise ValueError(f"x0: got shape {list(x0.shape)}, expected [B, D] with D >= 1")
    sizes["K"] = sizes.setdefault("C", 0) + sizes["D"]
    return sizes


def check_weights(
    x0: Tensor,
    columns: str,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    sizes: dict[str, int],
) -> None:
    """Raise TypeError or ValueError unless the weights, of the ``columns`` "K" or "r", and the biases fit the sizes."""
    weights = ("shared_weight", shared_weight, f"WSG{columns}"), ("private_weight", private_weight, f"TWPG{columns}")
    check_tensors(("x0", x0), [*weights, ("shared_bias", shared_bias, "WSG"), ("private_bias", private_bias, "TWPG")], sizes)
    if sizes["W"] != 1 and sizes["W"] != sizes["L"]:  # symbolic sizes of a compiled graph do not support "in"
        raise ValueError(f"shared_weight: got the weights of W = {sizes['W']} steps, expected 1 (tied) or steps = {sizes['L']} (untied)")
    if sizes["S"] + sizes["P"] != sizes["D"]:
        raise ValueError(f"shared_weight, private_weight: got S + P = {sizes['S']} + {sizes['P']} units, expected D = {sizes['D']}")


def check_saved(
    like: Tensor,
    grad: tuple[Tensor, list[int]],
    activations: tuple[Tensor, list[int]],
    grad_mask: int,
    most: int,
    context: Tensor | None,
) -> None:
    """Raise TypeError or ValueError unless a backward's mask is right, and its two tensors have their shapes; activations may be [0]."""
    for name, (tensor, _), shapes in (("grad", grad, [grad[1]]), ("activations", activations, [activations[1], [0]])):
        check_tensor(name, tensor, "floats")
        check_memory(name, tensor)
        check_alike("x0", like, {name: tensor})
        if list(tensor.shape) not in shapes:
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {' or '.join(map(str, shapes))}")
    if not 0 <= grad_mask <= most:
        raise ValueError(f"grad_mask: got {grad_mask}, expected a sum of the bits of GradMask, 0 to {most}")
    if grad_mask & GradMask.CONTEXT and context is None:
        raise ValueError("grad_mask: asks for the gradient of context, which is absent")


def out_shape(sizes: dict[str, int], return_states: bool) -> list[int]:
    """The last state [T, B, D], or all states [T, L + 1, B, D]."""
    return [sizes["T"], *([sizes["L"] + 1] if return_states else []), sizes["B"], sizes["D"]]


def saved_shape(sizes: dict[str, int]) -> list[int]:
    """The activations a and, in a gated cell, g: [T, L, B, G, D]."""
    return [sizes[letter] for letter in "TLBGD"]


def fake(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    steps: int,
    cell: str = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    allow_tf32: bool = False,
    saved: bool = False,
) -> tuple[Tensor, Tensor]:
    """Empty results: the output, and the activations, [0] where they are not saved."""
    sizes = check(x0, shared_weight, shared_bias, private_weight, private_bias, steps, cell, context)
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
    steps: int,
    cell: str,
    context: Tensor | None,
    return_states: bool,
    allow_tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Empty gradients of :data:`INPUTS`, [0] for one that is not asked for."""
    weights = shared_weight, shared_bias, private_weight, private_bias
    check_backward(grad, activations, grad_mask, x0, *weights, steps, cell, context, return_states, allow_tf32)
    return (
        gradient(x0, x0, grad_mask & GradMask.X0),
        gradient(x0, shared_weight, grad_mask & GradMask.WEIGHTS),
        gradient(x0, shared_bias, grad_mask & GradMask.WEIGHTS),
        gradient(x0, private_weight, grad_mask & GradMask.WEIGHTS),
        gradient(x0, private_bias, grad_mask & GradMask.WEIGHTS),
        gradient(x0, context, grad_mask & GradMask.CONTEXT),
    )


def gradient(like: Tensor, tensor: Tensor | None, wanted: int) -> Tensor:
    """An empty gradient of a tensor, or [0] where it is not wanted."""
    return like.new_empty(tensor.shape if wanted and tensor is not None else [0])


OPERATORS: dict[str, Callable[..., Any]] = {"cross_rnn": fake, "cross_rnn_backward": fake_backward}
"""By the operator's name, the function that computes the shapes for tracing. Its signature is the schema."""


def by_plain_pytorch(
    x0: Tensor, shared_weight: Tensor, shared_bias: Tensor, private_weight: Tensor, private_bias: Tensor, context: Tensor | None,
    steps: int, cell: Cell, return_states: bool, recompute: bool,
) -> Tensor:  # fmt: skip
    """The reference's result. It saves what autograd saves."""
    tensors = x0, shared_weight, shared_bias, private_weight, private_bias
    check(*tensors, steps, cell, context)
    return plain(*tensors, steps=steps, cell=cell, context=context, return_states=return_states)


@constant_in_graphs
def tf32() -> bool:
    """Whether PyTorch is set to compute float32 products in tf32; a compiled graph keeps the setting that it was compiled under."""
    setting = torch.backends.cuda.matmul.fp32_precision
    return (torch.backends.fp32_precision if setting == "none" else setting) == "tf32"  # type: ignore[attr-defined]


def allows_tf32(x0: Tensor, device: str) -> bool:
    """Whether a call's products may be computed in tf32, on the type of device on which PyTorch's setting counts."""
    return x0.dtype == torch.float32 and x0.device.type == device and tf32()


def register_autograd(namespace: str, tf32_device: str, operator: str = "cross_rnn") -> Callable[..., Tensor]:
    """Register the derivatives of a namespace's operator and its backward, and return the function that computes by them.

    Args:
        namespace: as in ``torch.ops.<namespace>``.
        tf32_device: the type of device on which PyTorch's tf32 setting counts.
        operator: "cross_rnn" or "low_rank_cross_rnn", which has projections after the weights.
    """
    operators = getattr(torch.ops, namespace)
    backward = register_derivative(getattr(operators, f"{operator}_backward").default, save_nothing, no_second_derivative)

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, steps, cell, context, return_states, allow_tf32, _ = inputs
        _, activations = output
        ctx.mark_non_differentiable(activations)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(activations, context, *tensors)
        ctx.options = steps, cell, return_states, allow_tf32

    def gradients(ctx: Any, grad: Tensor | None, _: None) -> Sequence[Tensor | None]:
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        activations, context, *tensors = ctx.saved_tensors
        steps, cell, return_states, allow_tf32 = ctx.options
        *needs, _, _, need_context, _, _, _ = ctx.needs_input_grad
        asked = (*needs[:5], need_context, *needs[5:])  # the order of INPUTS
        mask = sum([1 << bit for bit, need in enumerate(asked) if need])
        found = backward(grad, activations, mask, *tensors, steps, cell, context, return_states, allow_tf32)
        d_x0, d_shared_weight, d_shared_bias, d_private_weight, d_private_bias, d_context, *d_projections = found
        weights = d_shared_weight, d_shared_bias, d_private_weight, d_private_bias
        return d_x0, *weights, *d_projections, None, None, d_context, None, None, None

    forward = register_derivative(getattr(operators, operator).default, save, gradients)

    def compute(
        x0: Tensor, shared_weight: Tensor, shared_bias: Tensor, private_weight: Tensor, private_bias: Tensor, context: Tensor | None,
        *others: Any,
    ) -> Tensor:  # fmt: skip
        *projections, steps, cell, return_states, recompute = others
        tensors = x0, shared_weight, shared_bias, private_weight, private_bias, *projections
        saved = not recompute and needs_gradient((*tensors, context))
        out: Tensor = forward(*tensors, steps, cell, context, return_states, allows_tf32(x0, tf32_device), saved)[0]
        return out

    return compute
