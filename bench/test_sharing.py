"""Trunk sharing against rows sharing at the same share_ratio: trunk sharing needs fewer products, so it should take less time."""

import torch

from dcrnn_fast import CrossRNN, SharingPlan, reference

from .cases import DTYPES_OF, SHARE_RATIO, SMOKE, both_passes

SIZES = [
    {"D": 624, "B": 4096, "T": 4, "share_ratio": 0.5},
    {"D": 624, "B": 4096, "T": 4, "share_ratio": 0.75},
    {"D": 256, "B": 4096, "T": 4, "share_ratio": 0.5},
    {"D": 128, "B": 512, "T": 4, "share_ratio": 0.5},
    {"D": 624, "B": 4096, "T": 2, "share_ratio": 0.5},
]


def cases(grid, device):
    sizes = {"smoke": [{**SMOKE, "share_ratio": SHARE_RATIO}], "headline": SIZES[2:3], "full": SIZES}
    return both_passes(sizes[grid], DTYPES_OF[device][:1])


def test_sharing(comparison):
    case = comparison.case
    x0 = comparison.draw(case["B"], case["D"])
    seed = comparison.draw(case["T"], case["B"], case["D"]) if comparison.training else None
    flops = {}
    for sharing in ("trunk", "rows"):
        plan = SharingPlan.from_ratio(sharing, case["T"], case["D"], case["share_ratio"])
        flops[sharing] = plan.cost().flops
        modules = {name + ", rows" * (sharing == "rows"): CrossRNN(plan, backend=name, **comparison.kind) for name in comparison.ours}
        first, *others = modules.values()
        exact = reference.CrossRNN(plan, dtype=torch.float64, device=comparison.device)
        for module in (*others, exact):
            module.load_state_dict(first.state_dict())
        comparison.add_modules({name: lambda module=module: module for name, module in modules.items()}, exact, x0, seed)
    comparison.time(**{"products, trunk/rows": round(flops["trunk"] / flops["rows"], 4)})
