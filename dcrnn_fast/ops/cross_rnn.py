"""The contract of ``cross_rnn``. Its backward is an operator of its own without a derivative: second derivatives are the reference's."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntFlag
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendUnavailable
from ..sharing import GATES, Cell
from ..support.checks import MAX_STEPS, check_alike, check_choice, check_count, check_memory, check_tensor
from ..support.tracing import constant_in_graphs
from .autograd import register_derivative
from .checks import NO_PROJECTION, Projection, check_cross_rnn


class Keep(IntFlag):
    """What a forward keeps for the backward: nothing, the activations a and g, the states between the steps, or both.

    With a projection the activations are z and y, which are few, and the states are never kept.
    """

    NOTHING = 0
    ACTIVATIONS = 1
    STATES = 2
    BOTH = 3


class Needs(IntFlag):
    """Which gradients a backward computes. A backend computes those of the four banks, and of the two projections, together, if any of
    them is needed."""

    X0 = 1
    SHARED_WEIGHT = 2
    SHARED_BIAS = 4
    PRIVATE_WEIGHT = 8
    PRIVATE_BIAS = 16
    CONTEXT = 32
    SHARED_PROJECTION = 64
    PRIVATE_PROJECTION = 128
    BANKS = 30
    PROJECTIONS = 192


NEEDS = [1 << place for place in range(8)]
"""The bits in the order of the gradients: x0, the four banks, the context, the two banks of projections."""


def check_forward(*tensors: Tensor, steps: int, cell: str, context: Tensor | None, projection: Projection = NO_PROJECTION) -> None:
    """Raise TypeError or ValueError unless the arguments fit each other: callers of an operator may have checked nothing.

    ``tensors`` are those of the schema, x0 to index.
    """
    check_choice("cell", cell, tuple(GATES))
    if isinstance(steps, int):  # a traced graph may leave it open
        check_count("steps", steps, maximum=MAX_STEPS)
    check_cross_rnn(*tensors, steps=steps, gates=GATES[cell], context=context, projection=projection)


def check_backward(
    grad: Tensor,
    states: Tensor,
    activations: Tensor,
    *tensors: Tensor,
    steps: int,
    cell: str,
    context: Tensor | None,
    projection: Projection = NO_PROJECTION,
    return_states: bool,
    needs: int,
) -> None:
    """The same for the backward: a kept tensor has the shape that the forward gave it, or is [0]."""
    check_forward(*tensors, steps=steps, cell=cell, context=context, projection=projection)
    x0, index = tensors[0], tensors[-1]
    tasks, (batch, dim) = index.shape[0], x0.shape
    for name, tensor in (("grad", grad), ("states", states), ("activations", activations)):
        check_tensor(name, tensor, "floats, an output of cross_rnn")
        check_memory(name, tensor)
    check_alike("x0", x0, {"grad": grad, "states": states, "activations": activations})
    expected = [tasks, steps + 1, batch, dim] if return_states else [tasks, batch, dim]
    if list(grad.shape) != expected:
        raise ValueError(f"grad: got shape {list(grad.shape)}, expected {expected}, the shape of cross_rnn's first output")
    low_rank = projection.projection_index is not None
    shapes = [0] if low_rank else [tasks, steps - 1, batch, dim], [tasks, steps, batch, GATES[cell], width(x0, index, projection)]
    for name, tensor, shape in zip(("states", "activations"), (states, activations), shapes, strict=True):
        if list(tensor.shape) not in ([0], shape):
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {shape}, or [0] where it was not kept")
    if not 0 <= needs < 256:
        raise ValueError(f"needs: got {needs}, expected a sum of the bits of Needs, 0 to 255")
    if needs & Needs.CONTEXT and context is None:
        raise ValueError("needs: asks for the gradient of context, which is absent")
    if needs & Needs.PROJECTIONS and not low_rank:
        raise ValueError("needs: asks for the gradient of a projection, which is absent")


def width(x0: Tensor, index: Tensor, projection: Projection) -> int:
    """The values of a gate vector that a step's activations hold: r of z or y with a projection, else D of a or g."""
    if projection.projection_index is None:
        return x0.shape[1]
    return projection.projection_index.shape[1] // (index.shape[1] // x0.shape[1])


