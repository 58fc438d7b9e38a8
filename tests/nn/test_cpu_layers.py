"""The embedding and the dropout of the model: PyTorch's results, with less work on a CPU."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, jvp, vmap

from dcrnn_fast.nn.cpu_layers import Dropout, Embedding
from tests.operators.problems import DOUBLE

ROWS = torch.tensor([[3, 0, 3], [3, 4, 0], [0, 3, 3], [2, 2, 3]])
"""Rows of a table of five, one of which nobody reads."""


def gradients(dtype, shape, width=8):
    """The gradients of our embedding and of PyTorch's, of the same weights, and their sum in float64."""
    ours, torchs = Embedding(50, width, dtype=dtype), nn.Embedding(50, width, dtype=dtype)
    exact = nn.Embedding(50, width, dtype=DOUBLE)
    ours.load_state_dict(torchs.state_dict())
    rows, grad = torch.randint(0, 50, shape), torch.randn(*shape, width).to(dtype)
    assert torch.equal(ours(rows), torchs(rows))
    for layer in (ours, torchs, exact):
        layer(rows).backward(grad.to(layer.weight.dtype))
    return [layer.weight.grad for layer in (ours, torchs, exact)]


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("shape", [(700, 7), (0, 3)], ids=str)
@pytest.mark.parametrize("width", [1, 3, 8])
def test_an_embeddings_rows_and_gradient_have_the_bits_of_pytorchs(dtype, shape, width):
    ours, torchs, _ = gradients(dtype, shape, width)
    assert torch.equal(ours, torchs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [2, 8])
def test_the_gradient_of_a_table_in_16_bits_is_rounded_once(dtype, width):
    ours, torchs, exact = ((gradient.double()) for gradient in gradients(dtype, (700, 7), width))
    torch.testing.assert_close(ours, exact, rtol=torch.finfo(dtype).eps, atol=1e-4)
    assert (ours - exact).norm() <= (torchs - exact).norm()


def test_an_embeddings_gradient_has_the_same_bits_for_any_threads():
    rows, grad, threads, found = torch.randint(0, 50, (3000, 7)), torch.randn(3000, 7, 8), torch.get_num_threads(), []
    layer = Embedding(50, 8)
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(torch.autograd.grad(layer(rows), layer.weight, grad)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_an_embedding_is_differentiable_twice_and_in_forward_mode():
    layer = Embedding(5, 2, dtype=DOUBLE)

    def looked_up(weight):
        return functional_call(layer, {"weight": weight}, (ROWS,)).square()

    weight = layer.weight.detach().requires_grad_()
    assert gradcheck(looked_up, weight, check_forward_ad=True)
    assert gradgradcheck(looked_up, weight)


def kept(layer, shape, dtype=torch.float32):
    """Which ones of as many ones a dropout keeps, and what it returns for them."""
    out = layer(torch.ones(shape, dtype=dtype))
    return out != 0, out


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_dropout_zeroes_a_share_of_p(p):
    torch.manual_seed(0)
    share = 1 - kept(Dropout(p), (1001, 999))[0].double().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / (1001 * 999)) ** 0.5, "four standard deviations of a share of a million values"


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.bfloat16, torch.float16])
def test_dropout_divides_what_it_keeps_and_its_gradient_by_the_kept_share(dtype):
    x = torch.randn(3, 50, 7).to(dtype).requires_grad_()
    out = Dropout(0.75)(x)
    assert torch.equal(out, torch.where(out != 0, x * 4, 0))
    assert out.dtype == dtype
    out.sum().backward()
    assert torch.equal(x.grad, torch.where(out != 0, 4.0, 0.0).to(dtype))


def test_dropout_decides_on_neighbouring_values_independently():
    """Four values share one 64-bit number."""
    torch.manual_seed(0)
    keeps = kept(Dropout(0.3), 2**18)[0].double()
    for distance in (1, 2, 3, 64):
        correlation = torch.corrcoef(torch.stack([keeps[:-distance], keeps[distance:]]))[0, 1].abs().item()
        assert correlation < 4 / 2**9, f"correlation {correlation} at distance {distance}"


def test_dropout_depends_on_the_state_of_the_cpus_generator_alone():
    layer, state = Dropout(0.5), torch.get_rng_state()
    first, second = kept(layer, (3, 333))[0], kept(layer, (3, 333))[0]
    torch.set_rng_state(state)
    assert torch.equal(kept(layer, (3, 333))[0], first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("layer", [Dropout(0.5).eval(), Dropout(0.0)], ids=["evaluation", "p = 0"])
def test_dropout_without_effect_returns_its_input_and_draws_nothing(layer):
    x, state = torch.randn(4, 5), torch.get_rng_state()
    assert layer(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_takes_any_number_of_values_and_drops_nearly_all_of_them():
    for shape in ((0, 3), (1,), ()):
        assert kept(Dropout(0.5), shape)[1].shape == shape
    assert torch.isfinite(kept(Dropout(1 - 1e-12), 1000)[1]).all()


def test_dropout_follows_pytorchs_rules_under_transforms_and_compiled():
    layer, x = Dropout(0.5), torch.ones(4, 300)
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(layer)(x)
    different = vmap(layer, randomness="different")(x)
    assert not torch.equal(different[0], different[1])
    value, tangent = jvp(layer, (x,), (x,))
    assert torch.equal(value, tangent)
    graphs = []

    def note(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compile(layer, fullgraph=True, backend=note)(x)
    assert "dropout" in graphs[0].code
