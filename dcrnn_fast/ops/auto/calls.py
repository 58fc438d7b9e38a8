"""Which backend ``auto`` takes for a call of an operator: whether anything may be measured there, and what the choice depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...support.tracing import may_read_values, observed, transformed
from ..backends import BACKENDS, REASONS
from . import decision
from .choice import STATIC, Key, bucket
from .examiner import Problem, Run, numbers


def backend_of(
    operator: str,
    kind: str,
    inputs: Mapping[str, Tensor],
    indices: Sequence[Tensor],
    sizes: Sequence[int],
    run_of: Callable[[str], Run],
    check: Callable[[], None],
) -> str:
    """The backend that ``auto`` takes for a call on a device where it measures.

    Args:
        operator: "cross_rnn" or "param_gather".
        kind: the dtype as the products see it.
        inputs: the differentiable inputs by name, in the order of :data:`~dcrnn_fast.ops.auto.choice.INPUTS`, without those that are None.
        indices: the index of the banks, and that of the projection where there is one.
        sizes: see :data:`~dcrnn_fast.ops.auto.choice.SIZES`.
        check: raises if the arguments do not fit each other; called before a measurement.
        run_of: returns the operator of a backend, from the differentiable inputs to the output.
    """
    tensors = list(inputs.values())
    first = tensors[0]
    if transformed():
        return STATIC
    needed = [torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors]
    needs = tuple([name for name, need in zip(inputs, needed, strict=True) if need])
    if torch.compiler.is_compiling():
        return _in_traced_graph(operator, kind, needs, sizes, tensors)
    # what is no plain tensor has no values to check, and nobody may see a measurement
    if observed() or any([type(tensor) not in (Tensor, Parameter) for tensor in (*tensors, *indices)]):
        return STATIC
    if _is_empty(operator, first, indices[0]):
        return STATIC
    has_batch = operator == "cross_rnn"
    key = Key(operator, kind, needs, tuple(sizes), bucket(first.shape[0]) if has_batch else 0)
    if not may_read_values(first):
        return decision.backend_in_capture(key, first.device)

    def problem() -> Problem:
        if has_batch:
            with_rows = {"x0": 0, "context": 1}
            row_dimension = {i: with_rows[name] for i, name in enumerate(inputs) if name in with_rows}
            return Problem(tuple(tensors), row_dimension, tuple(needed), kind)
        # rows are copied whatever they hold, and a bias that starts at zero would show nothing
        return Problem(tuple([numbers(tensor).to(tensor.dtype) for tensor in tensors]), {}, tuple(needed), kind)

    return decision.backend_for(key, first.device, lambda: {name: run_of(name) for name in _candidates(first.device.type)}, problem, check)


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
    return index.numel() == 0 or 0 in (first.shape if operator == "cross_rnn" else first.shape[1:])


def _candidates(device: str) -> list[str]:
    """The reference, and the backends that can run on a type of device."""
    others = [one.name for one in BACKENDS.values() if device in one.devices and REASONS[one.name] is None]
    return [STATIC, *(name for name in others if name != STATIC)]
