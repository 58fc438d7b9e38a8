"""The operators by the Triton kernels. Import it at the first call: Triton takes seconds to load."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor

from ..kernels import launches, tile_choice
from .checks import Projection, check_banks
from .cross_rnn import check_backward, check_forward
from .param_gather import check_backward as check_gather_backward
from .registry import Keep, Needs, register


def functions(launches: ModuleType) -> dict[str, Callable[..., Any]]:
    """The operators of the contract by the launches of :mod:`dcrnn_fast.kernels.launches`, or of a copy of it."""
    # plain names: PyTorch looks through these functions for the kernels that an operator launches
    forward, backward, gather, sum_rows = launches.forward, launches.backward, launches.gather, launches.sum_rows
    low_rank, low_rank_backward = launches.low_rank_cross_rnn, launches.low_rank_cross_rnn_backward
    replay = launches.replay

    def param_gather(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
        check_banks("shared", shared, "private", private, index)
        return gather(shared, private, index)

    def param_gather_backward(grad: Tensor, index: Tensor, num_shared: int, num_private: int) -> tuple[Tensor, Tensor]:
        check_gather_backward(grad, index, num_shared, num_private)
        return sum_rows(grad, index, num_shared, num_private, grad.dtype)

    def cross_rnn(
        x0: Tensor,
        shared_weight: Tensor,
        shared_bias: Tensor,
        private_weight: Tensor,
        private_bias: Tensor,
        index: Tensor,
        steps: int,
        cell: str = "gated",
        context: Tensor | None = None,
        shared_projection: Tensor | None = None,
        private_projection: Tensor | None = None,
        projection_index: Tensor | None = None,
        return_states: bool = False,
        keep: int = 0,
        allow_tf32: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not 0 <= keep <= Keep.BOTH:
            raise ValueError(f"keep: got {keep}, expected 0 (nothing), 1 (activations), 2 (states) or 3 (both)")
        banks = shared_weight, shared_bias, private_weight, private_bias
        projection = Projection(shared_projection, private_projection, projection_index)
        if any(tensor is not None for tensor in projection):
            if keep & Keep.STATES:
                raise ValueError(f"keep: got {keep}, expected 0 (nothing) or 1 (activations) with a projection")
            check_forward(x0, *banks, index, steps=steps, cell=cell, context=context, projection=projection)
            problem = launches.Problem.of(x0, banks, index, context, steps, cell, return_states, allow_tf32)
            return low_rank(launches.LowRank.of(problem, *projection), keep_activations=bool(keep))
        inputs, kept = (x0, *banks, index, context), bool(keep & Keep.STATES)
        wanted = replay.key(inputs, steps, cell, return_states, keep, allow_tf32)
        recording = replay.find(wanted)
        if recording is not None:
            return recording.run(inputs, return_states=return_states, keep_states=kept and not return_states)
        check_forward(x0, *banks, index, steps=steps, cell=cell, context=context)
        problem = launches.Problem.of(x0, banks, index, context, steps, cell, return_states, allow_tf32)
        with replay.recorded(wanted, inputs):
            return forward(problem, keep_states=kept, keep_activations=bool(keep & Keep.ACTIVATIONS))

    def cross_rnn_backward(
        grad: Tensor,
        states: Tensor,
        activations: Tensor,
        x0: Tensor,
        shared_weight: Tensor,
        shared_bias: Tensor,
        private_weight: Tensor,
        private_bias: Tensor,
        index: Tensor,
        steps: int,
        cell: str,
        context: Tensor | None,
        shared_projection: Tensor | None,
        private_projection: Tensor | None,
        projection_index: Tensor | None,
        return_states: bool,
        needs: int,
        allow_tf32: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        banks = shared_weight, shared_bias, private_weight, private_bias
        options: dict[str, Any] = {"steps": steps, "cell": cell, "context": context, "return_states": return_states, "needs": needs}
        projection = Projection(shared_projection, private_projection, projection_index)
        check_backward(grad, states, activations, x0, *banks, index, projection=projection, **options)
        problem = launches.Problem.of(x0, banks, index, context, steps, cell, return_states, allow_tf32)
        wanted = {"x0": bool(needs & Needs.X0), "banks": bool(needs & Needs.BANKS), "context": bool(needs & Needs.CONTEXT)}
        if projection_index is not None:
            wanted["projections"] = bool(needs & Needs.PROJECTIONS)
            return low_rank_backward(launches.LowRank.of(problem, *projection), grad, activations, **wanted)
        return *backward(problem, grad, states, activations, **wanted), x0.new_empty(0), x0.new_empty(0)

    every = param_gather, param_gather_backward, cross_rnn, cross_rnn_backward
    return {function.__name__: function for function in every}


IMPLEMENTATION = register("dcrnn_fast_triton", Keep.BOTH, functions(launches), tile_choice.kernel_override)
