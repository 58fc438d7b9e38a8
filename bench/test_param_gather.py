"""param_gather against the reference, PyTorch's own index_select of the joined banks, and the floor: a copy of the same bytes."""

import torch
from torch import Tensor

from dcrnn_fast import functional, reference
from dcrnn_fast.sharing import round_units

from .cases import GPU, SHARE_RATIO, both_passes, crossed

FULL = {"cpu": crossed(D=(64, 256, 624, 1024), T=(2, 4)), "cuda": crossed(T=GPU["T"], D=GPU["D"])}


def cases(grid, device):
    sizes = {"smoke": [{"D": 17, "T": 2}], "headline": [{"D": 624, "T": 2}], "full": FULL[device]}
    return both_passes(sizes[grid], ["bfloat16" if device == "cuda" else "float32"])


def test_param_gather(comparison):
    tasks, dim = comparison.case["T"], comparison.case["D"]
    common = round_units(SHARE_RATIO, dim)
    shared, private = comparison.draw(common, 2, dim), comparison.draw(tasks, dim - common, 2, dim)
    index = torch.arange(dim, dtype=torch.int32, device=comparison.device).repeat(tasks, 1)
    seed = comparison.draw(*index.shape, *shared.shape[1:])
    own = torch.arange(tasks, device=comparison.device)[:, None] * private.shape[1]
    place = torch.where(index < shared.shape[0], index, index + own).flatten()

    def index_select(shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
        return torch.cat([shared, private.flatten(0, 1)]).index_select(0, place).view_as(seed)

    def call(gather):
        if not comparison.training:
            with torch.no_grad():
                return [gather(shared, private, index)]
        banks = shared.detach().requires_grad_(), private.detach().requires_grad_()
        return torch.autograd.grad(gather(*banks, index), banks, seed)

    def check(results):
        for got, right in zip(results, call(reference.param_gather), strict=True):
            torch.testing.assert_close(got, right)

    ours = {name: lambda *banks, name=name: functional.param_gather(*banks, backend=name) for name in comparison.ours}
    for name, gather in {**ours, "eager": reference.param_gather, "index_select": index_select}.items():
        comparison.add_call(name, lambda gather=gather: lambda: call(gather), check)
    copies = [torch.empty_like(seed) for _ in range(2 if comparison.training else 1)]
    comparison.add_call("floor", lambda: lambda: [copy.copy_(seed) for copy in copies])
    comparison.time()
