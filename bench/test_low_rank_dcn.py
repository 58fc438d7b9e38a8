"""DCNv2 of low rank against the mathematics of torchrec's LowRankCrossNet, eager and compiled, and the product floor."""

from functools import partial

import torch
from torch import Tensor, nn

from dcrnn_fast import DCNv2

from .candidates import thin_products
from .cases import DTYPES_OF, GPU, STEPS, both_passes, crossed

FULL = {
    "cpu": crossed(D=(320, 624, 128, 1024), rank=(32, 64), B=(512, 4096, 64)),
    "cuda": crossed(D=GPU["D"], rank=(32, 64), B=GPU["B"]),
}


class LowRankCrossNetMath(nn.Module):
    """x_{l+1} = x_0 * (W_l (V_l x_l) + b_l) + x_l as torchrec computes it: each row is a column vector that the matrices multiply."""

    def __init__(self, module: DCNv2, dtype: torch.dtype) -> None:
        super().__init__()
        dim, rank = module.shared_projection.shape[-1], module.shared_weight.shape[-1]
        parts = [
            part.detach().to(dtype).reshape(-1, *shape)
            for part, shape in (
                (module.shared_weight, (dim, rank)),
                (module.shared_bias, (dim, 1)),
                (module.shared_projection, (rank, dim)),
            )
        ]
        self.weight, self.bias, self.projection = (nn.Parameter(part) for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        x0 = state = x.unsqueeze(2)
        for weight, bias, projection in zip(self.weight, self.bias, self.projection, strict=True):
            state = x0 * (torch.matmul(weight, torch.matmul(projection, state)) + bias) + state
        return state.squeeze(2)


def cases(grid, device):
    dtypes = DTYPES_OF[device]
    if grid == "full":
        return both_passes(FULL[device], dtypes[:1] if device == "cpu" else dtypes)
    return both_passes([{"D": 320, "B": 512, "rank": 32} if grid == "headline" else {"D": 17, "B": 9, "rank": 3}], dtypes[:1])


def test_low_rank_dcn(comparison):
    dim, batch, rank, kind = comparison.case["D"], comparison.case["B"], comparison.case["rank"], comparison.kind
    comparison.add_dcn(partial(DCNv2, dim, STEPS, rank=rank), LowRankCrossNetMath, dim, batch)
    comparison.add_call("floor", lambda: thin_products(dim, rank, batch, 1, 1, STEPS, training=comparison.training, **kind))
    comparison.time()
