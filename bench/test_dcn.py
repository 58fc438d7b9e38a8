"""DCNv2 (untied, one task, no gate) against the mathematics of torchrec's CrossNet, eager and compiled, and the GEMM floor."""

import pytest
import torch
from torch import Tensor, nn

from dcrnn_fast import DCNv2

from .candidates import check, products, step
from .interleave import measured, rounds

LAYERS = 3
SMOKE = [(64, 64)]
GRID = [(dim, batch) for dim in (64, 128, 256, 624, 1024) for batch in (64, 512, 4096)]


class CrossNetMath(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l as torchrec computes it: every row a column vector that the matrix is applied to."""

    def __init__(self, dim: int, layers: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layers, dim, dim, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(layers, dim, 1, dtype=dtype))

    def copy_from(self, module: DCNv2) -> "CrossNetMath":
        """The parameters of a DCNv2, whose rows of all layers lie one after the other."""
        with torch.no_grad():
            self.weight.copy_(module.shared_weight.view_as(self.weight))
            self.bias.copy_(module.shared_bias.view_as(self.bias))
        return self

    def forward(self, x: Tensor) -> Tensor:
        x0 = state = x.unsqueeze(2)
        for weight, bias in zip(self.weight, self.bias, strict=True):
            state = x0 * (torch.matmul(weight, state) + bias) + state
        return state.squeeze(2)


def pytest_generate_tests(metafunc):
    cases = GRID if metafunc.config.getoption("--benchmark") else SMOKE
    metafunc.parametrize(("dim", "batch"), cases, ids=[f"D{d}-B{b}" for d, b in cases])


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_dcn(dim, batch, training, measuring, seconds, record, keep):
    torch.manual_seed(0)
    torch._dynamo.reset()
    fast = DCNv2(dim, LAYERS)
    crossnet, exact = CrossNetMath(dim, LAYERS).copy_from(fast), CrossNetMath(dim, LAYERS, torch.float64).copy_from(fast)
    x0 = torch.randn(batch, dim)
    seed = torch.randn(batch, dim) if training else None
    modules = {"fast": fast, "crossnet": crossnet}
    check(modules, exact, x0, seed)
    if measuring:
        modules["crossnet compiled"] = torch.compile(crossnet, fullgraph=True)
        check(modules, exact, x0, seed)
        torch._dynamo.reset()
        modules["crossnet compiled"] = torch.compile(crossnet, fullgraph=True)

    calls = {name: lambda module=module: step(module, x0, seed) for name, module in modules.items()}
    keep(calls["fast"])
    times = rounds({**calls, "floor": products(dim, batch, 1, 1, LAYERS, torch.float32, training)}, seconds=seconds)
    record("dcn_cpu", {"pass": "forward+backward" if training else "forward", "D": dim, "B": batch}, measured(times, "fast"))
