"""cross_rnn in CUDA C++: as exact as plain PyTorch. On a GPU where there is one, else compiled for the CPU."""

from contextlib import contextmanager

import pytest
import torch
from torch.autograd import gradcheck

from dcrnn_fast import BackendUnavailable, CrossRNN, SharingPlan, functional, reference

from ..core.precision import assert_as_exact_as_plain_pytorch, cast, relative_error, results
from ..core.problems import DOUBLE, SHAPES, cross_arguments, differentiable

TF32 = "tf32"
KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16, TF32)
KERNELS = {
    "a launch a step, small tiles": {"schedule": "step", "tiles": "small"},
    "a launch a step, large tiles": {"schedule": "step", "tiles": "large"},
    "one launch": {"schedule": "all_steps"},
}
FEW = ("one row", "rows of 8 values", "wide context, untied")


@contextmanager
def float32_precision(name):
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = name
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def check(cuda, shape, kind, **options):
    """tf32 has no peer on a CPU. Its ceiling is 2e-3, and for six steps float16's, whose significand is as long."""
    arguments = cuda.of(cross_arguments(**{"batch": 20, "dim": 17, **shape}))
    six_steps = shape.get("steps") == 6  # of which states run away: the median of a few draws is luck
    draws = 9 if six_steps else 3
    if kind != TF32:
        assert_as_exact_as_plain_pytorch(arguments, kind, backend="cuda", draws=draws, **options)
        return
    with float32_precision("tf32"):
        assert_as_exact_as_plain_pytorch(
            arguments, torch.float32, backend="cuda", draws=draws, ceiling=8e-3 if six_steps else 2e-3, **options
        )


def arguments_of(cuda, **shape):
    return cuda.of(cross_arguments(**{"batch": 20, "dim": 17, **shape}))


def kernels(**arguments):
    return functional.cross_rnn(**arguments, backend="cuda")


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_and_gradients_are_as_exact_as_plain_pytorch(cuda, shape, kind):
    check(cuda, shape, kind)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, TF32], ids=str)
