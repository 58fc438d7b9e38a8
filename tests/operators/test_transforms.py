"""The transforms of torch.func, and forward mode: what the kernels cannot differentiate is refused, or computed by the reference; it is
never zero."""

from functools import partial

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functionalize, grad, jacfwd, jacrev, jvp, vmap

from dcrnn_fast import BackendUnavailable, functional, reference
from dcrnn_fast.ops import dispatch

from .backend import on, on_every_backend, on_kernels
from .problems import cross_arguments


def problem(backend=None):
    """The arguments, on the backend's device, and a direction for x0."""
    arguments = cross_arguments(batch=3, steps=2, context_dim=2)
    if backend is not None:
        arguments = backend.of(arguments)
    return arguments, torch.randn_like(arguments["x0"])


def banks(backend=None):
    """The arguments of param_gather, on the backend's device."""
    device = "cpu" if backend is None else backend.device
    index = torch.randint(0, 5, (2, 6), dtype=torch.int32, device=device)
    return *(torch.randn(*shape, dtype=torch.float64, device=device) for shape in ((2, 3), (2, 3, 3))), index


def as_function_of(arguments, run, *names):
    return lambda *values: run(**{**arguments, **dict(zip(names, values, strict=True))})


@on_kernels
def test_a_kernel_and_its_gradient_refuse_forward_mode(backend):
    arguments, direction = problem(backend)
    shared, private, index = banks(backend)
    cases = (
        (as_function_of(arguments, backend.cross_rnn, "x0"), arguments["x0"], direction),
        (lambda private: backend.param_gather(shared, private, index), private, torch.ones_like(private)),
        (lambda x0: backend.forward({**arguments, "x0": x0})[0], arguments["x0"], direction),
        (lambda private: backend.operators.param_gather(shared, private, index), private, torch.ones_like(private)),
    )
    for run, point, tangent in cases:
        with pytest.raises(BackendUnavailable, match=r"no forward-mode derivatives .* backend='reference'"):
            jvp(run, (point,), (tangent,))
        with forward_ad.dual_level(), pytest.raises(BackendUnavailable, match="no forward-mode derivatives"):
            run(forward_ad.make_dual(point, tangent))
    out = as_function_of(arguments, backend.cross_rnn, "x0")(x0 := arguments["x0"].requires_grad_())
    with forward_ad.dual_level(), pytest.raises(BackendUnavailable, match="no forward-mode derivatives"):
        torch.autograd.grad(out, x0, forward_ad.make_dual(torch.ones_like(out), torch.ones_like(out)))


@on_kernels
def test_a_tensor_without_a_tangent_passes_a_kernel_in_forward_mode(backend):
    """A frozen part of a model stays on its backend."""
    arguments, direction = problem(backend)
    expected = reference.cross_rnn(**arguments)
    value, tangent = jvp(lambda x: backend.cross_rnn(**arguments) + x.sum(), (direction,), (direction,))
    torch.testing.assert_close(value, expected + direction.sum())
    torch.testing.assert_close(tangent, direction.sum().expand_as(expected))


def test_auto_computes_forward_mode_by_the_reference():
    for rank, names in ((None, ("x0",)), (None, ("context", "private_bias")), (1, ("shared_projection",))):
        arguments = cross_arguments(batch=3, steps=2, context_dim=2, rank=rank)
        fast, plain = (as_function_of(arguments, run, *names) for run in (functional.cross_rnn, reference.cross_rnn))
        point = tuple(arguments[name] for name in names)
        tangent = tuple(torch.randn_like(value) for value in point)
        torch.testing.assert_close(jvp(fast, point, tangent)[1], jvp(plain, point, tangent)[1])
        torch.testing.assert_close(jacfwd(fast)(*point), jacfwd(plain)(*point))
        torch.testing.assert_close(jacfwd(jacrev(fast))(*point), jacfwd(jacrev(plain))(*point))
    shared, private, index = banks()
    rows = jvp(lambda s, p: functional.param_gather(s, p, index), (shared, private), (shared, private))[1]
    assert torch.equal(rows, reference.param_gather(shared, private, index))


def test_auto_computes_forward_mode_in_a_compiled_graph():
    arguments, direction = problem()
    fast, plain = (as_function_of(arguments, run, "x0") for run in (functional.cross_rnn, reference.cross_rnn))
    compiled = torch.compile(lambda x, v: jvp(fast, (x,), (v,))[1], backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(arguments["x0"], direction), jvp(plain, (arguments["x0"],), (direction,))[1])


