"""A DCNv2 of the weights of torchrec's cross networks."""

import pytest
import torch

pytest.importorskip("torchrec")

from torchrec.modules import crossnet

from dcrnn_fast import DCNv2

TAKEN = {"CrossNet": lambda: crossnet.CrossNet(6, 3), "LowRankCrossNet": lambda: crossnet.LowRankCrossNet(6, 3, low_rank=2)}
REFUSED = {
    "VectorCrossNet": lambda: crossnet.VectorCrossNet(6, 3),
    "LowRankMixtureCrossNet": lambda: crossnet.LowRankMixtureCrossNet(6, 3, num_experts=2, low_rank=2),
}


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_it_gives_the_outputs_and_gradients_of_torchrecs_module(make):
    module, x0 = make().double(), torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        for bias in module.bias:
            bias.normal_()
    found, expected = DCNv2.from_torchrec(module)(x0), module(x0)
    torch.testing.assert_close(found, expected)
    (gradient,), (right,) = (torch.autograd.grad(out.square().sum(), x0) for out in (found, expected))
    torch.testing.assert_close(gradient, right)


@pytest.mark.parametrize(("name", "make"), REFUSED.items(), ids=REFUSED)
def test_another_formula_of_torchrecs_is_refused(name, make):
    with pytest.raises(TypeError, match=f"module: got {name}, expected a CrossNet or LowRankCrossNet of torchrec"):
        DCNv2.from_torchrec(make())
