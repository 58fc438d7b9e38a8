"""The operators by the Triton kernels. Import it at the first call: Triton takes seconds to load."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from torch import Tensor

from .registry import CONTRACTS, register

MODULES = {"param_gather": ("param_gather",) * 2, "cross_rnn": ("cross_rnn", "cross_rnn_backward")}
MODULES["low_rank_cross_rnn"] = "low_rank", "low_rank_backward"
"""By the operator's name the modules of the kernels with its launches, forward and backward."""


def functions(kernels: str = "dcrnn_fast.kernels") -> dict[str, Callable[..., Any]]:
    """The operators by the launches of the package of kernels, or of a copy of it: who calls an operator may have checked nothing."""
    found = {}
    for name, (forward, backward) in MODULES.items():
        contract, backward_name = CONTRACTS[name], f"{name}_backward"
        found[name] = _checked(getattr(import_module(f"{kernels}.{forward}"), name), contract.check)
        found[backward_name] = _checked(getattr(import_module(f"{kernels}.{backward}"), backward_name), contract.check_backward)
    return found


def _checked(launch: Callable[..., Any], check: Callable[..., object]) -> Callable[..., Any]:
    @wraps(launch)  # PyTorch reads its signature, by the names of this module, and looks through it for the kernels that it launches
    def call(*arguments: Any) -> Tensor | tuple[Tensor, ...]:
        check(*arguments)
        found: Tensor | tuple[Tensor, ...] = launch(*arguments)
        return found

    return call


IMPLEMENTATION = register("dcrnn_fast_triton", functions())
