"""The operators by the Triton kernels. Import it at the first call: Triton takes seconds to load."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from torch import Tensor

from . import cross_rnn as full_cell
from . import low_rank_cross_rnn as low_rank_cell
from . import param_gather as gather_rows
from .cross_rnn import Saved
from .registry import register


def functions(kernels: str = "dcrnn_fast.kernels") -> dict[str, Callable[..., Any]]:
    """The operators by the launches of the package of kernels, or of a copy of it: who calls an operator may have checked nothing."""
    modules = {name: import_module(f"{kernels}.{name}") for name in ("param_gather", "cross_rnn", "low_rank")}
    backwards = {name: import_module(f"{kernels}.{name}_backward") for name in ("cross_rnn", "low_rank")}
    # plain names: PyTorch looks through these functions for the kernels that an operator launches
    gather, gather_backward = modules["param_gather"].param_gather, modules["param_gather"].param_gather_backward
    forward, backward = modules["cross_rnn"].cross_rnn, backwards["cross_rnn"].cross_rnn_backward
    low_rank, low_rank_backward = modules["low_rank"].low_rank_cross_rnn, backwards["low_rank"].low_rank_cross_rnn_backward

    @wraps(gather)
    def param_gather(*arguments: Any) -> Tensor:
        gather_rows.check(*arguments)
        return gather(*arguments)

    @wraps(gather_backward)
    def param_gather_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
        gather_rows.check_backward(*arguments)
        return gather_backward(*arguments)

    @wraps(forward)
    def cross_rnn(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        full_cell.check(*arguments)
        return forward(*arguments)

    @wraps(backward)
    def cross_rnn_backward(*arguments: Any) -> tuple[Tensor, ...]:
        full_cell.check_backward(*arguments)
        return backward(*arguments)

    @wraps(low_rank)
    def low_rank_cross_rnn(*arguments: Any) -> tuple[Tensor, Tensor]:
        low_rank_cell.check(*arguments)
        return low_rank(*arguments)

    @wraps(low_rank_backward)
    def low_rank_cross_rnn_backward(*arguments: Any) -> tuple[Tensor, ...]:
        low_rank_cell.check_backward(*arguments)
        return low_rank_backward(*arguments)

    every = param_gather, param_gather_backward, cross_rnn, cross_rnn_backward, low_rank_cross_rnn, low_rank_cross_rnn_backward
    return {function.__name__: function for function in every}


IMPLEMENTATION = register("dcrnn_fast_triton", Saved.BOTH, functions())
