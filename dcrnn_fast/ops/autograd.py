"""Gives an operator its derivative: for ``backward()``, in eager calls, compiled graphs and exported programs alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.autograd import forward_ad
from torch.library import Library
from torch.utils._pytree import tree_map

from ..errors import BackendUnavailable
from ..support.tracing import transformed

_libraries: list[Library] = []
"""The registrations, which end when their library is deleted."""


def register_derivative(
    operator: OpOverload, save: Callable[..., None], gradients: Callable[..., Sequence[Tensor | None]]
) -> Callable[..., Any]:
    """Register an operator's derivative with PyTorch's dispatcher, and return the function that calls the operator by the shortest way.

    ``torch.library.register_autograd`` does nearly the same. But it drops the tangents of forward-mode derivatives, whose result is then
    zero without an error, and its wrappers cost 0.1 ms a call.

    Args:
        operator: without keyword-only arguments.
        save: ``save(ctx, inputs, output)`` with every argument of the schema in ``inputs``; keeps what the derivative needs.
        gradients: ``gradients(ctx, *grads)`` returns a gradient or None for each argument. Those that nobody needs are dropped.
    """
    defaults = [argument.default_value for argument in operator._schema.arguments]
    namespace, _, name = operator._schema.name.partition("::")

    def below_autograd(*arguments: Any) -> Any:
        # autocast cast the arguments of the public function; the calls of PyTorch inside an operator have the dtypes that they have
        with torch._C._AutoDispatchBelowAutograd(), torch._C._DisableAutocast():
            return operator(*arguments)

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            output = below_autograd(*arguments)
            save(ctx, arguments, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
            found = gradients(ctx, *grads)
            return tuple([gradient if need else None for gradient, need in zip(found, ctx.needs_input_grad, strict=True)])

    class Transformable(torch.autograd.Function):
        """The same for ``torch.func``, which needs a ``setup_context``; with one, PyTorch reads the forward's signature at every call."""

        forward = staticmethod(below_autograd)
        setup_context = staticmethod(save)
        backward = staticmethod(Differentiable.backward)

        @staticmethod
        def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
            outputs = [Transformable.apply(*sample) for sample in _samples(info.batch_size, in_dims, arguments)]
            return tree_map(lambda *samples: torch.stack(samples)[: info.batch_size], *outputs), 0

    def dispatched(*arguments: Any) -> Any:
        if transformed():
            _refuse_transforms(operator, arguments)
        if needs_gradient(arguments):
            # the dispatcher drops trailing arguments that equal their defaults
            return Differentiable.apply(*arguments, *defaults[len(arguments) :])
        return below_autograd(*arguments)

    library = Library(namespace, "FRAGMENT")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # a triton_op has a kernel of PyTorch's own there
        library.impl(name, dispatched, "Autograd", allow_override=True)
    _libraries.append(library)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling() or forward_ad._current_level >= 0:
            return operator(*arguments)
        with_gradient = needs_gradient(arguments) and not torch.is_inference_mode_enabled()
        if torch._C._are_functorch_transforms_active():
            with_gradient = _has_rules(operator, with_gradient)
            return Transformable.apply(*arguments) if with_gradient else below_autograd(*arguments)
        return Differentiable.apply(*arguments) if with_gradient else below_autograd(*arguments)

    return call


def needs_gradient(arguments: Sequence[Any]) -> bool:
    """Whether a call with these arguments, not all of which are tensors, is part of a graph for ``backward()``."""
    if torch.is_grad_enabled():
        for one in arguments:  # a generator takes longer than some kernels' checks
            if isinstance(one, Tensor) and one.requires_grad:
                return True
    return False


def save_nothing(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    """For an operator without a derivative."""


def no_second_derivative(ctx: Any, *grads: Tensor | None) -> Sequence[Tensor]:
    """The derivative of a backward that has none. Raises BackendUnavailable."""
    raise BackendUnavailable(
        "backends 'cpp', 'triton' and 'cuda' have no second derivatives (the gradient of a gradient was asked for). Use "
        "backend='reference', which is differentiable any number of times"
    )


def _samples(count: int, in_dims: Sequence[int | None], arguments: Sequence[Any]) -> list[list[Any]]:
    """The arguments of each sample of a ``vmap``; without samples, one of zeros, which tells the shapes."""
    pairs = list(zip(arguments, in_dims, strict=True))
    if not count:
        return [[a if dim is None else a.new_zeros(a.movedim(dim, 0).shape[1:]) for a, dim in pairs]]
    return [[a if dim is None else a.select(dim, i) for a, dim in pairs] for i in range(count)]


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


def _refuse_transforms(operator: OpOverload, arguments: Sequence[Any]) -> None:
    """Raise BackendUnavailable if forward mode, or a transform of ``torch.func`` that differentiates, reaches the operator."""
    differentiated = torch._C._are_functorch_transforms_active() and needs_gradient(arguments)
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if forward_ad._current_level >= 0 and (differentiated or any(forward_ad.unpack_dual(one).tangent is not None for one in tensors)):
        raise BackendUnavailable(
            "backends 'cpp', 'triton' and 'cuda' have no forward-mode derivatives (torch.func.jvp, jacfwd, hessian; dual numbers). Use "
            "backend='reference', or backend='auto', which takes the reference there unless DCRNN_FAST_BACKEND names another"
        )
    if differentiated:
        raise BackendUnavailable(
            f"{operator} has no derivative under torch.func where torch.ops or a compiled graph calls it. Call the functions of "
            "dcrnn_fast.functional, or the model, with backend='reference' or backend='auto', which takes the reference there"
        )
