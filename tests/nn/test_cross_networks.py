"""Cross networks: where CrossRNN starts, the formula of GDCN for one task, and a DCNv2 of weights that another library trained."""

import pytest
import torch
from torch import nn

from dcrnn_fast import GDCN, CrossRNN, DCNv2, SharingPlan
from dcrnn_fast.nn.layers import TaskLinear
from tests.operators.problems import DOUBLE
from tests.refusals import refused, row


def test_updates_of_a_low_rank_cell_start_as_large_as_of_the_full_cell():
    x0, sizes = torch.randn(500, 64), []
    for rank in (None, 8, 32):
        modules = [CrossRNN(SharingPlan.from_ratio("rows", 2, 64, 0.5, steps=1, rank=rank)) for _ in range(8)]
        sizes.append(sum(float((module(x0) - x0).square().mean()) for module in modules) / 8)
    assert max(sizes) < 1.3 * min(sizes)


def test_modules_move_between_dtypes_and_devices_as_a_whole():
    for module in (CrossRNN(SharingPlan.from_fields("trunk", 2, [4, 4], [1])), TaskLinear(4, 5, 2)):
        module.to(torch.float64)
        assert all(p.dtype == torch.float64 for p in module.parameters())
        assert not list(module.buffers())
        assert all(t.device.type == "meta" for t in module.to("meta").parameters())


@pytest.mark.parametrize("rank", [None, 2])
def test_gdcn_is_the_gated_cross_network(rank):
    """A rank projects once for the product and once for the gate."""
    module, x0 = GDCN(5, 3, rank=rank), torch.randn(4, 5)
    projections = torch.eye(5).expand(3, 2, 5, 5) if rank is None else module.shared_projection.view(3, 2, 2, 5).transpose(1, 2)
    x = x0
    for projection, weight in zip(projections, module.shared_weight.view(3, 5, 2, -1), strict=True):
        a, q = ((x @ projection[gate].T) @ weight[:, gate].T for gate in range(2))
        x = x0 * a * torch.sigmoid(q) + x
    torch.testing.assert_close(module(x0), x)


class CrossNet(nn.Module):
    """torchrec's parameters and formula: the bias is a column."""

    def __init__(self, dim=5, layers=3):
        super().__init__()
        self.kernels = nn.ParameterList(torch.randn(dim, dim) for _ in range(layers))
        self.bias = nn.ParameterList(torch.randn(dim, 1) for _ in range(layers))

    def forward(self, x0):
        x = x0
        for kernel, bias in zip(self.kernels, self.bias, strict=True):
            x = x0 * (x @ kernel.T + bias.squeeze(1)) + x
        return x


class LowRankCrossNet(nn.Module):
    """torchrec's parameters and formula."""

    def __init__(self, dim=5, layers=3, rank=2):
        super().__init__()
        self.W_kernels = nn.ParameterList(torch.randn(dim, rank) for _ in range(layers))
        self.V_kernels = nn.ParameterList(torch.randn(rank, dim) for _ in range(layers))
        self.bias = nn.ParameterList(torch.randn(dim) for _ in range(layers))

    def forward(self, x0):
        x = x0
        for w, v, bias in zip(self.W_kernels, self.V_kernels, self.bias, strict=True):
            x = x0 * (x @ v.T @ w.T + bias) + x
        return x


def of_layers(x0, layers, projections=None):
    """The formula of DCN-v2 over lists of nn.Linear."""
    x = x0
    for number, layer in enumerate(layers):
        x = x0 * layer(x if projections is None else projections[number](x)) + x
    return x


def linears(columns, rows, *, bias=True, number=3):
    return [nn.Linear(columns, rows, bias=bias, dtype=DOUBLE) for _ in range(number)]


