"""The compiled operators as PyTorch sees them: shapes for tracing, derivatives, autocast. Imported once the extension has loaded.

A backward is an operator of its own. That of ``param_gather`` is linear, and its derivative is ``param_gather`` again; that of
``cross_rnn`` has none: second derivatives are the reference's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import BackendUnavailable
from .sharing import GATES, Cell

_INPUTS = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "context")
_NO_SECOND_DERIVATIVE = (
    "backend='cpp' and 'cuda' have no second derivatives (the gradient of a gradient was asked for). Use backend='reference', which is "
    "differentiable any number of times"
)


@torch.compiler.assume_constant_result
def _tf32() -> bool:
    """Whether PyTorch is set to compute float32 products in tf32; a compiled graph keeps the setting that it was compiled under."""
    setting = torch.backends.cuda.matmul.fp32_precision
    return (torch.backends.fp32_precision if setting == "none" else setting) == "tf32"  # type: ignore[attr-defined]


def param_gather(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    """:func:`dcrnn_fast.reference.param_gather` by the compiled operator."""
    return torch.ops.dcrnn_fast.param_gather(shared, private, index)


def cross_rnn(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    *,
    steps: int,
    cell: Cell = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    recompute: bool = False,
) -> Tensor:
    """:func:`dcrnn_fast.reference.cross_rnn` by the compiled operator, which keeps a and g for the backward unless ``recompute``."""
    tensors = x0, shared_weight, shared_bias, private_weight, private_bias
    with_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (*tensors, context) if t is not None)
    run = torch.ops.dcrnn_fast.cross_rnn if torch.compiler.is_compiling() or not with_gradient else _CrossRNN.apply
    allow_tf32 = x0.is_cuda and x0.dtype == torch.float32 and _tf32()
    return run(*tensors, index, steps, cell, context, return_states, with_gradient and not recompute, allow_tf32)[0]


@torch.library.register_fake("dcrnn_fast::param_gather")
def _(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
    return shared.new_empty(*index.shape, *shared.shape[1:])


@torch.library.register_fake("dcrnn_fast::param_gather_backward")
def _(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> tuple[Tensor, Tensor]:
    trailing = grad.shape[2:]
    return grad.new_empty(num_shared, *trailing), grad.new_empty(index.shape[0], num_private, *trailing)


@torch.library.register_fake("dcrnn_fast::cross_rnn")
def _(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    steps: int,
    cell: Cell = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    save: bool = False,
    allow_tf32: bool = False,
) -> tuple[Tensor, Tensor]:
    tasks, (batch, dim) = index.shape[0], x0.shape
    out = x0.new_empty(tasks, steps + 1, batch, dim) if return_states else x0.new_empty(tasks, batch, dim)
    return out, x0.new_empty(tasks, steps, batch, GATES[cell], dim) if save else x0.new_empty(0)


@torch.library.register_fake("dcrnn_fast::cross_rnn_backward")
def _(
    grad: Tensor,
    gates: Tensor,
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    steps: int,
    cell: Cell,
    context: Tensor | None,
    return_states: bool,
    needs: int,
    allow_tf32: bool = False,
) -> tuple[Tensor, ...]:
    banks = needs & 0b011110

    def gradient(tensor: Tensor | None, wanted: int) -> Tensor:
        return x0.new_empty(tensor.shape) if wanted and tensor is not None else x0.new_empty(0)

    parameters = shared_weight, shared_bias, private_weight, private_bias
    return gradient(x0, needs & 1), *(gradient(parameter, banks) for parameter in parameters), gradient(context, needs & 32)


def _keep_gather(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    shared, private, index = inputs
    ctx.save_for_backward(index)
    ctx.rows = shared.shape[0], private.shape[1]


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    (index,) = ctx.saved_tensors
    return *torch.ops.dcrnn_fast.param_gather_backward(grad, index, *ctx.rows), None


def _keep_gather_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[1])


def _gather_double_backward(ctx: Any, shared: Tensor, private: Tensor) -> tuple[Tensor, None, None, None]:
    (index,) = ctx.saved_tensors
    return torch.ops.dcrnn_fast.param_gather(shared, private, index), None, None, None


def _keep_cross(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x0, shared_weight, shared_bias, private_weight, private_bias, index, steps, cell, context, return_states, _, allow_tf32 = inputs
    gates = output[1]
    ctx.mark_non_differentiable(gates)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(gates, x0, shared_weight, shared_bias, private_weight, private_bias, index, context)
    ctx.constants = steps, cell, return_states, allow_tf32


def _cross_backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 12
    *tensors, context = ctx.saved_tensors
    steps, cell, return_states, allow_tf32 = ctx.constants
    # trailing arguments that equal their defaults never reach the operator's autograd node
    wanted = [*ctx.needs_input_grad[:5], *(ctx.needs_input_grad[8:9] or (False,))]
    needs = sum(1 << i for i, need in enumerate(wanted) if need)
    gradients = torch.ops.dcrnn_fast.cross_rnn_backward(grad, *tensors, steps, cell, context, return_states, needs, allow_tf32)
    kept = [gradient if need else None for gradient, need in zip(gradients, wanted, strict=True)]
    return *kept[:5], None, None, None, kept[5], None, None, None


class _CrossRNN(torch.autograd.Function):
    """The derivative registered below, without the 0.1 ms that a registered derivative's wrappers cost a call outside a compiled graph."""

    forward = staticmethod(lambda *arguments: torch.ops.dcrnn_fast.cross_rnn(*arguments))
    setup_context = staticmethod(_keep_cross)
    backward = staticmethod(_cross_backward)


def _no_second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise BackendUnavailable(_NO_SECOND_DERIVATIVE)


torch.library.register_autograd("dcrnn_fast::param_gather", _gather_backward, setup_context=_keep_gather)
torch.library.register_autograd("dcrnn_fast::param_gather_backward", _gather_double_backward, setup_context=_keep_gather_backward)
torch.library.register_autograd("dcrnn_fast::cross_rnn", _cross_backward, setup_context=_keep_cross)
torch.library.register_autograd("dcrnn_fast::cross_rnn_backward", _no_second_derivative)
