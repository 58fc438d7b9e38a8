"""A few small calls of every kernel for GPUs: what `make gpu` runs first, and what compute-sanitizer watches."""

import pytest
import torch

from dcrnn_fast import reference
from dcrnn_fast.support.accuracy import relative_error

from .backend import on_every_gpu_kernel, on_gpu_kernels
from .precision import cast, results
from .problems import DOUBLE, arguments_of, cross_arguments, differentiable

CEILINGS = {"float32": 1e-4, "bfloat16": 5e-2}
"""Of faults, not of rounding: other tests ask for more."""
FULL, LOW_RANK = {"batch": 33, "dim": 24, "context_dim": 9}, {"batch": 21, "dim": 24, "context_dim": 9, "rank": 5}
CALLS = [
    *[(shape, dtype, {}) for shape in (FULL, LOW_RANK, {"batch": 3, "tied": False, "cell": "cross"}) for dtype in ("float32", "bfloat16")],
    *[(shape, "float32", option) for shape in (FULL, LOW_RANK) for option in ({"return_states": True}, {"recompute": True})],
]


@on_every_gpu_kernel
@pytest.mark.parametrize(("shape", "dtype", "options"), CALLS, ids=str)
def test_three_calls_are_near_float64(backend, shape, dtype, options):
    """The first compiles and times tiles; what launches are remembered, a later one makes."""
    given = cast(arguments_of(backend, **shape), getattr(torch, dtype))
    of_states = [given["steps"] + 1] if "return_states" in options else []
    seed = torch.randn(len(given["index"]), *of_states, *given["x0"].shape).to(given["x0"])
    exact = results(reference.cross_rnn, cast(given, DOUBLE), seed, return_states=bool(of_states))
    for call in range(1 if backend.is_slow else 3):
        found = results(backend.cross_rnn, cast(given, getattr(torch, dtype)), seed, **options)
        errors = {name: relative_error(found[name], value) for name, value in exact.items()}
        assert all(error < CEILINGS[dtype] for error in errors.values()), f"call {call + 1}: {errors}"  # NaN is wrong


@on_gpu_kernels
def test_three_gathers_are_those_of_the_reference(backend):
    arguments = backend.of(cross_arguments(dim=40, tasks=3, dtype=torch.float32))
    given = {name: arguments[name] for name in ("shared_weight", "private_weight", "index")}
    leaves = list(differentiable(given).values())
    for gather in (backend.param_gather,) * (1 if backend.is_slow else 3):
        for got, right in zip(*(_with_gradients(one(*given.values()), leaves) for one in (gather, reference.param_gather)), strict=True):
            torch.testing.assert_close(got, right)


def _with_gradients(out, leaves):
    return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]
