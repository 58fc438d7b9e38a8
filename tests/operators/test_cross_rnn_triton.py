"""What the Triton kernels alone have.

tf32: a tensor core drops the last 13 bits of its float32 operands, so the kernels round them first. In the interpreter, the product drops
these bits too.
"""

import pytest
import torch

from dcrnn_fast import reference
from dcrnn_fast.accuracy import CEILING, relative_error

from .backend import on
from .precision import cast
from .problems import cross_arguments

pytestmark = on("triton")

NAMES = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "context")


def errors(operators, backend, steps, rows=24):
    """The relative errors of the output and of the gradients of x0, the context and the weights, in tf32, against float64."""
    arguments = cross_arguments(batch=rows, dim=96, steps=steps, context_dim=40, seed=steps)
    seed = torch.randn(2, rows, 96, dtype=torch.float64)
    exact = cast(arguments, torch.float64)
    leaves = [exact[name].requires_grad_() for name in NAMES]
    out = reference.cross_rnn(**exact)
    expected = [out.detach(), *torch.autograd.grad(out, leaves, seed)]
    given = {name: backend.of({name: value})[name] for name, value in cast(arguments, torch.float32).items()}
    tensors = [given[name] for name in (*NAMES[:5], "index")]
    rest = (steps, "gated", given["context"], None, None, None, False)
    with torch.no_grad():
        out, states, activations = operators.cross_rnn(*tensors, *rest, 3, True)
        grad = seed.float().to(out.device)
        got = [out, *operators.cross_rnn_backward(grad, states, activations, *tensors, *rest, 63, True)]
    triples = zip(("out", *NAMES), got[:7], expected, strict=True)
    return {name: relative_error(one, right) for name, one, right in triples if "bias" not in name}


@pytest.mark.parametrize("schedule", ["step", "all_steps"])
@pytest.mark.parametrize("steps", [3, 6])
def test_tf32_stays_well_below_its_ceiling(backend, steps, schedule):
    from dcrnn_fast.functional import kernel_override
    from dcrnn_fast.operators import triton  # noqa: F401  registers the operators

    with kernel_override("triton", schedule=schedule):
        found = errors(torch.ops.dcrnn_fast_triton, backend, steps)
    for name, error in found.items():
        assert 1e-5 < error < CEILING["tf32"] / 2, f"{name} with {steps} steps: relative error {error:.1e}"


def test_without_rounding_the_errors_are_more_than_twice_as_large(backend):
    from .mutants import mutant_operators

    right, wrong = (errors(mutant_operators(name), backend, 3) for name in (None, "to_tf32"))
    for name, error in wrong.items():
        assert error > 2 * right[name], f"{name}: {error:.1e} without rounding, {right[name]:.1e} with it"