def _forward(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    steps: int,
    cell: str = "gated",
    context: Tensor | None = None,
    shared_projection: Tensor | None = None,
    private_projection: Tensor | None = None,
    projection_index: Tensor | None = None,
    return_states: bool = False,
    keep: int = 0,
    allow_tf32: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output; the states 1 to L - 1, [T, L - 1, B, D], unless the output holds them; the activations a and g, [T, L, B, G, D], or with
    a projection z and y, [T, L, B, G, r].

    A kept tensor is [0] where ``keep`` does not ask for it.
    """
    banks = shared_weight, shared_bias, private_weight, private_bias
    projection = Projection(shared_projection, private_projection, projection_index)
    check_forward(x0, *banks, index, steps=steps, cell=cell, context=context, projection=projection)
    if keep & Keep.STATES and projection_index is not None:
        raise ValueError(f"keep: got {keep}, expected 0 (nothing) or 1 (activations) with a projection")
    tasks, (batch, dim) = index.shape[0], x0.shape
    out = x0.new_empty(tasks, steps + 1, batch, dim) if return_states else x0.new_empty(tasks, batch, dim)
    states = x0.new_empty(tasks, steps - 1, batch, dim) if keep & Keep.STATES and not return_states else x0.new_empty(0)
    activations = x0.new_empty(0)
    if keep & Keep.ACTIVATIONS:
        activations = x0.new_empty(tasks, steps, batch, GATES[cell], width(x0, index, projection))
    return out, states, activations


def _backward(
    grad: Tensor,
    states: Tensor,
    activations: Tensor,
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    steps: int,
    cell: str,
    context: Tensor | None,
    shared_projection: Tensor | None,
    private_projection: Tensor | None,
    projection_index: Tensor | None,
    return_states: bool,
    needs: int,
    allow_tf32: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x0, the four banks, the context and the two banks of projections; [0] for one that ``needs`` does not name.

    What was not kept comes as [0].
    """
    banks = shared_weight, shared_bias, private_weight, private_bias
    projection = Projection(shared_projection, private_projection, projection_index)
    options: dict[str, Any] = {"steps": steps, "cell": cell, "context": context, "return_states": return_states, "needs": needs}
    check_backward(grad, states, activations, x0, *banks, index, projection=projection, **options)

    def gradient(tensor: Tensor | None, needed: int) -> Tensor:
        return x0.new_empty(tensor.shape) if needed and tensor is not None else x0.new_empty(0)

    of_banks = [gradient(bank, needs & Needs.BANKS) for bank in banks]
    of_projections = [gradient(bank, needs & Needs.PROJECTIONS) for bank in projection[:2]]
    return gradient(x0, needs & Needs.X0), *of_banks, gradient(context, needs & Needs.CONTEXT), *of_projections  # type: ignore[return-value]


DECLARATIONS: dict[str, Callable[..., Any]] = {"cross_rnn": _forward, "cross_rnn_backward": _backward}


@constant_in_graphs
def tf32() -> bool:
    """Whether PyTorch is set to compute float32 products in tf32; a compiled graph keeps the setting that it was compiled under."""
    setting = torch.backends.cuda.matmul.fp32_precision
    return (torch.backends.fp32_precision if setting == "none" else setting) == "tf32"  # type: ignore[attr-defined]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, steps, cell, context, shared_projection, private_projection, projection_index, return_states, keep, allow_tf32 = inputs
    out, states, activations = output
    ctx.mark_non_differentiable(states, activations)
    ctx.set_materialize_grads(False)
    states_in_out = return_states and bool(keep & Keep.STATES)
    projection = shared_projection, private_projection, projection_index
    ctx.save_for_backward(out if states_in_out else states, activations, *tensors, context, *projection)
    ctx.constants = steps, cell, return_states, allow_tf32, states_in_out


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    pass


def _no_second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise BackendUnavailable(
        "backends 'cpp', 'triton' and 'cuda' have no second derivatives (the gradient of a gradient was asked for). Use "
        "backend='reference', which is differentiable any number of times"
    )


def register_autograd(namespace: str, keeps: Keep, tf32_device: str) -> Callable[..., Tensor]:
    """Register the derivatives of a namespace's operators, and return the function that computes by them.

    That function takes x0, the four banks and the index, and the options of :func:`dcrnn_fast.functional.cross_rnn` by name.

    Args:
        namespace: as in ``torch.ops.<namespace>``.
        keeps: what the namespace keeps for a backward. With ``recompute`` it keeps no activations, and the backward computes them again.
        tf32_device: the type of device on which PyTorch's tf32 setting counts.
    """
    operators = getattr(torch.ops, namespace)

    def gradients(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 15
        states, activations, *tensors = ctx.saved_tensors
        tensors, optional = tensors[:6], tensors[6:]  # the context and the projection
        steps, cell, return_states, allow_tf32, states_in_out = ctx.constants
        if states_in_out:
            states = states[:, 1:steps]
        needed = *ctx.needs_input_grad[:5], *ctx.needs_input_grad[8:11]
        needs = sum([bit for bit, need in zip(NEEDS, needed, strict=True) if need])
        found = backward(grad, states, activations, *tensors, steps, cell, *optional, return_states, needs, allow_tf32)
        kept = [gradient if need else None for gradient, need in zip(found, needed, strict=True)]
        return *kept[:5], None, None, None, *kept[5:], None, None, None, None

    forward = register_derivative(operators.cross_rnn.default, _save, gradients)
    backward = register_derivative(operators.cross_rnn_backward.default, _save_nothing, _no_second_derivative)
    keep_all, keep_for_recompute = int(keeps), int(keeps & ~Keep.ACTIVATIONS)

    def cross_rnn(
        *tensors: Tensor,
        steps: int,
        cell: Cell = "gated",
        context: Tensor | None = None,
        shared_projection: Tensor | None = None,
        private_projection: Tensor | None = None,
        projection_index: Tensor | None = None,
        return_states: bool = False,
        recompute: bool = False,
    ) -> Tensor:
        optional = context, shared_projection, private_projection
        with_gradient = torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in (*tensors, *optional)])
        keep = (keep_for_recompute if recompute else keep_all) if with_gradient else 0
        if projection_index is not None:
            keep &= ~Keep.STATES
        x0 = tensors[0]
        allow_tf32 = x0.dtype == torch.float32 and x0.device.type == tf32_device and tf32()
        return forward(*tensors, steps, cell, *optional, projection_index, return_states, int(keep), allow_tf32)[0]

    return cross_rnn
