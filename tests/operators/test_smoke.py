"""A few small calls of every kernel for GPUs: what `make gpu` runs first, and what compute-sanitizer watches."""

import pytest
import torch

from dcrnn_fast import reference
from dcrnn_fast.support.accuracy import relative_error

from .backend import on_every_gpu_kernel, on_gpu_kernels
from .precision import cast, results
from .problems import DOUBLE, arguments_of

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
    """The first compiles and times tiles; a later one launches what is remembered."""
    given = cast(arguments_of(backend, **shape), getattr(torch, dtype))
    of_states = [given["steps"] + 1] if "return_states" in options else []
    seed = torch.randn(len(given["private_bias"]), *of_states, *given["x0"].shape).to(given["x0"])
    exact = results(reference.cross_rnn, cast(given, DOUBLE), seed, return_states=bool(of_states))
    for call in range(1 if backend.is_slow else 3):
        found = results(backend.cross_rnn, cast(given, getattr(torch, dtype)), seed, **options)
        errors = {name: relative_error(found[name], value) for name, value in exact.items()}
        assert all(error < CEILINGS[dtype] for error in errors.values()), f"call {call + 1}: {errors}"  # NaN is wrong


@on_gpu_kernels
def test_three_gathers_are_those_of_the_reference(backend):
    shared, private = (torch.randn(*shape, device=backend.device, requires_grad=True) for shape in ((20, 2, 40), (3, 20, 2, 40)))
    index = torch.randint(0, 40, (3, 40), dtype=torch.int32, device=backend.device)
    for gather in (backend.param_gather,) * (1 if backend.is_slow else 3):
        outs = [one(shared, private, index) for one in (gather, reference.param_gather)]
        for got, right in zip(*([out, *torch.autograd.grad(out.square().sum(), (shared, private))] for out in outs), strict=True):
            torch.testing.assert_close(got, right)
