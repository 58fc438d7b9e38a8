"""CrossRNN with rows sharing against the eager reference, its compiled forms, and the product floor."""

from dcrnn_fast import SharingPlan

from .candidates import products
from .cases import DTYPES_OF, GPU, GPU_HEADLINE, HEADLINE, SHARE_RATIO, SMOKE, STEPS, both_passes, crossed

FULL = {
    "cpu": crossed(T=(2, 1, 4), D=(64, 128, 256, 624, 1024), B=(64, 512, 4096, 16384)),
    "cuda": crossed(**GPU),
}


def cases(grid, device):
    dtypes = DTYPES_OF[device]
    if grid == "headline" and device == "cuda":
        return list(GPU_HEADLINE)
    if grid == "headline":
        return both_passes(HEADLINE, dtypes[:1]) + both_passes(HEADLINE[1:2], dtypes[1:])
    return both_passes(FULL[device] if grid == "full" else [SMOKE], dtypes)


def test_cross_rnn(comparison):
    case, kind = comparison.case, comparison.kind
    dim, batch, tasks = case["D"], case["B"], case["T"]
    plan = SharingPlan.from_ratio("rows", tasks, dim, SHARE_RATIO, steps=STEPS)
    comparison.add_recurrences(plan, batch)
    comparison.add_call("floor", lambda: products(dim, batch, tasks, 2, STEPS, training=comparison.training, **kind))
    comparison.time()
