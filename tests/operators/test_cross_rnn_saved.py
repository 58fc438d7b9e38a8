"""What the recurrence saves for its backward, and which gradients the backward computes from it."""

import pytest
import torch

from dcrnn_fast import BackendUnavailable, reference
from dcrnn_fast.ops.cross_rnn import INPUTS, GradMask

from .backend import every_gradient, on, on_kernels
from .precision import cast, results
from .problems import DOUBLE, arguments_of, differentiable

full_and_low_rank = pytest.mark.parametrize("rank", [None, 6], ids=["full", "low rank"])


@on_kernels
def test_without_gradients_nothing_is_saved(backend):
    arguments = arguments_of(backend)
    differentiable(arguments)
    with torch.no_grad():
        assert backend.cross_rnn(**arguments).grad_fn is None
    with torch.inference_mode():
        torch.testing.assert_close(backend.cross_rnn(**arguments), reference.cross_rnn(**arguments))
        with torch.enable_grad():
            assert not backend.cross_rnn(**arguments).requires_grad


@on_kernels
@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
@full_and_low_rank
def test_the_backward_computes_again_what_was_not_saved(backend, rank, return_states):
    arguments, found = arguments_of(backend, context_dim=2, rank=rank), []
    for saved in (False, True):
        out, kept = backend.forward(arguments, return_states=return_states, saved=saved)
        assert kept.shape == ((2, 3, 20, 2, rank or 17) if saved else (0,))
        found.append(backend.backward(arguments, torch.ones_like(out), kept, mask=every_gradient(arguments), return_states=return_states))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@on("cpp", "cuda")
@full_and_low_rank
def test_recomputing_gives_the_bits_of_saving(backend, rank):
    dtype = torch.float32 if backend.name == "cpp" else torch.bfloat16  # of which C++ saves rounded activations
    arguments = cast(arguments_of(backend, context_dim=8, dim=24, rank=rank), dtype)
    seed = torch.randn(2, 20, 24, dtype=DOUBLE, device=backend.device)
    saved = results(backend.cross_rnn, cast(arguments, dtype), seed)
    for name, value in results(backend.cross_rnn, cast(arguments, dtype), seed, recompute=True).items():
        assert torch.equal(value, saved[name]), name


@on_kernels
@full_and_low_rank
def test_the_backward_computes_the_gradients_of_the_mask_and_no_others(backend, rank):
    arguments = arguments_of(backend, context_dim=2, rank=rank, projection_share_ratio=0.5)
    out, *saved = backend.forward(arguments)
    leaves = cast(arguments, DOUBLE)
    inputs, names = differentiable(leaves), [*INPUTS, *(("shared_projection", "private_projection") if rank else ())]
    gradients = torch.autograd.grad(backend.cross_rnn(**leaves).sum(), [inputs[name] for name in names])
    of_each = [GradMask.X0, *[GradMask.WEIGHTS] * 4, GradMask.CONTEXT, *[GradMask.PROJECTIONS] * 2]
    bits = [bit for bit in GradMask if bit & every_gradient(arguments)]
    for mask in (0, *bits, GradMask.WEIGHTS, GradMask.X0 | GradMask.CONTEXT):
        got = backend.backward(arguments, torch.ones_like(out), *saved, mask=mask)
        for some, full, its_bits in zip(got, gradients, of_each, strict=False):
            assert some.shape == (full.shape if mask & its_bits else (0,))
            assert not mask & its_bits or torch.equal(some, full)


def column_major(tensor):
    return tensor.mT.contiguous().mT if tensor.dim() > 2 else tensor


def apart(tensor):
    """One value more between tasks: rows of 16 values are aligned, and those of the second task are not."""
    if tensor.dim() < 4:
        return tensor
    size = tensor[0].numel()
    gap = tensor.new_full((tensor.shape[0] * (size + 1),), float("nan"))
    return gap.as_strided(tensor.shape, (size + 1, *tensor.stride()[1:])).copy_(tensor)


@on_kernels
@pytest.mark.parametrize("store", [column_major, apart], ids=["columns first", "with gaps"])
@pytest.mark.parametrize("return_states", [False, True], ids=["last", "states"])
@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recomputed"])
@pytest.mark.parametrize("rank", [None, 16], ids=["full", "low rank"])
def test_saved_tensors_may_come_back_with_other_strides(backend, rank, recompute, return_states, store):
    """As from hooks that store saved tensors elsewhere."""
    if backend.is_slow and return_states and store is apart:
        pytest.skip("GPU kernels are slow on a CPU")
    arguments = arguments_of(backend, batch=5, dim=16, rank=rank)
    options = {"recompute": recompute, "return_states": return_states}
    seed = torch.ones((), dtype=DOUBLE, device=backend.device).expand(2, *([4] if return_states else []), 5, 16)
    expected = results(backend.cross_rnn, cast(arguments, DOUBLE), seed, **options)
    with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
        got = results(backend.cross_rnn, cast(arguments, DOUBLE), seed, **options)
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)


@on_kernels
@pytest.mark.parametrize("name", ["x0", "shared_weight", "private_weight", "shared_projection"])
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