@on_every_backend
@pytest.mark.parametrize("name", ["x0", "shared_weight", "private_bias", "context", "shared_projection"])
def test_grad_and_functionalize_give_what_the_reference_gives(backend, name):
    arguments = backend.of(cross_arguments(batch=3, steps=2, context_dim=2, rank=2 if "projection" in name else None))
    fast, plain = (as_function_of(arguments, run, name) for run in (backend.cross_rnn, reference.cross_rnn))
    gradients = [grad(lambda value, run=run: run(value).square().sum())(arguments[name]) for run in (fast, plain)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(functionalize(fast)(arguments[name]), plain(arguments[name]))


@on_every_backend
def test_vmap_gives_each_sample_its_result(backend):
    arguments, _ = problem(backend)
    many = torch.randn_like(arguments["x0"].expand(2, -1, -1))
    fast = as_function_of(arguments, backend.cross_rnn, "x0")
    assert vmap(fast)(many[:0]).shape == (0, *reference.cross_rnn(**arguments).shape)
    torch.testing.assert_close(vmap(fast)(many), torch.stack([reference.cross_rnn(**{**arguments, "x0": x0}) for x0 in many]))
    shared, private, index = banks(backend)
    found = vmap(lambda private: backend.param_gather(shared, private, index), in_dims=1)(torch.stack([private, -private], dim=1))
    assert torch.equal(found, torch.stack([reference.param_gather(shared, sign * private, index) for sign in (1, -1)]))


@on_every_backend
def test_per_sample_gradients_are_those_of_each_sample_alone(backend):
    arguments, _ = problem(backend)
    samples = torch.randn_like(arguments["x0"].expand(2, -1, -1))

    def loss_of(run):
        return lambda bias, x0: run(**{**arguments, "shared_bias": bias, "x0": x0}).square().sum()

    found = vmap(grad(loss_of(backend.cross_rnn)), in_dims=(None, 0))(arguments["shared_bias"], samples)
    expected = [grad(loss_of(reference.cross_rnn))(arguments["shared_bias"], x0) for x0 in samples]
    torch.testing.assert_close(found, torch.stack(expected))


@on("reference", "cpp")
def test_jacrev_gives_the_reference_jacobian(backend):
    arguments, _ = problem(backend)
    fast, plain = (as_function_of(arguments, run, "x0") for run in (backend.cross_rnn, reference.cross_rnn))
    torch.testing.assert_close(jacrev(fast)(arguments["x0"]), jacrev(plain)(arguments["x0"]))


@on_kernels
def test_what_a_kernel_cannot_transform_is_refused_with_the_remedy(backend):
    arguments, _ = problem(backend)
    run = as_function_of(arguments, backend.cross_rnn, "x0")
    one, many, refused = arguments["x0"], arguments["x0"][None], r"functionalize .* backend='reference'"
    for transformed, x0, words in (
        (functionalize(grad(lambda x: run(x).sum())), one, refused),
        (grad(lambda x: functionalize(run)(x).sum()), one, refused),
        (functionalize(vmap(run)), many, refused),
        (vmap(functionalize(run)), many, refused),
        (grad(lambda x0: backend.forward({**arguments, "x0": x0})[0].sum()), one, r"Call the functions of dcrnn_fast\.functional"),
    ):
        with pytest.raises(BackendUnavailable, match=words):
            transformed(x0)


def test_a_compiled_gradient_of_a_kernel_says_what_to_call():
    """PyTorch's compiler traces no derivative of an operator under ``torch.func``."""
    if "cpp" not in dispatch.IMPLEMENTATIONS:
        pytest.skip("the backend cpp cannot run here")
    arguments, _ = problem()
    run = as_function_of(arguments, partial(functional.cross_rnn, backend="cpp"), "x0")
    with pytest.raises(Exception, match=r"no derivative under torch\.func .* backend=\\?'auto"):
        torch.compile(grad(lambda x0: run(x0).sum()), backend="eager", fullgraph=True)(arguments["x0"])


@on_every_backend
def test_an_index_out_of_range_in_one_sample_is_refused(backend):
    """A negative one would read from the end."""
    shared, private, index = banks(backend)
    for stray in (-1, len(shared) + private.shape[1]):
        indices = torch.stack([index, index])
        indices[1, 0, 0] = stray
        with pytest.raises(IndexError, match="index: got"):
            vmap(lambda index: backend.param_gather(shared, private, index))(indices)


@on("cpp")
@pytest.mark.parametrize("return_states", [False, True])
@pytest.mark.parametrize("rank", [None, 3])
def test_compiled_autograd_takes_a_backward_into_one_graph(backend, rank, return_states):
    given = cross_arguments(batch=3, dim=4, rank=rank, context_dim=2)
    given["x0"].requires_grad_()

    def gradient():
        backend.cross_rnn(**given, return_states=return_states).square().sum().backward()
        found, given["x0"].grad = given["x0"].grad, None
        return found

    expected = gradient()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        torch.testing.assert_close(gradient(), expected)
