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
from ..sharing import GATES
from ..support.checks import MAX_STEPS, check_choice, check_count
from ..support.tensors import check_alike, check_memory, check_tensor
from ..support.tracing import constant_in_graphs
from .autograd import needs_gradient, no_second_derivative, register_derivative, save_nothing
from .checks import check_tensors

INPUTS = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "context")
"""The differentiable arguments, in the order of the gradients."""
TENSORS = "Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias"
SAVED = "Tensor grad, Tensor activations, SymInt grad_mask"
OPTIONS = "SymInt steps, str cell, Tensor? context, bool return_states, bool allow_tf32"
DEFAULTS = 'SymInt steps, str cell="gated", Tensor? context=None, bool return_states=False, bool allow_tf32=False, bool saved=False'
SCHEMA = f"({TENSORS}, {DEFAULTS}) -> (Tensor, Tensor)"
SCHEMA_BACKWARD = f"({SAVED}, {TENSORS}, {OPTIONS}) -> ({', '.join(['Tensor'] * 6)})"


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
    x0: Tensor, shared_weight: Tensor, shared_bias: Tensor, private_weight: Tensor, private_bias: Tensor, steps: int,
    cell: str = "gated", context: Tensor | None = None, *_: Any, projections: Sequence[Tensor] = (),
) -> dict[str, int]:  # fmt: skip
    """The sizes L, B, D, C, G, K = C + D, W, S, P, T and, with the two projections, M, N and r. Raise TypeError or ValueError unless the
    arguments fit each other."""
    check_choice("cell", cell, tuple(GATES))
    if isinstance(steps, int):  # a traced graph may leave it open
        check_count("steps", steps, maximum=MAX_STEPS)
    sizes, like = {"L": steps, "G": GATES[cell]}, ("x0", x0)
    check_tensors(like, [("x0", x0, "BD")] if context is None else [("x0", x0, "BD"), ("context", context, "LBC")], sizes)
    if sizes["D"] == 0:
        raise ValueError(f"x0: got shape {list(x0.shape)}, expected [B, D] with D >= 1")
    sizes["K"] = sizes.setdefault("C", 0) + sizes["D"]
    if projections:
        check_tensors(like, [("shared_projection", projections[0], "WMGK"), ("private_projection", projections[1], "TWNGK")], sizes)
        sizes["r"] = sizes["M"] + sizes["N"]
        if sizes["r"] == 0:
            raise ValueError("shared_projection, private_projection: got M + N = 0 rows, expected the rank r >= 1")
    columns = "r" if projections else "K"
    weights = ("shared_weight", shared_weight, f"WSG{columns}"), ("private_weight", private_weight, f"TWPG{columns}")
    check_tensors(like, [*weights, ("shared_bias", shared_bias, "WSG"), ("private_bias", private_bias, "TWPG")], sizes)
    if sizes["W"] != 1 and sizes["W"] != sizes["L"]:  # symbolic sizes of a compiled graph do not support "in"
        raise ValueError(f"shared_weight: got the weights of W = {sizes['W']} steps, expected 1 (tied) or steps = {sizes['L']} (untied)")
    if sizes["S"] + sizes["P"] != sizes["D"]:
        raise ValueError(f"shared_weight, private_weight: got S + P = {sizes['S']} + {sizes['P']} units, expected D = {sizes['D']}")
    return sizes


def check_backward(
    grad: Tensor, activations: Tensor, grad_mask: int, x0: Tensor, *arguments: Any, projections: Sequence[Tensor] = ()
) -> None:
    """Raise TypeError or ValueError unless the forward's arguments and the backward's fit each other; activations may be [0]."""
    sizes = check(x0, *arguments, projections=projections)
    context, return_states = arguments[6:8]
    shapes = {"grad": [out_shape(sizes, return_states)], "activations": [saved_shape(sizes), [0]]}
    for name, tensor in (("grad", grad), ("activations", activations)):
        check_tensor(name, tensor, "floats")
        check_memory(name, tensor)
        check_alike("x0", x0, {name: tensor})
        if list(tensor.shape) not in shapes[name]:
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {' or '.join(map(str, shapes[name]))}")
    most = GradMask.X0 | GradMask.WEIGHTS | GradMask.CONTEXT | (GradMask.PROJECTIONS if projections else 0)
    if not 0 <= grad_mask <= most:
        raise ValueError(f"grad_mask: got {grad_mask}, expected a sum of the bits of GradMask, 0 to {most}")
    if grad_mask & GradMask.CONTEXT and context is None:
        raise ValueError("grad_mask: asks for the gradient of context, which is absent")


