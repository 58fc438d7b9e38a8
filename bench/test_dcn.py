"""DCNv2 (untied, one task, no gate), full and of low rank, against the formulas of torchrec's CrossNet and LowRankCrossNet, eager and
compiled, against nn.Linear, and the product floor.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dcrnn_fast import DCNv2

from .candidates import products, thin_products
from .cases import DTYPES_OF, GPU, STEPS, both_passes, crossed

FULL = {
    "cpu": crossed(D=(64, 128, 256, 624, 1024), B=(64, 512, 4096)) + crossed(D=(320, 624, 128, 1024), rank=(32, 64), B=(512, 4096, 64)),
    "cuda": crossed(D=GPU["D"], B=GPU["B"]) + crossed(D=GPU["D"], rank=(32, 64), B=GPU["B"]),
}
FEW = {"headline": [{"D": 256, "B": 512}, {"D": 320, "B": 512, "rank": 32}], "smoke": [{"D": 17, "B": 9}, {"D": 17, "B": 9, "rank": 3}]}


class CrossNetMath(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l as torchrec computes it: each row is a column vector that the matrix multiplies. Of low rank,
    W_l is a product, W_l (V_l x_l).
    """

    def __init__(self, module: DCNv2, dtype: torch.dtype) -> None:
        super().__init__()
        dim, rank = module.shared_weight.shape[1], module.plan.rank
        shaped = [module.shared_weight.reshape(-1, dim, rank or dim), module.shared_bias.reshape(-1, dim, 1)]
        shaped += [module.shared_projection.reshape(-1, rank, dim)] if rank else []
        self.parts = nn.ParameterList(nn.Parameter(part.detach().to(dtype)) for part in shaped)

    def forward(self, x: Tensor) -> Tensor:
        x0 = state = x.unsqueeze(2)
        for weight, bias, *projection in zip(*self.parts, strict=True):
            read = torch.matmul(projection[0], state) if projection else state
            state = x0 * (torch.matmul(weight, read) + bias) + state
        return state.squeeze(2)


class LinearCrossNet(CrossNetMath):
    """The full one as one writes it without torchrec: ``nn.Linear`` on rows."""

    def forward(self, x: Tensor) -> Tensor:
        state = x
        for weight, bias in zip(*self.parts, strict=True):
            state = x * linear(state, weight, bias.squeeze(1)) + state
        return state


def cases(grid, device):
    dtypes = DTYPES_OF[device]
    return both_passes(FULL[device] if grid == "full" else FEW[grid], dtypes if (grid, device) == ("full", "cuda") else dtypes[:1])


def test_dcn(comparison):
    dim, batch, rank, kind = comparison.case["D"], comparison.case["B"], comparison.case.get("rank"), comparison.kind
    others = {} if rank else {"linear": LinearCrossNet}
    comparison.add_dcn(partial(DCNv2, dim, STEPS, rank=rank), CrossNetMath, dim, batch, **others)
    sizes = (dim, rank, batch, 1, 1, STEPS) if rank else (dim, batch, 1, 1, STEPS)
    comparison.add_call("floor", lambda: (thin_products if rank else products)(*sizes, training=comparison.training, **kind))
    comparison.time()
