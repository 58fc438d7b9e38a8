"""cross_rnn in C++: as exact as plain PyTorch, the same bits for any number of threads, and a citizen of PyTorch's stack."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from dcrnn_fast import BackendUnavailable, CrossRNN, SharingPlan, backends, functional, reference

from ..core.precision import assert_as_exact_as_plain_pytorch, cast, results
from ..core.problems import DOUBLE, cross_arguments, differentiable

REFUSED = (ValueError, RuntimeError)  # straight through the dispatcher, PyTorch 2.15 hands a C++ exception on as the latter
pytestmark = pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason=f"no C++ kernels here: {backends.REASONS['cpp']}")

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
operator = torch.ops.dcrnn_fast.cross_rnn if backends.extension() else None


def cpp(**arguments):
    return functional.cross_rnn(**arguments, backend="cpp")


def operands(arguments, **options):
    """The operator's own positional arguments."""
    names = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "index", "steps", "cell", "context")
    return *(arguments[name] for name in names), options.get("return_states", False), options.get("save", True)


SHAPES = {
    "one row": {"batch": 1},
    "three rows": {"batch": 3},
    "several tiles, odd sizes": {"batch": 127, "dim": 33},
    "one unit": {"dim": 1},
    "one task": {"tasks": 1},
    "five tasks": {"tasks": 5, "share_ratio": 0.3},
    "nothing shared": {"share_ratio": 0},
    "all shared": {"share_ratio": 1},
    "one step": {"steps": 1},
    "six steps": {"steps": 6},
    "untied": {"tied": False},
    "context": {"context_dim": 3},
    "wide context, untied, many rows": {"batch": 127, "context_dim": 40, "tied": False, "tasks": 3},
    "several chunks": {"batch": 2600, "dim": 9, "context_dim": 2},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
@pytest.mark.parametrize("cell", ["gated", "cross"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_and_gradients_are_as_exact_as_plain_pytorch(shape, cell, return_states, dtype):
    assert_as_exact_as_plain_pytorch(cross_arguments(cell=cell, **shape), dtype, return_states=return_states)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_recomputing_the_gates_is_as_exact(shape, dtype):
    assert_as_exact_as_plain_pytorch(cross_arguments(**shape), dtype, recompute=True)


ANY_SHAPE = {
    "dim": st.integers(1, 40),
    "tasks": st.integers(1, 4),
    "steps": st.integers(1, 4),
    "cell": st.sampled_from(["gated", "cross"]),
    "tied": st.booleans(),
    "share_ratio": st.sampled_from([0, 0.3, 0.7, 1]),
    "context_dim": st.sampled_from([0, 1, 17]),
    "seed": st.integers(0, 99),
    "return_states": st.booleans(),
    "recompute": st.booleans(),
}


def test_a_single_row_is_as_exact_as_plain_pytorch():
    """For a row or few the library multiplies a matrix by vectors, in one chain of additions: the operator does not let it."""
    torch.manual_seed(6)
    shape = {"batch": 1, "dim": 19, "tasks": 4, "steps": 1, "tied": False, "share_ratio": 0, "context_dim": 1, "seed": 6}
    assert_as_exact_as_plain_pytorch(cross_arguments(**shape), torch.float32, return_states=True)


@settings(max_examples=40)
@given(batch=st.sampled_from([1, 2, 31, 65]), **ANY_SHAPE)
def test_any_shape_is_as_exact_as_plain_pytorch(return_states, recompute, **shape):
    torch.manual_seed(shape["seed"])
    assert_as_exact_as_plain_pytorch(cross_arguments(**shape), torch.float32, return_states=return_states, recompute=recompute)


@pytest.mark.parametrize("share_ratio", [0.3, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_units_that_tasks_share_from_the_first_step_on_are_as_exact(dtype, share_ratio):
    """A plan's index has the same shared rows at the same places for every task, whose first products are computed once."""
    for tied in (True, False):
        plan = SharingPlan.from_ratio("rows", 3, 20, share_ratio, tied=tied)
        arguments = cross_arguments(batch=70, dim=20, tasks=3, share_ratio=share_ratio, tied=tied)
        assert_as_exact_as_plain_pytorch({**arguments, "index": plan.index()}, dtype)
    by_field = SharingPlan.from_fields("rows", 3, [5, 10, 5], [1])
    arguments = cross_arguments(batch=70, dim=20, tasks=3, share_ratio=0.5)
    assert_as_exact_as_plain_pytorch({**arguments, "index": by_field.index()}, dtype, recompute=True)


@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recomputed"])
@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
@pytest.mark.parametrize("cell", ["gated", "cross"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_gradients_match_finite_differences(tied, cell, return_states, recompute):
    arguments = cross_arguments(batch=3, dim=3, steps=2, cell=cell, tied=tied, context_dim=2)
    inputs = differentiable(arguments)

    def run(*values):
        return cpp(**{**arguments, **dict(zip(inputs, values, strict=True))}, return_states=return_states, recompute=recompute)

    assert gradcheck(run, tuple(inputs.values()))


@pytest.mark.parametrize("options", [{}, {"context_dim": 2}, {"cell": "cross"}, {"batch": 0}, {"tied": False, "share_ratio": 1}], ids=str)
def test_the_operators_pass_opcheck(options):
    arguments = cross_arguments(dtype=torch.float32, **options)
    differentiable(arguments)
    for extra in ({}, {"return_states": True}, {"save": False}):
        torch.library.opcheck(operator, operands(arguments, **extra))
        detached = cast(arguments, torch.float32)
        call = operands(detached, **extra)
        out, gates = operator(*call)
        needs = 63 if detached["context"] is not None else 31
        torch.library.opcheck(torch.ops.dcrnn_fast.cross_rnn_backward, (torch.randn_like(out), gates, *call[:-1], needs))


def test_the_check_of_exactness_catches_a_wrong_gradient(monkeypatch):
    """Negative control: a loss of one part in a hundred thousand in a gradient is refused."""
    right = functional.cross_rnn

    def wrong(x0, **arguments):
        return right(x0 * (1 + 1e-5) - x0.detach() * 1e-5, **arguments)

    monkeypatch.setattr(functional, "cross_rnn", wrong)
    with pytest.raises(AssertionError, match="gradient of x0"):
        assert_as_exact_as_plain_pytorch(cross_arguments(batch=127, dim=33), torch.float32)


RUN_AND_PRINT_BITS = """
import sys, hashlib, torch
torch.set_num_threads(int(sys.argv[1]))
from dcrnn_fast import functional
from tests.core.problems import cross_arguments
digest = hashlib.sha256()
for batch, dim, tasks in ((1, 64, 1), (5, 200, 1), (100, 200, 1), (20, 500, 1), (64, 128, 2), (127, 33, 2), (300, 256, 1), (1000, 64, 3)):
    for dtype in (torch.float32, torch.bfloat16):
        arguments = cross_arguments(batch=batch, dim=dim, tasks=tasks, dtype=dtype, context_dim=3)
        digest.update(functional.cross_rnn(**arguments, backend="cpp").float().numpy().tobytes())
print(digest.hexdigest())
"""


def test_the_forward_has_the_same_bits_for_any_number_of_threads():
    runs = [
        subprocess.run([sys.executable, "-c", RUN_AND_PRINT_BITS, str(threads)], capture_output=True, text=True, check=False)
        for threads in (1, 2, 3)
    ]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert len({run.stdout for run in runs}) == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_have_the_same_bits_on_every_run(dtype):
    arguments = cross_arguments(batch=300, dim=32, tasks=3, dtype=dtype, context_dim=3)
    seed = torch.randn(3, 300, 32, dtype=DOUBLE)
    first = results(cpp, cast(arguments, dtype), seed)
    for _ in range(3):
        for name, value in results(cpp, cast(arguments, dtype), seed).items():
            assert torch.equal(value, first[name]), f"{name} differs between runs"


@pytest.mark.parametrize("return_states", [False, True])
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(return_states):
    arguments = cross_arguments(batch=0, context_dim=2)
    inputs = differentiable(arguments)
    out = cpp(**arguments, return_states=return_states)
    assert out.shape == ((2, 4, 0, 5) if return_states else (2, 0, 5))
    for name, gradient in zip(inputs, torch.autograd.grad(out.sum(), list(inputs.values())), strict=True):
        assert gradient.shape == inputs[name].shape, name
        assert torch.count_nonzero(gradient) == 0, name


def test_strided_inputs_give_the_bits_of_contiguous_ones():
    arguments = cross_arguments(batch=70, dim=6, context_dim=2)
    strided = {
        name: torch.stack([value, value], dim=-1)[..., 0] if isinstance(value, torch.Tensor) else value for name, value in arguments.items()
    }
    seed = torch.randn(2, 70, 6, dtype=DOUBLE)
    expected = results(cpp, cast(arguments, DOUBLE), seed)
    inputs = differentiable(strided)
    out = cpp(**strided)
    assert torch.equal(out, expected["out"])
    for name, gradient in zip(inputs, torch.autograd.grad(out, list(inputs.values()), seed), strict=True):
        assert torch.equal(gradient, expected[f"gradient of {name}"]), name


def test_columns_of_a_wider_input_are_read_in_place():
    arguments = cross_arguments(batch=70, dim=6)
    wide = torch.randn(70, 20, dtype=DOUBLE)
    for x0 in (wide[:, 3:9], wide[:1, 3:9].expand(70, -1)):
        expected = cpp(**{**arguments, "x0": x0.contiguous()})
        # the library's order of additions may depend on the alignment
        torch.testing.assert_close(cpp(**{**arguments, "x0": x0}), expected, rtol=1e-13, atol=1e-14)


def test_a_gradient_that_is_expanded_or_strided_is_read_right():
    arguments = cross_arguments(batch=7, dim=6)
    inputs = list(differentiable(arguments).values())
    seed = torch.randn(6, 7, 2, dtype=DOUBLE)
    expected = torch.autograd.grad(cpp(**arguments), inputs, seed.permute(2, 1, 0).contiguous(), allow_unused=True)
    for got, want in zip(torch.autograd.grad(cpp(**arguments), inputs, seed.permute(2, 1, 0), allow_unused=True), expected, strict=True):
        assert torch.equal(got, want)
    expected = torch.autograd.grad(cpp(**arguments), inputs, torch.ones(2, 7, 6, dtype=DOUBLE))
    for got, want in zip(torch.autograd.grad(cpp(**arguments).sum(), inputs), expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recomputed"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nothing_is_read_from_memory_before_it_is_written(dtype, poison, recompute):
    """A run on poison leaves it in the operator's own scratch memory; blocks of many sizes leave it in the allocator's."""
    arguments = cast(cross_arguments(batch=300, dim=33, context_dim=5), dtype)
    seed = torch.randn(2, 4, 300, 33)
    options = {"return_states": True, "recompute": recompute, "backend": "cpp"}
    expected = results(functional.cross_rnn, cast(arguments, dtype), seed, **options)
    for _ in range(2):
        poisoned = {**cast(arguments, dtype), "x0": torch.full_like(arguments["x0"], poison).detach()}
        results(functional.cross_rnn, poisoned, torch.full_like(seed, poison), **options)
        trash = [torch.full((count,), poison, dtype=torch.float64) for count in (2_000, 20_000, 60_000, 120_000, 250_000) for _ in range(4)]
        del trash
        for name, got in results(functional.cross_rnn, cast(arguments, dtype), seed, **options).items():
            assert torch.equal(got, expected[name]), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_stays_in_its_row(value):
    arguments = cross_arguments(batch=40, dim=6, dtype=torch.float32)
    clean = cpp(**arguments)
    arguments["x0"][3, 2] = value
    got = cpp(**arguments)
    assert not torch.isfinite(got[:, 3]).all()
    rest = [row for row in range(40) if row != 3]
    assert torch.equal(got[:, rest], clean[:, rest])


def test_gates_saturate_without_overflow():
    arguments = cross_arguments(batch=9, dim=6, dtype=torch.float32)
    for bank in ("shared_bias", "private_bias"):
        arguments[bank] = arguments[bank] * 1e4
    torch.testing.assert_close(cpp(**arguments), reference.cross_rnn(**arguments), rtol=1e-5, atol=0)


def test_without_gradients_nothing_is_kept():
    arguments = cross_arguments()
    differentiable(arguments)
    with torch.no_grad():
        assert cpp(**arguments).grad_fn is None
    out, gates = operator(*operands(arguments, save=False))
    assert gates.numel() == 0
    assert out.shape == (2, 4, 5)
    with torch.inference_mode():
        torch.testing.assert_close(cpp(**arguments), reference.cross_rnn(**arguments))


def test_only_the_gradients_that_are_needed_are_computed():
    arguments = cross_arguments(context_dim=2)
    call = operands(arguments)
    out, gates = operator(*call)
    everything = torch.ops.dcrnn_fast.cross_rnn_backward(torch.ones_like(out), gates, *call[:-1], 63)
    for needs in (0, 1, 2, 4, 8, 16, 30, 32, 33):
        got = torch.ops.dcrnn_fast.cross_rnn_backward(torch.ones_like(out), gates, *call[:-1], needs)
        for i, (some, full) in enumerate(zip(got, everything, strict=True)):
            wanted = needs >> i & 1 if i in (0, 5) else needs & 0b11110
            assert some.shape == (full.shape if wanted else (0,))
            assert not wanted or torch.equal(some, full)


def test_an_input_changed_between_forward_and_backward_is_detected():
    for name in ("x0", "shared_weight", "private_weight", "index"):
        arguments = cross_arguments()
        differentiable(arguments)
        out = cpp(**arguments)
        with torch.no_grad():
            arguments[name].add_(0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


def test_a_backward_can_run_twice_on_one_graph():
    arguments = cross_arguments(batch=70)
    inputs = list(differentiable(arguments).values())
    out = cpp(**arguments, return_states=True)
    first = torch.autograd.grad(out.sum(), inputs, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(out.sum(), inputs), strict=True):
        assert torch.equal(a, b)


def test_a_second_derivative_is_refused_and_the_remedy_named():
    arguments = cross_arguments()
    x0 = arguments["x0"].requires_grad_()
    (gradient,) = torch.autograd.grad(cpp(**arguments).sum(), x0, create_graph=True)
    with pytest.raises(BackendUnavailable, match="Use backend='reference'"):
        gradient.sum().backward()


@pytest.mark.parametrize("batch", [3, 300])
def test_under_autocast_every_thread_computes_in_bfloat16(batch):
    """The same bits as the operator on inputs cast by hand: neither the calling thread nor a worker casts anything itself."""
    arguments = cross_arguments(batch=batch, dim=32, context_dim=3, dtype=torch.float32)
    expected = cpp(**cast(arguments, torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        got = cpp(**arguments)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, expected)


@pytest.mark.parametrize("save", [False, True])
def test_the_products_inside_the_operator_do_not_see_the_callers_autocast(save):
    arguments = cross_arguments(batch=300, dim=32, dtype=torch.float32)
    expected = operator(*operands(arguments, save=save))
    with torch.autocast("cpu", torch.bfloat16):
        got = operator(*operands(arguments, save=save))
        seed = torch.randn_like(expected[0])
        backward = torch.ops.dcrnn_fast.cross_rnn_backward(seed, got[1], *operands(arguments)[:-1], 31)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
    for a, b in zip(backward, torch.ops.dcrnn_fast.cross_rnn_backward(seed, got[1], *operands(arguments)[:-1], 31), strict=True):
        assert torch.equal(a, b)


def test_gradients_reach_float32_parameters_through_autocast():
    module = CrossRNN(SharingPlan.from_ratio("trunk", 2, 16, 0.5), backend="cpp")
    with torch.autocast("cpu", torch.bfloat16):
        out = module(torch.randn(9, 16))
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("kind", ["rows", "trunk"])
def test_a_module_that_recomputes_gives_the_gradients_of_one_that_keeps(kind):
    plan = SharingPlan.from_ratio(kind, 3, 16, 0.5)
    keeps, recomputes = CrossRNN(plan, backend="cpp"), CrossRNN(plan, backend="cpp", recompute=True)
    recomputes.load_state_dict(keeps.state_dict())
    x0 = torch.randn(50, 16)
    for module in (keeps, recomputes):
        module(x0).square().sum().backward()
    for a, b in zip(keeps.parameters(), recomputes.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_the_operator_refuses_what_would_read_outside_its_tensors():
    """Straight through the dispatcher, as a compiled graph or C++ would call it."""
    arguments = cross_arguments(context_dim=2)
    wrong = {
        "index": (arguments["index"] + 50, "index: got"),
        "private_bias": (arguments["private_bias"][:, 1:], "private_bias: got shape"),
        "shared_weight": (arguments["shared_weight"][..., 1:], "shared_weight: got shape"),
        "context": (arguments["context"][1:], "context: got shape"),
        "x0": (arguments["x0"].float(), "dtype"),
        "cell": ("gru", "cell: got 'gru'"),
        "steps": (0, "steps: got 0"),
    }
    for name, (value, message) in wrong.items():
        with pytest.raises(REFUSED, match=message):
            operator(*operands({**arguments, name: value}))
    out, gates = operator(*operands(arguments))
    call = operands(arguments)[:-1]
    with pytest.raises(REFUSED, match="grad: got shape"):
        torch.ops.dcrnn_fast.cross_rnn_backward(out[:, 1:], gates, *call, 31)
    with pytest.raises(REFUSED, match="gates: got shape"):
        torch.ops.dcrnn_fast.cross_rnn_backward(out, gates[1:], *call, 31)
