"""cross_rnn on every backend: as exact as plain PyTorch, forward and backward, and nothing read that is not its own."""

import functools

import pytest
import torch
from torch.autograd import gradcheck

from dcrnn_fast import BackendUnavailable, CrossRNN, SharingPlan, reference
from dcrnn_fast.operators import Keep, Needs

from .backend import CHOICES, DTYPES, KEEPS, on, on_every_backend, on_every_gpu_kernel, on_every_kernel, on_kernels
from .precision import assert_as_exact_as_plain_pytorch, cast, relative_error, results
from .problems import DOUBLE, SHAPES, cross_arguments, differentiable


def arguments_of(backend, **shape):
    return backend.of(cross_arguments(**{"batch": 20, "dim": 17, **shape}))


def check(backend, shape, dtype, **options):
    # states of six steps grow fast, and one row has few values: the median of a few draws is luck
    few = shape.get("batch") == 1 and backend.name != "triton"  # whose interpreter takes seconds for a draw
    draws = None if not backend.is_slow else 9 if shape.get("steps") == 6 or few else 3
    assert_as_exact_as_plain_pytorch(arguments_of(backend, **shape), dtype, backend=backend.name, draws=draws, **options)


@on_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_and_gradients_are_as_exact_as_plain_pytorch(backend, shape, dtype):
    check(backend, shape, dtype)


@on_every_gpu_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["one row", "rows of 8 values", "wide context, untied"])
def test_every_kernel_is_as_exact(backend, name, dtype):
    check(backend, SHAPES[name], dtype)


