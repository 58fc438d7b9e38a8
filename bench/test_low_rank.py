"""The low-rank cell with rows sharing against the eager reference, its compiled form, the product floor, and the full cell."""

from dcrnn_fast import CrossRNN, SharingPlan

from .candidates import step, thin_products
from .cases import DTYPES_OF, SHARE_RATIO, STEPS, both_passes, crossed

HEADLINE = [{"D": dim, "B": batch, "T": 2, "rank": rank} for dim, rank in ((320, 32), (624, 64)) for batch in (512, 4096)]
DEFAULT = {"D": 368, "B": 512, "T": 2, "rank": 32, "L": 2}
"""The cell of the default configuration on the census's fields."""
FULL = crossed(T=(2, 1, 4), D=(320, 624, 128, 256, 1024), rank=(32, 64, 16), B=(512, 4096, 64, 16384))
GPU_HEADLINE = [
    *both_passes([{**DEFAULT, "B": batch} for batch in (512, 4096, 64)], ["bfloat16"]),
    *both_passes([{"D": 624, "B": 8192, "T": 2, "rank": 64}], ["bfloat16"]),
]
"""The default cell, and the size for which docs/inside/kernels.md states goals."""
SMOKE = {"D": 17, "B": 9, "T": 2, "rank": 3}


def cases(grid, device):
    if grid == "headline" and device == "cuda":
        return GPU_HEADLINE
    sizes = {"smoke": [SMOKE], "headline": [*HEADLINE, DEFAULT], "full": FULL}[grid]
    return both_passes(sizes, DTYPES_OF[device])


def test_low_rank(comparison):
    case, kind = comparison.case, comparison.kind
    dim, batch, tasks, rank = case["D"], case["B"], case["T"], case["rank"]
    steps = case.get("L", STEPS)
    plan, full = (SharingPlan.from_ratio("rows", tasks, dim, SHARE_RATIO, steps=steps, rank=limit) for limit in (rank, None))
    x0, seed = comparison.add_recurrences(plan, batch)
    comparison.add_call("floor", lambda: thin_products(dim, rank, batch, tasks, 2, steps, training=comparison.training, **kind))
    if comparison.grid != "smoke":
        whole = CrossRNN(full, backend=comparison.ours[0], **kind)
        comparison.add_call("full cell", lambda: lambda: step(whole, x0, seed))
    comparison.time()
