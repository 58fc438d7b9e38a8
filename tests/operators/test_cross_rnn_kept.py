"""What the forward of cross_rnn keeps for its backward, and which gradients the backward computes from it."""

import pytest
import torch

from dcrnn_fast import BackendUnavailable, CrossRNN, SharingPlan, reference
from dcrnn_fast.ops.registry import Needs

from .backend import on_kernels
from .precision import cast, results
from .problems import DOUBLE, arguments_of, cross_arguments, differentiable


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
@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low rank"])
def test_the_backward_computes_the_gradients_that_are_needed_and_no_others(backend, rank):
    arguments = arguments_of(backend, context_dim=2, rank=rank)
    call = backend.operands(arguments)
    out, *kept = backend.forward(call)
    leaves = cast(arguments, DOUBLE)
    inputs = differentiable(leaves)
    order = [*list(inputs)[:4], "private_bias", "context", *(["shared_projection"] if rank else [])]
    gradients = torch.autograd.grad(backend.cross_rnn(**leaves).sum(), [inputs[name] for name in order])
    of_each = [Needs.X0, *[Needs.BANKS] * 4, Needs.CONTEXT, *[Needs.PROJECTIONS] * (len(order) - 6)]
    all_needs = [need for need in Needs if rank or not need & Needs.PROJECTIONS]
    for needs in (0, *all_needs, Needs.BANKS, Needs.X0 | Needs.CONTEXT):
        got = backend.backward(call, torch.ones_like(out), *kept, needs=needs)
        for some, full, bits in zip(got, gradients, of_each, strict=False):
            assert some.shape == (full.shape if needs & bits else (0,))
            assert not needs & bits or torch.equal(some, full)


@on_kernels
@pytest.mark.parametrize(
    "wanted", [["x0"], ["context"], ["shared_weight"], ["private_bias", "x0"], ["shared_projection"], ["private_projection", "x0"]], ids=str
)
def test_a_tensor_without_requires_grad_gets_no_gradient(backend, wanted):
    rank = 4 if any("projection" in name for name in wanted) else None
    arguments = arguments_of(backend, context_dim=2, rank=rank, projection_share_ratio=0.5)
    given, exact = (
        {n: v.detach().requires_grad_(n in wanted) if torch.is_tensor(v) and v.is_floating_point() else v for n, v in arguments.items()}
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
@pytest.mark.parametrize("rank", [None, 5], ids=["full", "low rank"])
def test_kept_tensors_may_come_back_with_other_strides(backend, rank, recompute, return_states):
    """As from hooks that store saved tensors elsewhere."""
    arguments, options = arguments_of(backend, rank=rank), {"recompute": recompute, "return_states": return_states}
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
@pytest.mark.parametrize("rank", [None, 16], ids=["full", "low rank"])
def test_kept_tensors_may_come_back_with_a_gap_of_one_value_between_tasks(backend, rank, recompute):
    """Rows of 16 values are aligned, and those of the second task are not."""
    arguments = backend.of(cross_arguments(batch=5, dim=16, rank=rank))
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
@pytest.mark.parametrize("name", ["x0", "shared_weight", "private_weight", "index", "shared_projection", "projection_index"])
def test_an_input_changed_between_forward_and_backward_is_detected(backend, name):
    arguments = arguments_of(backend, rank=3 if "projection" in name else None)
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
@pytest.mark.parametrize("rank", [None, 6], ids=["full", "low rank"])
@pytest.mark.parametrize("kind", ["rows", "trunk"])
def test_a_module_gives_the_gradients_of_the_reference(backend, kind, rank):
    plan = SharingPlan.from_ratio(kind, 3, 16, 0.5, rank=rank)
    ours, plain = (make(plan, dtype=DOUBLE, device=backend.device) for make in (CrossRNN, reference.CrossRNN))
    ours.backend = backend.name
    ours.load_state_dict(plain.state_dict())
    x0 = torch.randn(20, 16, dtype=DOUBLE, device=backend.device)
    for module in (ours, plain):
        module(x0).square().sum().backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
