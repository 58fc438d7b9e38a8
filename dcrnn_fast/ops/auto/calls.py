"""Which backend ``auto`` takes for a call of an operator: whether anything may be measured there, and what the choice depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...support.tracing import may_read_values, observed, transformed
from ..backends import BACKENDS, REASONS
from ..checks import check_arguments
from ..cross_rnn import tf32
from . import decision
from .choice import INPUTS, STATIC, Key, bucket
from .examiner import Problem, Run, numbers


def measured_backend(arguments: Any, recompute: bool, implementation: Callable[[str], Any]) -> str:
    """The backend that ``auto`` takes for a call on a device where it measures.

    Args:
        arguments: of an operator, as :class:`..cross_rnn.Arguments`. They are checked before a measurement.
        recompute: as in :func:`dcrnn_fast.functional.cross_rnn`.
        implementation: what a backend offers, see :class:`..registry.Implementation`.
    """
    if transformed():
        return STATIC
    operator, first = arguments.operator, arguments[0]
    inputs = {name: getattr(arguments, name) for name in INPUTS[operator] if getattr(arguments, name) is not None}
    tensors, indices, sizes = list(inputs.values()), [index for index, *_ in arguments.indices], arguments.sizes(recompute)
    kind = _kind(operator, first)
    needed = [torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors]
    needs = tuple([name for name, need in zip(inputs, needed, strict=True) if need])
    if torch.compiler.is_compiling():
        return _in_traced_graph(operator, kind, needs, sizes, tensors)
    # what is no plain tensor has no values to check, and nobody may see a measurement
    if observed() or any([type(tensor) not in (Tensor, Parameter) for tensor in (*tensors, *indices)]):
        return STATIC
    if _is_empty(operator, first, indices[0]):
        return STATIC
    key = Key(operator, kind, needs, sizes, bucket(first.shape[0]) if _has_batch(operator) else 0)
    if not may_read_values(first):
        return decision.backend_in_capture(key, first.device)

    def candidates() -> dict[str, Run]:
        by_backend = {name: implementation(name).compute[operator] for name in _candidates(first.device.type)}
        return {name: partial(_run, compute, arguments, tuple(inputs), recompute) for name, compute in by_backend.items()}

    def problem() -> Problem:
        if _has_batch(operator):
            with_rows = {"x0": 0, "context": 1}
            row_dimension = {i: with_rows[name] for i, name in enumerate(inputs) if name in with_rows}
            return Problem(tuple(tensors), row_dimension, tuple(needed), kind)
        # rows are copied whatever they hold, and a bias that starts at zero would show nothing
        return Problem(tuple([numbers(tensor).to(tensor.dtype) for tensor in tensors]), {}, tuple(needed), kind)

    return decision.backend_for(key, first.device, candidates, problem, partial(check_arguments, arguments))


def _run(compute: Callable[[Any, bool], Tensor], arguments: Any, names: tuple[str, ...], recompute: bool, *inputs: Tensor) -> Tensor:
    """Compute with other inputs in place of those of a call."""
    return compute(arguments._replace(**dict(zip(names, inputs, strict=True))), recompute)


def _kind(operator: str, first: Tensor) -> str:
    """The dtype as the products see it."""
    if operator != "param_gather" and first.is_cuda and first.dtype == torch.float32 and tf32():
        return "tf32"
    return str(first.dtype).removeprefix("torch.")


def _has_batch(operator: str) -> bool:
    return operator != "param_gather"


def _in_traced_graph(operator: str, kind: str, needs: tuple[str, ...], sizes: Sequence[int], tensors: Sequence[Tensor]) -> str:
    """The same while a graph is traced. Sizes that the graph leaves open stay open: they take the static rule."""
    symbolic = torch.fx.experimental.symbolic_shapes
    if any([is_traceable_wrapper_subclass(tensor) for tensor in tensors]) or not all([symbolic.has_static_value(size) for size in sizes]):
        return STATIC
    # the tracer holds some fixed sizes as symbols, which are no constants to a function
    fixed = tuple([int(symbolic.guard_scalar(size)) for size in sizes])
    # export needs no `no_grad` to make a program for inference: that parameters require gradients says nothing there
    preferred = ((), needs) if torch.compiler.is_exporting() else (needs,)
    return decision.backend_in_graph(operator, kind, preferred, fixed, tensors[0].device)


def _is_empty(operator: str, first: Tensor, index: Tensor) -> bool:
    """Whether the output has no values."""
    return index.numel() == 0 or 0 in (first.shape if _has_batch(operator) else first.shape[1:])


def _candidates(device: str) -> list[str]:
    """The reference, and the backends that can run on a type of device."""
    others = [one.name for one in BACKENDS.values() if device in one.devices and REASONS[one.name] is None]
    return [STATIC, *(name for name in others if name != STATIC)]
