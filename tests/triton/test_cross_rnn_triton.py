"""cross_rnn in Triton: as exact as plain PyTorch. On a GPU where there is one, else under Triton's interpreter."""

import pytest
import torch
from torch.autograd import gradcheck

from dcrnn_fast import BackendUnavailable, CrossRNN, SharingPlan, backends, functional, reference

from ..core.precision import assert_as_exact_as_plain_pytorch, cast, relative_error, results
from ..core.problems import DOUBLE, SHAPES, cross_arguments, differentiable

pytestmark = pytest.mark.skipif(backends.REASONS["triton"] is not None, reason=f"no Triton kernels here: {backends.REASONS['triton']}")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
DRAWS = 3 if DEVICE == "cpu" else None  # the interpreter takes a fifth of a second for one


@pytest.fixture(autouse=True)
def _outputs_are_poisoned():
    """Memory that PyTorch allocates is filled with NaN: a value that no kernel wrote is seen."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["step", "all_steps"])
def schedule(request):
    from dcrnn_fast.kernels import tile_choice

    with tile_choice.kernel_override(schedule=request.param):
        yield request.param


def arguments_of(**shape):
    return {
        name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value
        for name, value in cross_arguments(**{"batch": 20, "dim": 17, **shape}).items()
    }


def triton(**arguments):
    return functional.cross_rnn(**arguments, backend="triton")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_and_gradients_are_as_exact_as_plain_pytorch(shape, dtype):
    assert_as_exact_as_plain_pytorch(arguments_of(**shape), dtype, backend="triton", draws=DRAWS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["one row", "one unit", "six steps", "wide context, untied"])
def test_either_schedule_is_as_exact(name, dtype, schedule):
    shape = SHAPES[name]
    assert_as_exact_as_plain_pytorch(arguments_of(**shape), dtype, backend="triton", draws=DRAWS)


@pytest.mark.parametrize("shape", [{"cell": "cross"}, {"context_dim": 3, "tied": False}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_state_and_its_gradients_are_as_exact(dtype, shape, schedule):
    assert_as_exact_as_plain_pytorch(arguments_of(**shape), dtype, backend="triton", draws=DRAWS, return_states=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["one step", "six steps", "wide context, untied"])
def test_recomputing_the_gates_is_as_exact(name, dtype):
    # six steps of states run away: the median of a few draws is luck
    six = name == "six steps"
    assert_as_exact_as_plain_pytorch(
        arguments_of(**SHAPES[name]), dtype, backend="triton", draws=9 if six else DRAWS, recompute=True, return_states=six
    )


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
@pytest.mark.parametrize("cell", ["gated", "cross"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_gradients_match_finite_differences(tied, cell, return_states, recompute):
    arguments = arguments_of(batch=2, dim=2, steps=2, cell=cell, tied=tied, context_dim=1, tasks=2)
    inputs = differentiable(arguments)

    def run(*values):
        return triton(**{**arguments, **dict(zip(inputs, values, strict=True))}, return_states=return_states, recompute=recompute)

    assert gradcheck(run, tuple(inputs.values()), fast_mode=DEVICE == "cpu")  # the interpreter is too slow for every entry


@pytest.mark.parametrize("return_states", [False, True])
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(return_states):
    arguments = arguments_of(batch=0, dim=5, context_dim=2)
    inputs = differentiable(arguments)
    out = triton(**arguments, return_states=return_states)
    assert out.shape == ((2, 4, 0, 5) if return_states else (2, 0, 5))
    for name, gradient in zip(inputs, torch.autograd.grad(out.sum(), list(inputs.values())), strict=True):
        assert gradient.shape == inputs[name].shape, name
        assert torch.count_nonzero(gradient) == 0, name


def test_strided_inputs_give_the_bits_of_contiguous_ones():
    arguments = arguments_of(context_dim=2)
    strided = {
        name: torch.stack([value, value], dim=-1)[..., 0] if isinstance(value, torch.Tensor) else value for name, value in arguments.items()
    }
    seed = torch.randn(17, 20, 2, dtype=DOUBLE, device=DEVICE).permute(2, 1, 0)
    expected = results(triton, cast(arguments, DOUBLE), seed)
    inputs = differentiable(strided)
    out = triton(**strided)
    assert torch.equal(out, expected["out"])
    for name, gradient in zip(inputs, torch.autograd.grad(out, list(inputs.values()), seed), strict=True):
        assert torch.equal(gradient, expected[f"gradient of {name}"]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_outputs_and_gradients_have_the_same_bits_on_every_run(dtype):
    arguments = arguments_of(batch=40, dim=20, tasks=3, context_dim=3)
    seed = torch.randn(3, 40, 20, dtype=DOUBLE, device=DEVICE)
    first = results(triton, cast(arguments, dtype), seed)
    for name, value in results(triton, cast(arguments, dtype), seed).items():
        assert torch.equal(value, first[name]), f"{name} differs between runs"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_stays_in_its_row(value, schedule):
    arguments = cast(arguments_of(), torch.float32)
    clean = triton(**arguments)
    arguments["x0"][3, 2] = value
    got = triton(**arguments)
    assert not torch.isfinite(got[:, 3]).all()
    rest = [row for row in range(20) if row != 3]
    assert torch.equal(got[:, rest], clean[:, rest])


def test_gates_saturate_without_overflow():
    arguments = cast(arguments_of(), torch.float32)
    for bank in ("shared_bias", "private_bias"):
        arguments[bank] = arguments[bank] * 1e4
    exact = reference.cross_rnn(**cast(arguments, DOUBLE))
    plain = relative_error(reference.cross_rnn(**arguments), exact)
    assert relative_error(triton(**arguments), exact) <= max(2 * plain, torch.finfo(torch.float32).eps)


def test_a_row_number_out_of_range_is_an_index_error():
    arguments = arguments_of()
    arguments["index"] = arguments["index"] + 50
    with pytest.raises(IndexError, match="index: got"):
        triton(**arguments)


@pytest.mark.parametrize("stray", [-1, 17, 2**31 - 1])
def test_a_row_number_out_of_range_that_no_check_saw_makes_its_unit_nan(stray, schedule):
    """Where values cannot be read, in a compiled or captured graph, a stray index is loud and reads nothing outside the banks."""
    from dcrnn_fast.kernels import cross_rnn_op

    arguments = arguments_of(steps=1)
    clean = triton(**arguments)
    arguments["index"][1, 4] = stray
    got = cross_rnn_op.cross_rnn(**arguments)
    assert torch.isnan(got[1, :, 4]).all()
    got[1, :, 4] = clean[1, :, 4]
    assert torch.equal(got, clean)


def test_only_the_gradients_that_are_needed_are_computed():
    arguments = arguments_of(context_dim=2)
    for wanted in (["x0"], ["context"], ["shared_weight"], ["private_bias", "x0"]):
        given = {
            n: v.detach().requires_grad_(n in wanted) if isinstance(v, torch.Tensor) and n != "index" else v for n, v in arguments.items()
        }
        exact = {
            n: v.detach().requires_grad_(n in wanted) if isinstance(v, torch.Tensor) and n != "index" else v for n, v in arguments.items()
        }
        triton(**given).square().sum().backward()
        reference.cross_rnn(**exact).square().sum().backward()
        for name, value in given.items():
            if name in wanted:
                torch.testing.assert_close(value.grad, exact[name].grad)
            elif isinstance(value, torch.Tensor):
                assert value.grad is None


def test_an_input_changed_between_forward_and_backward_is_detected():
    for name in ("x0", "shared_weight", "private_weight", "index"):
        arguments = arguments_of()
        differentiable(arguments)
        out = triton(**arguments)
        with torch.no_grad():
            arguments[name].add_(0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


def test_a_backward_can_run_twice_on_one_graph():
    arguments = arguments_of()
    inputs = list(differentiable(arguments).values())
    out = triton(**arguments, return_states=True)
    first = torch.autograd.grad(out.sum(), inputs, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(out.sum(), inputs), strict=True):
        assert torch.equal(a, b)


def test_a_second_derivative_is_refused_and_the_remedy_named():
    arguments = arguments_of()
    x0 = arguments["x0"].requires_grad_()
    (gradient,) = torch.autograd.grad(triton(**arguments).sum(), x0, create_graph=True)
    with pytest.raises(BackendUnavailable, match="Use backend='reference'"):
        gradient.sum().backward()


def test_under_autocast_it_computes_in_bfloat16():
    arguments = cast(arguments_of(), torch.float32)
    expected = triton(**cast(arguments, torch.bfloat16))
    with torch.autocast(DEVICE, torch.bfloat16):
        got = triton(**arguments)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, expected)


@pytest.mark.parametrize("kind", ["rows", "trunk"])
def test_a_module_gives_the_gradients_of_the_reference(kind):
    plan = SharingPlan.from_ratio(kind, 3, 16, 0.5)
    ours, plain = (make(plan, dtype=DOUBLE, device=DEVICE) for make in (CrossRNN, reference.CrossRNN))
    ours.backend = "triton"
    ours.load_state_dict(plain.state_dict())
    x0 = torch.randn(20, 16, dtype=DOUBLE, device=DEVICE)
    for module in (ours, plain):
        module(x0).square().sum().backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