@on(*CHOICES["triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["one unit", "six steps"])
def test_either_schedule_of_triton_is_as_exact(backend, name, dtype):
    check(backend, SHAPES[name], dtype)


@on_every_kernel
@pytest.mark.parametrize("shape", [{"cell": "cross"}, {"context_dim": 3, "tied": False}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_state_and_its_gradients_are_as_exact(backend, dtype, shape):
    check(backend, shape, dtype, return_states=True)


@on_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["one step", "six steps", "wide context, untied"])
def test_recomputing_the_activations_is_as_exact(backend, name, dtype):
    check(backend, SHAPES[name], dtype, recompute=True, return_states=name == "six steps")


@on_kernels
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
@pytest.mark.parametrize("cell", ["gated", "cross"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_gradients_match_finite_differences(backend, tied, cell, return_states, recompute):
    size = 2 if backend.is_slow else 3
    arguments = arguments_of(backend, batch=size, dim=size, steps=2, cell=cell, tied=tied, context_dim=size - 1)
    inputs = differentiable(arguments)

    def run(*values):
        changed = {**arguments, **dict(zip(inputs, values, strict=True))}
        return backend.cross_rnn(**changed, return_states=return_states, recompute=recompute)

    assert gradcheck(run, tuple(inputs.values()), fast_mode=backend.is_slow)


@on_every_backend
@pytest.mark.parametrize("return_states", [False, True])
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(backend, return_states):
    arguments = arguments_of(backend, batch=0, dim=5, context_dim=2)
    inputs = differentiable(arguments)
    out = backend.cross_rnn(**arguments, return_states=return_states)
    assert out.shape == ((2, 4, 0, 5) if return_states else (2, 0, 5))
    for name, gradient in zip(inputs, torch.autograd.grad(out.sum(), list(inputs.values())), strict=True):
        assert gradient.shape == inputs[name].shape, name
        assert torch.count_nonzero(gradient) == 0, name


@on_kernels
def test_strided_inputs_give_the_bits_of_contiguous_ones(backend):
    arguments = arguments_of(backend, batch=70, context_dim=2)
    strided = {n: torch.stack([v, v], dim=-1)[..., 0] if isinstance(v, torch.Tensor) else v for n, v in arguments.items()}
    seed = torch.randn(17, 70, 2, dtype=DOUBLE, device=backend.device).permute(2, 1, 0)
    expected = results(backend.cross_rnn, cast(arguments, DOUBLE), seed)
    inputs = differentiable(strided)
    out = backend.cross_rnn(**strided)
    assert torch.equal(out, expected["out"])
    for name, gradient in zip(inputs, torch.autograd.grad(out, list(inputs.values()), seed), strict=True):
        assert torch.equal(gradient, expected[f"gradient of {name}"]), name


FAST = [(name, dtype) for name in ("reference", "cpp") for dtype in DTYPES]
SLOW = [(name, dtype) for name in ("triton", "cuda") for dtype in (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize(("backend", "dtype"), FAST + SLOW, indirect=["backend"], ids=str)
def test_outputs_and_gradients_have_the_same_bits_on_every_run(backend, dtype):
    batch, dim, runs = (40, 20, 1) if backend.is_slow else (300, 32, 3)
    arguments = arguments_of(backend, batch=batch, dim=dim, tasks=3, context_dim=3)
    seed = torch.randn(3, batch, dim, dtype=DOUBLE, device=backend.device)
    first = results(backend.cross_rnn, cast(arguments, dtype), seed)
    for _ in range(runs):
        for name, value in results(backend.cross_rnn, cast(arguments, dtype), seed).items():
            assert torch.equal(value, first[name]), f"{name} differs between runs"


@on_every_kernel
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_stays_in_its_row(backend, value):
    arguments = cast(arguments_of(backend), torch.float32)
    clean = backend.cross_rnn(**arguments)
    arguments["x0"][3, 2] = value
    got = backend.cross_rnn(**arguments)
    assert not torch.isfinite(got[:, 3]).all()
    rest = [row for row in range(20) if row != 3]
    assert torch.equal(got[:, rest], clean[:, rest])


@on_kernels
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_rows_that_a_kernel_adds_to_a_small_batch_reach_no_gradient(backend, batch, recompute):
    """Infinite weights close a gate for good, and the gradients are finite. In a row of zeros such a gate is 0 * inf = NaN."""
    arguments = cast(arguments_of(backend, batch=batch, steps=1, share_ratio=0), torch.float32)
    arguments["x0"].abs_().add_(0.1)
    arguments["private_weight"][:, 3, 1] = -torch.inf
    gradients = {}
    for run in (reference.cross_rnn, functools.partial(backend.cross_rnn, recompute=recompute)):
        inputs = {name: value.detach().clone() if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}
        banks = inputs["private_weight"].requires_grad_(), inputs["private_bias"].requires_grad_()
        gradients[run] = torch.autograd.grad(run(**inputs).sum(), banks)
    expected, found = gradients.values()
    assert all(torch.isfinite(gradient).all() for gradient in expected)
    torch.testing.assert_close(found, expected)


@on_every_gpu_kernel
@pytest.mark.parametrize("stray", [-1, 17, 2**31 - 1])
def test_a_row_number_out_of_range_that_no_check_saw_makes_its_unit_nan(backend, stray):
    """Where values cannot be read, in a compiled or captured graph, a stray index is loud and reads nothing outside the banks."""
    arguments = arguments_of(backend, steps=1)
    clean = backend.cross_rnn(**arguments)
    arguments["index"][1, 4] = stray
    got, *_ = backend.operators.cross_rnn(*backend.operands(arguments))
    assert torch.isnan(got[1, :, 4]).all()
    got[1, :, 4] = clean[1, :, 4]
    assert torch.equal(got, clean)


@on_kernels
def test_gates_saturate_without_overflow(backend):
    arguments = cast(arguments_of(backend), torch.float32)
    for bank in ("shared_bias", "private_bias"):
        arguments[bank] = arguments[bank] * 1e4
    exact = reference.cross_rnn(**cast(arguments, DOUBLE))
    plain = relative_error(reference.cross_rnn(**arguments), exact)
    assert relative_error(backend.cross_rnn(**arguments), exact) <= max(2 * plain, torch.finfo(torch.float32).eps)


@on_kernels
@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 0x7FC00001), (DOUBLE, 0x7FF8000000000001)], ids=str)
def test_a_gate_that_is_any_nan_is_nan(backend, dtype, bits):
    arguments = cast(arguments_of(backend, steps=1, share_ratio=0), dtype)
    nan = torch.tensor(bits, dtype={torch.float32: torch.int32, DOUBLE: torch.int64}[dtype]).view(dtype)
    arguments["private_bias"][:, :, 1] = nan
    assert backend.cross_rnn(**arguments).isnan().all()


@on_kernels
def test_a_closed_gate_passes_nothing_however_large(backend):
    arguments = cast(arguments_of(backend, steps=1, share_ratio=0), torch.float32)
    arguments["private_bias"][:, :, 0], arguments["private_bias"][:, :, 1] = 3e38, -300
    assert torch.equal(backend.cross_rnn(**arguments), arguments["x0"].expand(2, -1, -1))


@on_kernels
@pytest.mark.parametrize("batch", [1, 20])
def test_float16_overflows_no_sooner_with_a_context_than_plain_pytorch(backend, batch):
    """The context's part of a product is beyond float16, and the whole product is not."""
    arguments = cast(arguments_of(backend, batch=batch, steps=1, share_ratio=0, context_dim=1), torch.float16)
    arguments["private_weight"].zero_()[..., :2] = torch.tensor([1000.0, -1000.0])
    arguments["context"].fill_(100), arguments["x0"][:, 0].fill_(100)
    expected = reference.cross_rnn(**cast(arguments, DOUBLE))
    assert torch.isfinite(reference.cross_rnn(**arguments)).all()
    torch.testing.assert_close(backend.cross_rnn(**arguments).double(), expected, rtol=0.01, atol=0.01)


@on_kernels
def test_the_forward_keeps_what_it_is_asked_to_keep(backend):
    arguments = arguments_of(backend)
    for keep in KEEPS[backend.name]:
        _, states, activations = backend.operators.cross_rnn(*backend.operands(arguments, keep=keep))
        assert states.shape == ((2, 2, 20, 17) if keep & Keep.STATES else (0,))
        assert activations.shape == ((2, 3, 20, 2, 17) if keep & Keep.ACTIVATIONS else (0,))


@on_kernels
@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
def test_the_backward_computes_again_what_was_not_kept(backend, return_states):
    arguments = arguments_of(backend, context_dim=2)
    found = []
    for keep in KEEPS[backend.name]:
        call = backend.operands(arguments, return_states=return_states, keep=keep)
        out, states, activations = backend.operators.cross_rnn(*call)
        if return_states and keep & Keep.STATES:
            states = out[:, 1:3]
        needs = int(Needs.X0 | Needs.BANKS | Needs.CONTEXT)
        found.append(backend.operators.cross_rnn_backward(torch.ones_like(out), states, activations, *call[:-1], needs))
    for gradients in found[1:]:
        for got, want in zip(gradients, found[0], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@on_kernels
def test_without_gradients_nothing_is_kept(backend):
    arguments = arguments_of(backend)
    differentiable(arguments)
    with torch.no_grad():
        assert backend.cross_rnn(**arguments).grad_fn is None
    with torch.inference_mode():
        torch.testing.assert_close(backend.cross_rnn(**arguments), reference.cross_rnn(**arguments))
        with torch.enable_grad():
            assert not backend.cross_rnn(**arguments).requires_grad


@on_kernels
def test_the_backward_computes_the_gradients_that_are_needed_and_no_others(backend):
    arguments = arguments_of(backend, context_dim=2)
    call = backend.operands(arguments)
    out, *kept = backend.operators.cross_rnn(*call)
    inputs = list(differentiable({**cast(arguments, DOUBLE), "index": arguments["index"]}).values())
    expected = torch.autograd.grad(
        backend.cross_rnn(**dict(zip(arguments, [*inputs[:5], *call[5:8], inputs[5]], strict=True))).sum(), inputs
    )
    for needs in (0, *(need for need in Needs), Needs.BANKS, Needs.X0 | Needs.CONTEXT):
        got = backend.operators.cross_rnn_backward(torch.ones_like(out), *kept, *call[:-1], int(needs))
        for i, (some, full) in enumerate(zip(got, expected, strict=True)):
            wanted = needs >> i & 1 if i in (0, 5) else needs & Needs.BANKS
            assert some.shape == (full.shape if wanted else (0,))
            assert not wanted or torch.equal(some, full)


@on_kernels
@pytest.mark.parametrize("wanted", [["x0"], ["context"], ["shared_weight"], ["private_bias", "x0"]], ids=str)
def test_a_tensor_without_requires_grad_gets_no_gradient(backend, wanted):
    arguments = arguments_of(backend, context_dim=2)
    given, exact = (
        {n: v.detach().requires_grad_(n in wanted) if isinstance(v, torch.Tensor) and n != "index" else v for n, v in arguments.items()}
        for _ in range(2)
    )
    backend.cross_rnn(**given).square().sum().backward()
    reference.cross_rnn(**exact).square().sum().backward()
    for name, value in given.items():
        if name in wanted:
            torch.testing.assert_close(value.grad, exact[name].grad)
        elif isinstance(value, torch.Tensor):
            assert value.grad is None


@on_kernels
@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_kept_tensors_may_come_back_with_other_strides(backend, recompute, return_states):
    """As from hooks that store saved tensors elsewhere."""
    arguments, options = arguments_of(backend), {"recompute": recompute, "return_states": return_states}
    seed = torch.ones((), dtype=DOUBLE, device=backend.device).expand(2, *([4] if return_states else []), 20, 17)
    expected = results(backend.cross_rnn, cast(arguments, DOUBLE), seed, **options)

    def column_major(tensor):
        return tensor.mT.contiguous().mT if tensor.dim() > 2 else tensor

    with torch.autograd.graph.saved_tensors_hooks(column_major, lambda tensor: tensor):
        got = results(backend.cross_rnn, cast(arguments, DOUBLE), seed, **options)
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)


@on_kernels
@pytest.mark.parametrize("recompute", [False, True])
def test_kept_tensors_may_come_back_with_a_gap_of_one_value_between_tasks(backend, recompute):
    """Rows of 16 values are aligned, and those of the second task are not."""
    arguments = backend.of(cross_arguments(batch=5, dim=16))
    seed = torch.ones((), dtype=DOUBLE, device=backend.device).expand(2, 5, 16)
    expected = results(backend.cross_rnn, cast(arguments, DOUBLE), seed, recompute=recompute)

    def apart(tensor):
        if tensor.dim() < 4:
            return tensor
        size = tensor[0].numel()
        gap = tensor.new_full((tensor.shape[0] * (size + 1),), float("nan"))
        return gap.as_strided(tensor.shape, (size + 1, *tensor.stride()[1:])).copy_(tensor)

    with torch.autograd.graph.saved_tensors_hooks(apart, lambda tensor: tensor):
        got = results(backend.cross_rnn, cast(arguments, DOUBLE), seed, recompute=recompute)
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)


@on_kernels
@pytest.mark.parametrize("name", ["x0", "shared_weight", "private_weight", "index"])
def test_an_input_changed_between_forward_and_backward_is_detected(backend, name):
    arguments = arguments_of(backend)
    differentiable(arguments)
    out = backend.cross_rnn(**arguments)
    with torch.no_grad():
        arguments[name].add_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@on_kernels
def test_a_backward_can_run_twice_on_one_graph(backend):
    arguments = arguments_of(backend, batch=70)
    inputs = list(differentiable(arguments).values())
    out = backend.cross_rnn(**arguments, return_states=True)
    first = torch.autograd.grad(out.sum(), inputs, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(out.sum(), inputs), strict=True):
        assert torch.equal(a, b)


@on_kernels
def test_a_second_derivative_is_refused_and_the_remedy_named(backend):
    arguments = arguments_of(backend)
    x0 = arguments["x0"].requires_grad_()
    (gradient,) = torch.autograd.grad(backend.cross_rnn(**arguments).sum(), x0, create_graph=True)
    with pytest.raises(BackendUnavailable, match="Use backend='reference'"):
        gradient.sum().backward()


@on_kernels
@pytest.mark.parametrize("kind", ["rows", "trunk"])
def test_a_module_gives_the_gradients_of_the_reference(backend, kind):
    plan = SharingPlan.from_ratio(kind, 3, 16, 0.5)
    ours, plain = (make(plan, dtype=DOUBLE, device=backend.device) for make in (CrossRNN, reference.CrossRNN))
    ours.backend = backend.name
    ours.load_state_dict(plain.state_dict())
    x0 = torch.randn(20, 16, dtype=DOUBLE, device=backend.device)
    for module in (ours, plain):
        module(x0).square().sum().backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
