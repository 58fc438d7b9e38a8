"""Trunk sharing against rows sharing at the same share_ratio: the products fall, and so should the time."""

import pytest
import torch

from dcrnn_fast import CrossRNN, SharingPlan, reference

from .candidates import check, step
from .interleave import measured, rounds

SMOKE = [(64, 64, 4, 0.5)]
GRID = [(624, 4096, 4, 0.5), (624, 4096, 4, 0.75), (256, 4096, 4, 0.5), (128, 512, 4, 0.5), (624, 4096, 2, 0.5)]


def pytest_generate_tests(metafunc):
    cases = GRID if metafunc.config.getoption("--benchmark") else SMOKE
    metafunc.parametrize(("dim", "batch", "tasks", "share_ratio"), cases, ids=[f"D{d}-B{b}-T{t}-{s}" for d, b, t, s in cases])


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_trunk_against_rows(dim, batch, tasks, share_ratio, training, seconds, record, keep):
    torch.manual_seed(0)
    x0 = torch.randn(batch, dim)
    seed = torch.randn(tasks, batch, dim) if training else None
    calls, flops = {}, {}
    for kind in ("trunk", "rows"):
        plan = SharingPlan.from_ratio(kind, tasks, dim, share_ratio)
        module, exact = CrossRNN(plan), reference.CrossRNN(plan, dtype=torch.float64)
        exact.load_state_dict(module.state_dict())
        check({kind: module}, exact, x0, seed)
        calls[kind] = lambda module=module: step(module, x0, seed)
        flops[kind] = plan.cost().flops
    keep(calls["trunk"])
    key = {"pass": "forward+backward" if training else "forward", "D": dim, "B": batch, "T": tasks, "share_ratio": share_ratio}
    expected = {"products, trunk/rows": round(flops["trunk"] / flops["rows"], 4)}
    record("sharing_cpu", key, {**expected, **measured(rounds(calls, seconds=seconds), "trunk")})