def out_shape(sizes: dict[str, int], return_states: bool) -> list[int]:
    """The last state [T, B, D], or all states [T, L + 1, B, D]."""
    return [sizes["T"], *([sizes["L"] + 1] if return_states else []), sizes["B"], sizes["D"]]


def saved_shape(sizes: dict[str, int]) -> list[int]:
    """The activations a and, in a gated cell, g: [T, L, B, G, D]. With projections z and, in a gated cell, y: [T, L, B, G, r]."""
    return [*(sizes[letter] for letter in "TLBG"), sizes["r" if "r" in sizes else "D"]]


def fake(
    x0: Tensor, shared_weight: Tensor, shared_bias: Tensor, private_weight: Tensor, private_bias: Tensor, steps: int,
    cell: str = "gated", context: Tensor | None = None, return_states: bool = False, allow_tf32: bool = False, saved: bool = False,
    *, projections: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Empty results: the output, and the activations, [0] where they are not saved."""
    sizes = check(x0, shared_weight, shared_bias, private_weight, private_bias, steps, cell, context, projections=projections)
    return x0.new_empty(out_shape(sizes, return_states)), x0.new_empty(saved_shape(sizes) if saved else [0])


def fake_backward(
    grad: Tensor, activations: Tensor, grad_mask: int, x0: Tensor, *arguments: Any, projections: Sequence[Tensor] = ()
) -> tuple[Tensor, ...]:
    """Empty gradients of :data:`INPUTS` and of the projections, [0] for one that is not asked for."""
    check_backward(grad, activations, grad_mask, x0, *arguments, projections=projections)
    weights, context = arguments[:4], arguments[6]
    asked = [GradMask.X0, *[GradMask.WEIGHTS] * 4, GradMask.CONTEXT, *[GradMask.PROJECTIONS] * len(projections)]
    pairs = zip((x0, *weights, context, *projections), asked, strict=True)
    return tuple(x0.new_empty(tensor.shape if grad_mask & one and tensor is not None else [0]) for tensor, one in pairs)


def by_plain_pytorch(*given: Any) -> Tensor:
    """The reference's result, from :data:`INPUTS`, the projections, and the options. It saves what autograd saves."""
    *tensors, steps, cell, return_states, _ = given
    by_name = dict(zip((*INPUTS, "shared_projection", "private_projection"), tensors, strict=False))
    check(*tensors[:5], steps, cell, by_name["context"], projections=tensors[6:])
    return plain(**by_name, steps=steps, cell=cell, return_states=return_states)


@constant_in_graphs
def tf32() -> bool:
    """Whether PyTorch is set to compute float32 products in tf32; a compiled graph keeps the setting that it was compiled under."""
    setting = torch.backends.cuda.matmul.fp32_precision
    return (torch.backends.fp32_precision if setting == "none" else setting) == "tf32"  # type: ignore[attr-defined]


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

    def compute(*given: Any) -> Tensor:
        *tensors, steps, cell, return_states, recompute = given
        x0, context = tensors[0], tensors.pop(5)  # in the order of INPUTS, then the projections
        allow_tf32 = x0.dtype == torch.float32 and x0.device.type == tf32_device and tf32()
        saved = not recompute and needs_gradient((*tensors, context))
        out: Tensor = forward(*tensors, steps, cell, context, return_states, allow_tf32, saved)[0]
        return out

    return compute