MODULES = {"full": CrossNet, "low rank": LowRankCrossNet, "twelve layers": lambda: CrossNet(layers=12)}
LAYERS = {
    "full": lambda: (linears(5, 5),),
    "without a bias": lambda: (linears(5, 5, bias=False),),
    "a ModuleList": lambda: (nn.ModuleList(linears(5, 5)),),
    "low rank": lambda: (linears(2, 5), linears(5, 2, bias=False)),
    "low rank without a bias": lambda: (linears(2, 5, bias=False), linears(5, 2, bias=False)),
    "rank 1": lambda: (linears(1, 5), linears(5, 1, bias=False)),
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_the_weights_of_a_torchrec_module_give_its_outputs(make):
    module, x0 = make().double(), torch.rand(4, 5, dtype=DOUBLE) / 5
    torch.testing.assert_close(DCNv2.from_torchrec(module)(x0), module(x0))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_the_weights_of_linear_layers_give_their_outputs(make):
    layers, x0 = make(), torch.randn(4, 5, dtype=DOUBLE)
    torch.testing.assert_close(DCNv2.from_linear(*layers)(x0), of_layers(x0, *layers))


def test_it_copies_weights_and_keeps_their_dtype():
    layers, x0 = linears(5, 5), torch.randn(4, 5, dtype=DOUBLE)
    network, before = DCNv2.from_linear(layers, backend="reference"), of_layers(x0, layers).detach()
    with torch.no_grad():
        for layer in layers:
            layer.weight.zero_()
    torch.testing.assert_close(network(x0), before)
    network(x0).sum().backward()
    assert network.shared_weight.grad.any()
    assert layers[0].weight.grad is None
    assert (network.shared_weight.dtype, network.backend) == (DOUBLE, "reference")


class VectorCrossNet(CrossNet):
    """Another formula of torchrec's."""


def of_vectors():
    """Parameters named as torchrec's, of another shape."""
    module = CrossNet()
    module.kernels = nn.ParameterList(torch.ones(5, 1) for _ in range(3))
    return module


def of_too_few(part, number):
    """Torchrec's parameters of three layers, but for one part."""
    module = CrossNet() if part == "bias" else LowRankCrossNet()
    setattr(module, part, getattr(module, part)[:number])
    return module


REFUSED = [
    row("torchrec's other networks", lambda: DCNv2.from_torchrec(VectorCrossNet()), TypeError,
        "module: got VectorCrossNet, expected a CrossNet or LowRankCrossNet of torchrec"),
    row("another CrossNet", lambda: DCNv2.from_torchrec(type("CrossNet", (nn.Module,), {})()),
        TypeError, "module: got CrossNet, expected"),
    row("no module", lambda: DCNv2.from_torchrec(None), TypeError, "module: got NoneType, expected a CrossNet"),
    row("vectors for matrices", lambda: DCNv2.from_torchrec(of_vectors()), ValueError,
        r"module.kernels\[0\]: got shape \[5, 1\], expected \[5, 5\]"),
    row("too few biases", lambda: DCNv2.from_torchrec(of_too_few("bias", 2)), ValueError,
        "module: got {'kernels': 3, 'bias': 2}, expected one of each for every layer"),
    row("too few projections of torchrec's", lambda: DCNv2.from_torchrec(of_too_few("V_kernels", 1)), ValueError,
        "module: got {'W_kernels': 3, 'bias': 3, 'V_kernels': 1}, expected one of each"),
    row("a module", lambda: DCNv2.from_linear(nn.Linear(4, 4)), TypeError, "layers=Linear.*expected a sequence of torch.nn.Linear"),
    row("no layers", lambda: DCNv2.from_linear([]), TypeError, r"layers=\[\]: expected one torch.nn.Linear or more"),
    row("no linear layers", lambda: DCNv2.from_linear([nn.ReLU()]), TypeError, r"layers=\[ReLU\(\)\]: expected one torch.nn.Linear"),
    row("no square", lambda: DCNv2.from_linear([nn.Linear(4, 3)]), ValueError,
        r"layers\[0\].weight: got shape \[3, 4\], expected \[3, 3\]"),
    row("two widths", lambda: DCNv2.from_linear([nn.Linear(4, 4), nn.Linear(3, 3)]), ValueError,
        r"layers\[1\].weight: got shape \[3, 3\], expected \[4, 4\]"),
    row("two dtypes", lambda: DCNv2.from_linear([nn.Linear(4, 4), nn.Linear(4, 4, dtype=DOUBLE)]), TypeError,
        r"layers\[1\].weight: got dtype torch.float64, expected torch.float32 as layers\[0\].weight has"),
    row("projections of another width", lambda: DCNv2.from_linear([nn.Linear(2, 4)], [nn.Linear(5, 2, bias=False)]), ValueError,
        r"projections\[0\].weight: got shape \[2, 5\], expected \[2, 4\]"),
    row("projections with a bias", lambda: DCNv2.from_linear([nn.Linear(2, 4)], [nn.Linear(4, 2)]), ValueError,
        "projections=.*bias=True.*expected 1 with bias=False"),
    row("too few projections", lambda: DCNv2.from_linear(linears(2, 4), [nn.Linear(4, 2, bias=False)]), ValueError,
        "expected 3 with bias=False, one for each of layers"),
    row("no projections", lambda: DCNv2.from_linear([nn.Linear(4, 4)], []), TypeError, r"projections=\[\]: expected one torch.nn.Linear"),
]  # fmt: skip

test_weights_of_another_network_are_refused = refused(REFUSED)
