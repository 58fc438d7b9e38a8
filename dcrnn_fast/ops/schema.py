"""Declares operators to PyTorch: their schemas from classes of arguments, and the functions that compute shapes for tracing."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, get_type_hints

import torch
from torch import Tensor
from torch.library import infer_schema

from ..errors import BackendUnavailable


def with_arguments(function: Callable[..., Any], arguments: Any, results: int, **first: type) -> Callable[..., Any]:
    """The function of ``*arguments``, with a signature that PyTorch reads: the fields of a ``NamedTuple``, and so many tensors as results.

    With ``first``, the arguments of a backward by name: they come before those of the forward, of which the last is left out, as it
    says what is kept. None of them has a default.
    """
    kinds, defaults = get_type_hints(arguments), {} if first else arguments._field_defaults
    fields = arguments._fields[:-1] if first else arguments._fields
    kind = Parameter.POSITIONAL_OR_KEYWORD
    parameters = [Parameter(name, kind, annotation=of_type) for name, of_type in first.items()]
    parameters += [Parameter(name, kind, annotation=kinds[name], default=defaults.get(name, Parameter.empty)) for name in fields]
    function.__signature__ = Signature(parameters, return_annotation=tuple[(Tensor,) * results])  # type: ignore[attr-defined, misc]
    return function


def register_shapes(operator: str, shapes: Callable[..., Any]) -> None:
    """Register the function that computes the shapes for tracing, of an operator "namespace::name" that is there.

    Raises:
        BackendUnavailable: it is missing or has another schema; it was built from other sources.
    """
    namespace, _, name = operator.partition("::")
    found = getattr(getattr(torch.ops, namespace), name, None)
    schema = infer_schema(shapes, mutates_args=())
    expected = str(torch._C.parse_schema(operator + schema))  # written by PyTorch's own printer, as the other one is
    if found is None or str(found.default._schema) != expected:
        raise BackendUnavailable(f"it was built from other sources, which lack {operator} or its schema; run: pip install -e .")
    torch.library.register_fake(operator, shapes)
