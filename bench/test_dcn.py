"""DCNv2 (untied, one task, no gate) against the formula of torchrec's CrossNet, eager and compiled, nn.Linear, and the product floor."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dcrnn_fast import DCNv2

from .candidates import products
from .cases import DTYPES_OF, GPU, STEPS, both_passes, crossed

FULL = {
    "cpu": crossed(D=(64, 128, 256, 624, 1024), B=(64, 512, 4096)),
    "cuda": crossed(D=GPU["D"], B=GPU["B"]),
}


class CrossNetMath(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l as torchrec computes it: each row is a column vector that the matrix multiplies."""

    def __init__(self, module: DCNv2, dtype: torch.dtype) -> None:
        super().__init__()
        dim = module.shared_weight.shape[-1]
        weight, bias = module.shared_weight.detach().to(dtype), module.shared_bias.detach().to(dtype)
        self.weight, self.bias = nn.Parameter(weight.reshape(-1, dim, dim)), nn.Parameter(bias.reshape(-1, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        x0 = state = x.unsqueeze(2)
        for weight, bias in zip(self.weight, self.bias, strict=True):
            state = x0 * (torch.matmul(weight, state) + bias) + state
        return state.squeeze(2)


class LinearCrossNet(CrossNetMath):
    """The same as one writes it without torchrec: ``nn.Linear`` on rows."""

    def forward(self, x: Tensor) -> Tensor:
        state = x
        for weight, bias in zip(self.weight, self.bias, strict=True):
            state = x * linear(state, weight, bias.squeeze(1)) + state
        return state


def cases(grid, device):
    dtypes = DTYPES_OF[device]
    if grid == "full":
        return both_passes(FULL[device], dtypes[:1] if device == "cpu" else dtypes)
    return both_passes([{"D": 256, "B": 512} if grid == "headline" else {"D": 17, "B": 9}], dtypes[:1])


def test_dcn(comparison):
    dim, batch, kind = comparison.case["D"], comparison.case["B"], comparison.kind
    comparison.add_dcn(partial(DCNv2, dim, STEPS), CrossNetMath, dim, batch, linear=LinearCrossNet)
    comparison.add_call("floor", lambda: products(dim, batch, 1, 1, STEPS, training=comparison.training, **kind))
    comparison.time()
