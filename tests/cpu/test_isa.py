"""The element-wise passes are compiled for several instruction sets, and a process runs one: each is checked in a process of its own."""

import json
from functools import cache

import pytest

from dcrnn_fast.ops import backends

from ..processes import run_python

pytestmark = pytest.mark.skipif(backends.extension() is None, reason=f"no C++ kernels here: {backends.REASONS['cpp']}")


RUN = """
import json, runpy, sys, traceback
from contextlib import redirect_stdout
from io import StringIO
codes, sys.argv[1:] = sys.argv[1:], ["info"]
with redirect_stdout(StringIO()) as printed:
    runpy.run_module("dcrnn_fast", run_name="__main__")
said = {"info": printed.getvalue()}
for code in [] if "this CPU lacks" in said["info"] else codes:
    try:
        exec(code, {})
        said[code] = ""
    except BaseException:
        said[code] = traceback.format_exc()
print(json.dumps(said))
"""


@cache
def said(isa, *codes):
    """What a process with these instruction sets prints on ``info``, and then ends with in each of the codes: "" if all is well."""
    done = run_python("-c", RUN, *codes, DCRNN_FAST_ISA=isa, DCRNN_FAST_BACKEND=None)
    assert done.returncode == 0, f"with DCRNN_FAST_ISA={isa}:\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(params=["amx", "avx512", "avx2", "baseline"])
def found(request):
    """What the process of these instruction sets has said."""
    answer = said(request.param, EXACTNESS, SIGMOID)
    if "this CPU lacks" in answer["info"]:
        pytest.skip(f"this CPU lacks {request.param}")
    return {"isa": request.param, **answer}


def test_info_shows_the_set_in_use(found):
    assert f"CPU kernels for {found['isa']}\n" in found["info"]
    assert "auto on CPU  cpp" in found["info"]


EXACTNESS = """
import torch
from tests.operators.problems import cross_arguments
from tests.operators.precision import assert_as_exact_as_plain_pytorch
torch.manual_seed(0)
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for cell in ("gated", "cross"):
        ways = {}, {"return_states": True}, {"recompute": True}
        if dtype in (torch.float64, torch.float16):  # the same passes with other conversions
            ways = ({"return_states": True},)
        arguments = cross_arguments(batch=127, dim=37, cell=cell, context_dim=3)
        for options in ways:
            assert_as_exact_as_plain_pytorch(arguments, dtype, **options)
        assert_as_exact_as_plain_pytorch(cross_arguments(batch=5, dim=1, cell=cell, tied=False), dtype)
        arguments = cross_arguments(batch=127, dim=37, cell=cell, context_dim=3, rank=5, projection_share_ratio=0.5)
        for options in ways:
            assert_as_exact_as_plain_pytorch(arguments, dtype, **options)
        assert_as_exact_as_plain_pytorch(cross_arguments(batch=5, dim=150, cell=cell, rank=40, tied=False), dtype)
"""


def test_outputs_and_gradients_are_as_exact_as_plain_pytorch(found):
    assert not found[EXACTNESS], found[EXACTNESS]


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


def test_the_gate_is_within_one_and_a_half_epsilon_and_lets_nan_pass(found):
    assert not found[SIGMOID], found[SIGMOID]


ERRORS = """
from dcrnn_fast.ops import backends
told = []
for names in ((), ("cpp",)):
    try:
        backends.resolve(*names)
    except Exception as error:
        told.append(f"{type(error).__name__}: {error}")
raise RuntimeError("; ".join(told))
"""


def test_a_set_that_is_unknown_is_an_error_that_names_the_sets():
    expected = "DCRNN_FAST_ISA='sse9': expected amx, avx512, avx2 or baseline"
    answer = said("sse9", ERRORS)
    assert f"auto on CPU  none: {expected}" in answer["info"]
    assert f"ConfigError: {expected}" in answer[ERRORS]
    assert f"BackendUnavailable: backend='cpp' cannot be used: {expected}" in answer[ERRORS]
