"""The contract of the operators, written once: schema, shapes for tracing, derivatives and the eager path.

:func:`register` gives a namespace this contract. The compiled kernels implement ``dcrnn_fast``, the Triton kernels ``dcrnn_fast_triton``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op, triton_op

from ..errors import BackendUnavailable
from ..kernels import INTERPRETED
from . import cross_rnn, inference, low_rank_cross_rnn, param_gather
from .autograd import register_derivative, save_nothing

CONTRACTS: dict[str, ModuleType] = {"param_gather": param_gather, "cross_rnn": cross_rnn, "low_rank_cross_rnn": low_rank_cross_rnn}
"""By the operator's name the module of its contract."""
_FORWARD = {name: (one.fake, one.SCHEMA) for name, one in CONTRACTS.items()}
_BACKWARD = {f"{name}_backward": (one.fake_backward, one.SCHEMA_BACKWARD) for name, one in CONTRACTS.items()}
OPERATORS: dict[str, Callable[..., Any]] = {name: fake for name, (fake, _) in (_FORWARD | _BACKWARD).items()}
"""Every operator of the contract, its backward too, by name: the function that computes the shapes for tracing."""
SCHEMAS: dict[str, str] = {name: schema for name, (_, schema) in (_FORWARD | _BACKWARD).items()}
"""Their schemas, which csrc/ops.cpp has too."""

Implementation = Mapping[str, Callable[..., Tensor]]
"""A backend: by the operator's name, the function from its tensors, its options, and whether to recompute, to the output."""


def register(namespace: str, functions: Mapping[str, Callable[..., Any]] | None = None, *, tf32_device: str = "cuda") -> Implementation:
    """Give a namespace of operators the contract. Call it once for each namespace.

    Args:
        namespace: as in ``torch.ops.<namespace>``.
        functions: the operators written in Python, by name; None where a C++ library implements them.
        tf32_device: the type of device on which PyTorch's tf32 setting counts; "cpu" for a GPU's kernels that tests compile for the CPU.

    Raises:
        BackendUnavailable: the namespace lacks an operator, or has one with another schema; it was built from other sources.
    """
    for name, fake in OPERATORS.items():
        operator, schema = f"{namespace}::{name}", SCHEMAS[name]
        if functions is not None:
            # PyTorch's compiler looks into a triton_op and compiles its kernels; it can do nothing with interpreted ones.
            (custom_op if INTERPRETED else triton_op)(operator, functions[name], mutates_args=(), schema=schema)
        check_schema(operator, schema)
        torch.library.register_fake(operator, fake)
    return {name: contract.register_autograd(namespace, tf32_device) for name, contract in CONTRACTS.items()}


def check_schema(operator: str, schema: str) -> None:
    """Raise BackendUnavailable unless an operator "namespace::name" has this schema: it was built from other sources."""
    namespace, _, name = operator.partition("::")
    found = getattr(getattr(torch.ops, namespace), name, None)
    expected = str(torch._C.parse_schema(operator + schema))  # written by PyTorch's own printer, as the other one is
    if found is None or str(found.default._schema) != expected:
        raise BackendUnavailable(f"it was built from other sources, which lack {operator} or its schema; run: pip install -e .")


def register_inference(namespace: str) -> None:
    """Give a namespace of operators in C++ the contract of :mod:`.inference`. Raises BackendUnavailable as :func:`register` does."""
    for name, schema in inference.SCHEMAS.items():
        check_schema(f"{namespace}::{name}", schema)
        torch.library.register_fake(f"{namespace}::{name}", inference.no_trace)
        register_derivative(getattr(getattr(torch.ops, namespace), name).default, save_nothing, inference.no_derivative)
