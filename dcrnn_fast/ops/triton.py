"""The operators by the Triton kernels. Import it at the first call: Triton takes seconds to load."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor

from ..kernels import launches, tile_choice
from . import cross_rnn as full_cell
from . import low_rank_cross_rnn as low_rank_cell
from . import param_gather as gather_contract
from .registry import Keep, Needs, register


def functions(launches: ModuleType) -> dict[str, Callable[..., Any]]:
    """The operators of the contract by the launches of :mod:`dcrnn_fast.kernels.launches`, or of a copy of it."""
    # plain names: PyTorch looks through these functions for the kernels that an operator launches
    forward, backward, gather = launches.forward, launches.backward, launches.gather
    readers_of, sum_rows = launches.readers_of, launches.sum_rows
    low_rank, low_rank_backward = launches.low_rank_cross_rnn, launches.low_rank_cross_rnn_backward
    replay = launches.replay

    def param_gather(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
        gather_contract.Arguments(shared, private, index).check_shapes()
        return gather(shared, private, index)

    def param_gather_backward(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> tuple[Tensor, Tensor]:
        gather_contract.check_backward(grad, index, num_shared, num_private)
        return sum_rows(grad, readers_of(index, num_shared, num_private), grad.dtype)

    def cross_rnn(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        a = full_cell.Arguments(*arguments)
        if not 0 <= a.keep <= Keep.BOTH:
            raise ValueError(f"keep: got {a.keep}, expected 0 (nothing), 1 (activations), 2 (states) or 3 (both)")
        inputs, keep_states = (*a[:6], a.context), bool(a.keep & Keep.STATES)
        wanted = replay.key(inputs, a.steps, a.cell, a.return_states, a.keep, a.allow_tf32)
        recording = replay.find(wanted)
        if recording is not None:
            return recording.run(inputs, return_states=a.return_states, keep_states=keep_states and not a.return_states)
        a.check_shapes()
        problem = launches.Problem.of(a)
        with replay.recorded(wanted, inputs):
            return forward(problem, keep_states=keep_states, keep_activations=bool(a.keep & Keep.ACTIVATIONS))

    def cross_rnn_backward(grad: Tensor, states: Tensor, activations: Tensor, needs: int, *arguments: Any) -> tuple[Tensor, ...]:
        problem = launches.Problem.of(full_cell.check_backward(grad, states, activations, needs, *arguments))
        return backward(problem, grad, states, activations, **_wanted(needs))

    def low_rank_cross_rnn(*arguments: Any) -> tuple[Tensor, Tensor]:
        a = low_rank_cell.Arguments(*arguments)
        a.check_shapes()
        return low_rank(launches.LowRankProblem.of(a), keep_activations=a.keep)

    def low_rank_cross_rnn_backward(grad: Tensor, activations: Tensor, needs: int, *arguments: Any) -> tuple[Tensor, ...]:
        problem = launches.LowRankProblem.of(low_rank_cell.check_backward(grad, activations, needs, *arguments))
        return low_rank_backward(problem, grad, activations, **_wanted(needs), projections=bool(needs & Needs.PROJECTIONS))

    every = param_gather, param_gather_backward, cross_rnn, cross_rnn_backward, low_rank_cross_rnn, low_rank_cross_rnn_backward
    return {function.__name__: function for function in every}


def _wanted(needs: int) -> dict[str, bool]:
    """The gradients that both cells have, by the words of the launches."""
    return {"x0": bool(needs & Needs.X0), "banks": bool(needs & Needs.BANKS), "context": bool(needs & Needs.CONTEXT)}


IMPLEMENTATION = register("dcrnn_fast_triton", Keep.BOTH, functions(launches), tile_choice.kernel_override)