@pytest.mark.parametrize("choice", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("name", FEW)
def test_every_kernel_is_as_exact(cuda, name, choice, kind):
    with cuda.forced(**choice):
        check(cuda, SHAPES[name], kind)


def test_several_large_tiles_are_as_exact(cuda):
    arguments = cuda.of(cross_arguments(batch=140, dim=72, steps=2))
    with cuda.forced(schedule="step", tiles="large"):
        assert_as_exact_as_plain_pytorch(arguments, torch.bfloat16, backend="cuda", draws=1)


@pytest.mark.parametrize("choice", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize(
    ("shape", "kind"), [({"cell": "cross"}, torch.bfloat16), ({"context_dim": 3, "tied": False}, torch.float32)], ids=str
)
def test_every_state_and_its_gradients_are_as_exact(cuda, shape, kind, choice):
    with cuda.forced(**choice):
        check(cuda, shape, kind, return_states=True)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_recomputing_the_gates_is_as_exact(cuda, kind):
    check(cuda, SHAPES["wide context, untied"], kind, recompute=True)


def test_recomputing_gives_the_bits_of_keeping(cuda):
    arguments = cast(arguments_of(cuda, context_dim=8, dim=24), torch.bfloat16)
    seed = torch.randn(2, 20, 24, dtype=DOUBLE, device=cuda.device)
    kept = results(kernels, cast(arguments, torch.bfloat16), seed)
    for name, value in results(kernels, cast(arguments, torch.bfloat16), seed, recompute=True).items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [{"dim": 70, "batch": 40}, {"dim": 24, "context_dim": 8, "tied": False}], ids=str)
def test_every_schedule_and_tile_gives_the_same_output_bits(cuda, shape, kind):
    arguments = cast(arguments_of(cuda, **shape), kind)
    outputs = []
    for choice in KERNELS.values():
        with cuda.forced(**choice):
            outputs.append(kernels(**arguments, return_states=True))
    for output in outputs[1:]:
        assert torch.equal(output, outputs[0])


@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
@pytest.mark.parametrize("cell", ["gated", "cross"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_gradients_match_finite_differences(cuda, tied, cell, return_states):
    arguments = arguments_of(cuda, batch=2, dim=2, steps=2, cell=cell, tied=tied, context_dim=1, tasks=2)
    inputs = differentiable(arguments)

    def run(*values):
        return kernels(**{**arguments, **dict(zip(inputs, values, strict=True))}, return_states=return_states)

    assert gradcheck(run, tuple(inputs.values()), fast_mode=cuda.device == "cpu")


@pytest.mark.parametrize("return_states", [False, True])
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(cuda, return_states):
    arguments = arguments_of(cuda, batch=0, dim=5, context_dim=2)
    inputs = differentiable(arguments)
    out = kernels(**arguments, return_states=return_states)
    assert out.shape == ((2, 4, 0, 5) if return_states else (2, 0, 5))
    for name, gradient in zip(inputs, torch.autograd.grad(out.sum(), list(inputs.values())), strict=True):
        assert gradient.shape == inputs[name].shape, name
        assert torch.count_nonzero(gradient) == 0, name


def test_strided_inputs_give_the_bits_of_contiguous_ones(cuda):
    arguments = arguments_of(cuda, context_dim=2)
    strided = {n: torch.stack([v, v], dim=-1)[..., 0] if isinstance(v, torch.Tensor) else v for n, v in arguments.items()}
    seed = torch.randn(17, 20, 2, dtype=DOUBLE, device=cuda.device).permute(2, 1, 0)
    expected = results(kernels, cast(arguments, DOUBLE), seed)
    inputs = differentiable(strided)
    out = kernels(**strided)
    assert torch.equal(out, expected["out"])
    for name, gradient in zip(inputs, torch.autograd.grad(out, list(inputs.values()), seed), strict=True):
        assert torch.equal(gradient, expected[f"gradient of {name}"]), name


def test_rows_that_begin_off_a_boundary_of_16_bytes_give_the_same_bits(cuda):
    """Such memory is read value by value, in the same order."""
    arguments = cast(arguments_of(cuda, dim=24), torch.bfloat16)
    shifted = dict(arguments)
    for name in ("x0", "shared_weight"):
        memory = torch.empty(arguments[name].numel() + 1, dtype=torch.bfloat16, device=cuda.device)
        shifted[name] = memory[1:].view(arguments[name].shape).copy_(arguments[name])
    assert torch.equal(kernels(**shifted), kernels(**arguments))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_outputs_and_gradients_have_the_same_bits_on_every_run(cuda, kind):
    arguments = arguments_of(cuda, batch=40, dim=20, tasks=3, context_dim=3)
    seed = torch.randn(3, 40, 20, dtype=DOUBLE, device=cuda.device)
    first = results(kernels, cast(arguments, kind), seed)
    for name, value in results(kernels, cast(arguments, kind), seed).items():
        assert torch.equal(value, first[name]), f"{name} differs between runs"


@pytest.mark.parametrize("choice", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_stays_in_its_row(cuda, value, choice):
    arguments = cast(arguments_of(cuda), torch.float32)
    with cuda.forced(**choice):
        clean = kernels(**arguments)
        arguments["x0"][3, 2] = value
        got = kernels(**arguments)
    assert not torch.isfinite(got[:, 3]).all()
    rest = [row for row in range(20) if row != 3]
    assert torch.equal(got[:, rest], clean[:, rest])


def test_gates_saturate_without_overflow(cuda):
    arguments = cast(arguments_of(cuda), torch.float32)
    for bank in ("shared_bias", "private_bias"):
        arguments[bank] = arguments[bank] * 1e4
    exact = reference.cross_rnn(**cast(arguments, DOUBLE))
    plain = relative_error(reference.cross_rnn(**arguments), exact)
    assert relative_error(kernels(**arguments), exact) <= max(2 * plain, torch.finfo(torch.float32).eps)


def test_a_row_number_out_of_range_is_an_index_error(cuda):
    arguments = arguments_of(cuda)
    arguments["index"] = arguments["index"] + 50
    with pytest.raises(IndexError, match="index: got"):
        kernels(**arguments)


@pytest.mark.parametrize("choice", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("stray", [-1, 17, 2**31 - 1])
def test_a_row_number_out_of_range_that_no_check_saw_makes_its_unit_nan(cuda, stray, choice):
    """Where values cannot be read, in a compiled or captured graph, a stray index is loud and reads nothing outside the banks."""
    arguments = arguments_of(cuda, steps=1)
    with cuda.forced(**choice):
        clean = kernels(**arguments)
        arguments["index"][1, 4] = stray
        got = cuda.operators.cross_rnn(**arguments)
    assert torch.isnan(got[1, :, 4]).all()
    got[1, :, 4] = clean[1, :, 4]
    assert torch.equal(got, clean)


def test_only_the_gradients_that_are_needed_are_computed(cuda):
    arguments = arguments_of(cuda, context_dim=2)
    for wanted in (["x0"], ["context"], ["shared_weight"], ["private_bias", "x0"]):
        given, exact = (
            {n: v.detach().requires_grad_(n in wanted) if isinstance(v, torch.Tensor) and n != "index" else v for n, v in arguments.items()}
            for _ in range(2)
        )
        kernels(**given).square().sum().backward()
        reference.cross_rnn(**exact).square().sum().backward()
        for name, value in given.items():
            if name in wanted:
                torch.testing.assert_close(value.grad, exact[name].grad)
            elif isinstance(value, torch.Tensor):
                assert value.grad is None


def test_a_second_derivative_is_refused_and_the_remedy_named(cuda):
    arguments = arguments_of(cuda)
    x0 = arguments["x0"].requires_grad_()
    (gradient,) = torch.autograd.grad(kernels(**arguments).sum(), x0, create_graph=True)
    with pytest.raises(BackendUnavailable, match="Use backend='reference'"):
        gradient.sum().backward()


def test_under_autocast_it_computes_in_bfloat16(cuda):
    arguments = cast(arguments_of(cuda), torch.float32)
    seed = torch.randn(2, 20, 17, dtype=DOUBLE, device=cuda.device)
    expected = results(kernels, cast(arguments, torch.bfloat16), seed)
    with torch.autocast(cuda.device, torch.bfloat16):
        got = results(kernels, arguments, seed)
    assert got["out"].dtype == torch.bfloat16
    for name, value in got.items():
        assert torch.equal(value.to(torch.bfloat16), expected[name]), name


@pytest.mark.parametrize("kind", ["rows", "trunk"])
def test_a_module_gives_the_gradients_of_the_reference(cuda, kind):
    plan = SharingPlan.from_ratio(kind, 3, 16, 0.5)
    ours, plain = (make(plan, dtype=DOUBLE, device=cuda.device) for make in (CrossRNN, reference.CrossRNN))
    ours.backend = "cuda"
    ours.load_state_dict(plain.state_dict())
    x0 = torch.randn(20, 16, dtype=DOUBLE, device=cuda.device)
    for module in (ours, plain):
        module(x0).square().sum().backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
