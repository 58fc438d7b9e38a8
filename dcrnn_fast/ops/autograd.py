"""Gives an operator its derivative: for ``backward()``, in eager calls, compiled graphs and exported programs alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.autograd import forward_ad
from torch.library import Library

from ..errors import BackendUnavailable
from ..support.tracing import transformed

_libraries: list[Library] = []
"""The registrations, which end when their library is deleted."""


def register_derivative(operator: OpOverload, setup_context: Callable[..., None], backward: Callable[..., Any]) -> Callable[..., Any]:
    """Register an operator's derivative with PyTorch's dispatcher, and return the function that calls the operator by the shortest way.

    ``torch.library.register_autograd`` does nearly the same. But it drops the tangents of forward-mode derivatives, whose result is then
    zero without an error, and its wrappers cost 0.1 ms a call.

    Args:
        operator: without keyword-only arguments.
        setup_context: ``setup_context(ctx, inputs, output)`` with every argument of the schema in ``inputs``.
        backward: ``backward(ctx, *grads)``, which returns one gradient or None for each argument.
    """

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            return below_autograd(*arguments)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
            def sample(i: int) -> list[Any]:
                return [a if dim is None else a.select(dim, i) for a, dim in zip(arguments, in_dims, strict=True)]

            def zeros() -> list[Any]:
                pairs = zip(arguments, in_dims, strict=True)
                return [a if dim is None else a.new_zeros(a.movedim(dim, 0).shape[1:]) for a, dim in pairs]

            # without samples, one of zeros tells the shapes
            outputs = [Differentiable.apply(*sample(i)) for i in range(info.batch_size)] or [Differentiable.apply(*zeros())]
            if isinstance(outputs[0], Tensor):
                return torch.stack(outputs)[: info.batch_size], 0
            return tuple(torch.stack(values)[: info.batch_size] for values in zip(*outputs, strict=True)), (0,) * len(outputs[0])

    def below_autograd(*arguments: Any) -> Any:
        try:
            with torch._C._AutoDispatchBelowAutograd():
                return operator(*arguments)
        except RuntimeError:
            _let_signals_in()
            raise

    Differentiable.setup_context = staticmethod(setup_context)  # type: ignore[method-assign]
    Differentiable.backward = staticmethod(backward)  # type: ignore[method-assign]
    defaults = [argument.default_value for argument in operator._schema.arguments]

    def dispatched(*arguments: Any) -> Any:
        if transformed():
            _refuse_transforms(operator, arguments)
        if torch.is_grad_enabled() and _any(arguments, _requires_grad):
            # the dispatcher drops trailing arguments that equal their defaults
            return Differentiable.apply(*arguments, *defaults[len(arguments) :])
        return below_autograd(*arguments)

    library = Library(operator.namespace, "FRAGMENT")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # a triton_op has a kernel of PyTorch's own there
        library.impl(operator._schema.name.partition("::")[2], dispatched, "Autograd", allow_override=True)
    _libraries.append(library)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling() or forward_ad._current_level >= 0:
            return operator(*arguments)
        with_gradient = torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and _any(arguments, _requires_grad)
        if torch._C._are_functorch_transforms_active():
            with_gradient = _has_rules(operator, with_gradient)
        return Differentiable.apply(*arguments) if with_gradient else below_autograd(*arguments)

    return call


def _let_signals_in() -> None:
    """Any call of a Python function lets the interpreter raise what a signal's handler raised while an operator ran."""


def _has_rules(operator: OpOverload, with_gradient: bool) -> bool:
    """Whether a call under ``torch.func`` takes the ``autograd.Function``, which has rules for ``grad`` and ``vmap`` but none for
    ``functionalize``. BackendUnavailable where both kinds of rules are needed."""
    transforms = [interpreter.key() for interpreter in torch._C._functorch.get_interpreter_stack() or ()]
    if torch._C._functorch.TransformType.Functionalize not in transforms:
        return True
    if with_gradient or len(set(transforms)) > 1:
        raise BackendUnavailable(
            f"{operator} has no rule for torch.func.functionalize together with derivatives or other transforms. Use backend='reference', "
            "or backend='auto', which takes the reference there"
        )
    return False


def _any(arguments: tuple[Any, ...], holds: Callable[[Tensor], bool]) -> bool:
    return any([isinstance(argument, Tensor) and holds(argument) for argument in arguments])


def _requires_grad(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _has_tangent(tensor: Tensor) -> bool:
    return forward_ad.unpack_dual(tensor).tangent is not None


def _refuse_transforms(operator: OpOverload, arguments: tuple[Any, ...]) -> None:
    """Raise BackendUnavailable if forward mode, or a transform of ``torch.func`` that differentiates, reaches the operator."""
    differentiated = torch._C._are_functorch_transforms_active() and torch.is_grad_enabled() and _any(arguments, _requires_grad)
    if forward_ad._current_level >= 0 and (differentiated or _any(arguments, _has_tangent)):
        raise BackendUnavailable(
            "backends 'cpp', 'triton' and 'cuda' have no forward-mode derivatives (torch.func.jvp, jacfwd, hessian; dual numbers). Use "
            "backend='reference', or backend='auto', which takes the reference there unless DCRNN_FAST_BACKEND names another"
        )
    if differentiated:
        raise BackendUnavailable(
            f"{operator} has no derivative under torch.func where torch.ops or a compiled graph calls it. Call the functions of "
            "dcrnn_fast.functional, or the model, with backend='reference' or backend='auto', which takes the reference there"
        )
