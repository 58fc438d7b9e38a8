"""From a call to a backend: which one computes, and who checks the arguments."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendUnavailable
from ..support.checks import check_choice
from . import auto, cross_rnn, low_rank_cross_rnn, param_gather
from .auto import measured_backend
from .backends import BACKENDS, REASONS, cuda_extension, extension, requested, require, resolve
from .checks import check_arguments, index_is_checked
from .registry import CONTRACTS, Implementation, Keep, no_override, override_by, register, register_inference

Arguments = param_gather.Arguments | cross_rnn.Arguments | low_rank_cross_rnn.Arguments

REFERENCE = {name: contract.Arguments.by_plain_pytorch for name, contract in CONTRACTS.items()}
IMPLEMENTATIONS: dict[str, Implementation] = {"reference": Implementation(REFERENCE, no_override)}
"""The backends by name, without "triton", which is imported at its first call."""
if extension() is not None:
    try:
        IMPLEMENTATIONS["cpp"] = register("dcrnn_fast", Keep.ACTIVATIONS)
        register_inference("dcrnn_fast")
    except BackendUnavailable as error:
        REASONS["cpp"] = REASONS["cuda"] = f"the C++ extension cannot be used: {error}"
    else:
        _cuda = cuda_extension()
        # one namespace: PyTorch's dispatcher tells a CPU's tensors from a GPU's
        IMPLEMENTATIONS["cuda"] = IMPLEMENTATIONS["cpp"]._replace(
            kernel_override=override_by(_cuda.override_kernels) if _cuda else no_override
        )


def implementation(backend: str) -> Implementation:
    """What a backend that can run here offers."""
    found = IMPLEMENTATIONS.get(backend)
    if found is None:
        from . import triton

        found = triton.IMPLEMENTATION
    return found


def kernel_override(backend: str, **choices: Any) -> AbstractContextManager[None]:
    """Within this context, calls of a backend run the kernels that the choices name; for tests and measurements, in one thread.

    Args:
        backend: a backend by name.
        **choices: for "cuda", ``schedule`` ("step", "all_steps") and ``tiles`` ("small", "large").

    Raises:
        ValueError: an unknown backend or choice, or a choice for a backend that has none.
        BackendUnavailable: the backend cannot run here.
    """
    check_choice("backend", backend, tuple(BACKENDS))
    require(backend)
    return implementation(backend).kernel_override(**choices)


def compute(arguments: Arguments, backend: str, *, recompute: bool = False) -> Tensor:
    """The output of an operator. Nobody has checked the arguments yet, but for this: the first is a tensor.

    The operator of a kernel checks its arguments, except the values of an index on a GPU. Where those were checked before, the kernel runs
    at once, and ``check_arguments`` runs only if it fails, for a better message.
    """
    name = resolve(backend, device=arguments[0].device)
    measures = arguments[0].device.type in auto.DEVICES and requested(backend) == "auto"
    if (measures or name != "reference") and not torch.compiler.is_compiling():
        try:
            if _kernel_checks(arguments, name):
                if measures:
                    name, measures = measured_backend(arguments, recompute, implementation), False
                if name != "reference":  # which checks nothing
                    return _computed(arguments, name, recompute)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            check_arguments(arguments)
            raise
    check_arguments(arguments)
    if measures:
        name = measured_backend(arguments, recompute, implementation)
    return _computed(arguments, name, recompute)


def _kernel_checks(arguments: Arguments, backend: str) -> bool:
    """Whether the operator of a kernel checks all that there is to check."""
    if backend == "cpp":  # which reads an index on the CPU
        return all([value.is_cpu for value in arguments if isinstance(value, Tensor)])
    return all([index_is_checked(index, rows) for index, rows, _, _ in arguments.indices()])


def _computed(arguments: Arguments, backend: str, recompute: bool) -> Tensor:
    return implementation(backend).compute[arguments.operator()](arguments, recompute)
