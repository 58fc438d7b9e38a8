"""The operators by the Triton kernels. Import it at the first call: Triton takes seconds to load."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from . import cross_rnn as full_cell
from . import low_rank_cross_rnn as low_rank_cell
from . import param_gather as gather_contract
from .registry import Keep, Needs, register


def functions(kernels: str = "dcrnn_fast.kernels") -> dict[str, Callable[..., Any]]:
    """The operators of the contract by the launches of the package of kernels, or of a copy of it."""
    cell, cell_backward, low_rank_cell_, low_rank_cell_backward, gathers = (
        import_module(f"{kernels}.{name}")
        for name in ("cross_rnn", "cross_rnn_backward_launch", "low_rank", "low_rank_backward", "param_gather")
    )
    # plain names: PyTorch looks through these functions for the kernels that an operator launches
    forward, backward, gather = cell.forward, cell_backward.backward, gathers.gather
    readers_of, sum_rows = gathers.readers_of, gathers.sum_rows
    low_rank, low_rank_backward = low_rank_cell_.low_rank_cross_rnn, low_rank_cell_backward.low_rank_cross_rnn_backward

    def param_gather(*arguments: Any) -> Tensor:
        gather_contract.Arguments(*arguments).check_shapes()
        return gather(*arguments)

    def param_gather_backward(grad: Tensor, *index_and_sizes: Any) -> tuple[Tensor, Tensor]:
        gather_contract.check_backward(grad, *index_and_sizes)
        return sum_rows(grad, readers_of(*index_and_sizes), grad.dtype)

    def cross_rnn(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
        a = full_cell.Arguments(*given)  # the dispatcher drops those that equal their defaults
        if not 0 <= a.keep <= Keep.BOTH:
            raise ValueError(f"keep: got {a.keep}, expected 0 (nothing), 1 (activations), 2 (states) or 3 (both)")
        a.check_shapes()
        problem = cell.Problem.of(a)
        return forward(problem, keep_states=bool(a.keep & Keep.STATES), keep_activations=bool(a.keep & Keep.ACTIVATIONS))

    def cross_rnn_backward(grad: Tensor, states: Tensor, activations: Tensor, needs: int, *given: Any) -> tuple[Tensor, ...]:
        a = full_cell.check_backward(grad, states, activations, needs, *given)
        return backward(cell.Problem.of(a), grad, states, activations, **_wanted(needs))

    def low_rank_cross_rnn(*given: Any) -> tuple[Tensor, Tensor]:
        a = low_rank_cell.Arguments(*given)
        a.check_shapes()
        return low_rank(low_rank_cell_.LowRankProblem.of(a), keep_activations=a.keep)

    def low_rank_cross_rnn_backward(grad: Tensor, activations: Tensor, needs: int, *given: Any) -> tuple[Tensor, ...]:
        a = low_rank_cell.check_backward(grad, activations, needs, *given)
        problem = low_rank_cell_.LowRankProblem.of(a)
        return low_rank_backward(problem, grad, activations, **_wanted(needs), projections=bool(needs & Needs.PROJECTIONS))

    every = param_gather, param_gather_backward, cross_rnn, cross_rnn_backward, low_rank_cross_rnn, low_rank_cross_rnn_backward
    return {function.__name__: function for function in every}


def _wanted(needs: int) -> dict[str, bool]:
    """The gradients that both cells have, by the words of the launches."""
    return {"x0": bool(needs & Needs.X0), "banks": bool(needs & Needs.BANKS), "context": bool(needs & Needs.CONTEXT)}


IMPLEMENTATION = register("dcrnn_fast_triton", Keep.BOTH, functions())
