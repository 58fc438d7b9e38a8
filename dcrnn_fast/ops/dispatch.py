"""From a call to a backend."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendUnavailable
from ..support.tensors import check_tensor
from . import auto_gpu
from .backends import REASONS, extension, requested, resolve
from .registry import CONTRACTS, Implementation, register, register_inference

IMPLEMENTATIONS: dict[str, Implementation] = {"reference": {name: one.by_plain_pytorch for name, one in CONTRACTS.items()}}
"""The backends by name, without "triton", which is imported at its first call."""
if extension() is not None:
    try:
        # one namespace: PyTorch's dispatcher tells a CPU's tensors from a GPU's
        IMPLEMENTATIONS["cpp"] = IMPLEMENTATIONS["cuda"] = register("dcrnn_fast")
        register_inference("dcrnn_fast")
    except BackendUnavailable as error:
        REASONS["cpp"] = REASONS["cuda"] = f"the C++ extension cannot be used: {error}"


def implementation(backend: str) -> Implementation:
    """What a backend that can run here offers."""
    found = IMPLEMENTATIONS.get(backend)
    if found is None:
        from . import triton

        found = triton.IMPLEMENTATION
    return found


def compute(operator: str, tensors: tuple[Any, ...], options: tuple[Any, ...], backend: str) -> Tensor:
    """The output of an operator. The first tensor is one; whoever computes checks the others.

    Args:
        operator: its name.
        tensors: those that may have a gradient, in the order of the gradients, and an index.
        options: its other arguments, and whether to recompute.
        backend: "auto", or a backend by name.
    """
    device = tensors[0].device
    name = resolve(backend, device=device)
    if device.type in auto_gpu.DEVICES and requested(backend) == "auto":
        name = auto_gpu.measured_backend(operator, tensors, options, implementation)
    try:
        return implementation(name)[operator](*tensors, *options)
    except (RuntimeError, ValueError, AttributeError) as error:  # vmap takes a list apart before anything checks it
        if torch.compiler.is_compiling():
            raise
        raise told_by_type(error, operator, tensors) from None


def told_by_type(error: Exception, operator: str, tensors: tuple[Any, ...]) -> Exception:
    """The error by its own type: PyTorch hands a failed check of C++ on as RuntimeError or ValueError, and its dispatcher has its own words
    for what is not a tensor, and for a tensor without a dense layout, of which it finds no kernel."""
    if checked := re.search(r"dcrnn_fast: (TypeError|ValueError|IndexError): (.*)", str(error)):
        return {"TypeError": TypeError, "ValueError": ValueError, "IndexError": IndexError}[checked[1]](checked[2])
    if isinstance(error, ValueError):
        return error
    names, first = (*CONTRACTS[operator].INPUTS, "index"), tensors[0]
    try:
        for name, tensor in zip(names, tensors, strict=False):
            if tensor is not None or name != "context":
                check_tensor(name, tensor, "numbers")
                if tensor.device != first.device:
                    return ValueError(f"{name}: got device {tensor.device}, expected {first.device} as {names[0]} is on")
    except (TypeError, ValueError) as wrong:
        return wrong
    return error
