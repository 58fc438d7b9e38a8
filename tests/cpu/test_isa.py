"""The element-wise passes are compiled for several instruction sets, and a process runs one: each is checked in a process of its own."""

import pytest

from dcrnn_fast.ops import backends

from ..processes import run_python

pytestmark = pytest.mark.skipif(backends.extension() is None, reason=f"no C++ kernels here: {backends.REASONS['cpp']}")


INFO = """
import runpy, sys
sys.argv[1:] = ["info"]
runpy.run_module("dcrnn_fast", run_name="__main__")
"""
EXACTNESS = """
from itertools import product
import torch
from tests.operators.problems import cross_arguments
from tests.operators.precision import assert_as_exact_as_plain_pytorch
torch.manual_seed(0)
for dtype, cell in product((torch.float32, torch.float64, torch.bfloat16, torch.float16), ("gated", "cross")):
    ways = {}, {"return_states": True}, {"recompute": True}
    if dtype in (torch.float64, torch.float16):  # the same passes with other conversions
        ways = ({"return_states": True},)
    for low_rank, small in (({}, {"dim": 1}), ({"rank": 5, "projection_share_ratio": 0.5}, {"dim": 150, "rank": 40})):
        for options in ways:
            assert_as_exact_as_plain_pytorch(cross_arguments(batch=127, dim=37, cell=cell, context_dim=3, **low_rank), dtype, **options)
        assert_as_exact_as_plain_pytorch(cross_arguments(batch=5, cell=cell, tied=False, **small), dtype)
"""
# The gate's weights are the identity, so that its argument is x0 itself; the operator saves the gate for the backward.
SIGMOID = """
import torch
import dcrnn_fast.functional
torch.manual_seed(0)
dim = 37
near, far = torch.linspace(-20, 20, 1000 * dim), torch.linspace(-200, 200, 1000 * dim)
wide = torch.cat([near, far, torch.logspace(-30, 2, 200 * dim), -torch.logspace(-30, 2, 200 * dim)])
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    q = wide.to(dtype).view(-1, dim)
    weight = torch.stack([torch.zeros(dim, dim), torch.eye(dim)], dim=1).to(dtype)[None]
    bias = torch.zeros(1, dim, 2, dtype=dtype)
    none = weight.new_empty(1, 1, 0, 2, dim), weight.new_empty(1, 1, 0, 2)

    def gate(bias):
        return torch.ops.dcrnn_fast.cross_rnn(q, weight, bias, *none, 1, "gated", saved=True)[1][0, 0, :, 1]

    got, exact = gate(bias).double(), torch.sigmoid(q.double())
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    # exp is clamped where its result would leave the normal numbers: below that a gate is as good as zero.
    floor = max(4 * torch.finfo(computed).tiny, torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps)
    rounding = torch.finfo(dtype).eps / 2 + (0 if dtype == computed else 2 * torch.finfo(computed).eps)
    bound = (3 if dtype == computed else 1) * rounding * exact + floor
    worst = ((got - exact).abs() / bound).max()
    assert worst <= 1, f"{dtype}: error {worst:.2f} times the bound, at q = {q.flatten()[((got - exact).abs() / bound).argmax()]}"
    assert ((got >= 0) & (got <= 1)).all(), dtype

    # NaN of either sign, quiet and signalling, with other bits set: the exponential's arithmetic on bits must make a number of none
    size = torch.finfo(dtype).bits
    quiet, integer = torch.tensor(float("nan"), dtype=dtype), getattr(torch, f"int{size}")
    infinity = torch.tensor(float("inf"), dtype=dtype).view(integer).item()
    for pattern in (2 ** (size - 1) - 1, -1, quiet.view(integer).item(), infinity + 1, infinity + 0x12, infinity - 2 ** (size - 1) + 0x23):
        bias[0, 5, 1] = torch.tensor(pattern, dtype=integer).view(dtype)
        poisoned = gate(bias)
        others = [d for d in range(dim) if d != 5]
        assert poisoned[:, 5].isnan().all(), (dtype, hex(pattern))
        assert torch.equal(poisoned[:, others].double(), got[:, others]), (dtype, hex(pattern))
"""


@pytest.mark.parametrize("isa", ["amx", "avx512", "avx2", "baseline"])
def test_each_instruction_set_is_shown_and_as_exact_as_plain_pytorch(isa):
    """And its gate is within one and a half epsilon, and lets NaN pass."""
    done = run_python("-c", INFO + EXACTNESS + SIGMOID, DCRNN_FAST_ISA=isa, DCRNN_FAST_BACKEND=None)
    if "this CPU lacks" in done.stdout:
        pytest.skip(f"this CPU lacks {isa}")
    assert done.returncode == 0, done.stderr
    assert f"CPU kernels for {isa}\n" in done.stdout
    assert "auto on CPU  cpp" in done.stdout


ERRORS = """
from dcrnn_fast.ops import backends
for names in ((), ("cpp",)):
    try:
        backends.resolve(*names)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_a_set_that_is_unknown_is_an_error_that_names_the_sets():
    expected = "DCRNN_FAST_ISA='sse9': expected amx, avx512, avx2 or baseline"
    said = run_python("-c", INFO + ERRORS, DCRNN_FAST_ISA="sse9", DCRNN_FAST_BACKEND=None).stdout
    for words in ("auto on CPU  none: ", "ConfigError: ", "BackendUnavailable: backend='cpp' cannot be used: "):
        assert words + expected in said
