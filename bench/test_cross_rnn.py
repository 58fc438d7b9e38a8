"""CrossRNN with rows sharing: the fast module against the eager reference, its compiled form, and the GEMM floor.

Ratios are times over times: above 1 is slower than the peer named.
"""

import pytest
import torch

from dcrnn_fast import CrossRNN, SharingPlan, reference

from .candidates import check, products, step
from .interleave import measured, rounds

STEPS, SHARE_RATIO = 3, 0.5
SMOKE = [(64, 64, 2)]
GRID = [(dim, batch, tasks) for tasks in (2, 1, 4) for dim in (64, 128, 256, 624, 1024) for batch in (64, 512, 4096, 16384)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pytest_generate_tests(metafunc):
    cases = GRID if metafunc.config.getoption("--benchmark") else SMOKE
    metafunc.parametrize(("dim", "batch", "tasks"), cases, ids=[f"D{d}-B{b}-T{t}" for d, b, t in cases])


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_rnn(dim, batch, tasks, dtype, training, measuring, seconds, record, keep):
    torch.manual_seed(0)
    torch._dynamo.reset()
    kind = DTYPES[dtype]
    plan = SharingPlan.from_ratio("rows", tasks, dim, SHARE_RATIO, steps=STEPS)
    modules = {"fast": CrossRNN(plan, dtype=kind), "eager": reference.CrossRNN(plan, dtype=kind)}
    exact = reference.CrossRNN(plan, dtype=torch.float64)
    exact.load_state_dict(modules["eager"].state_dict())
    modules["fast"].load_state_dict(modules["eager"].state_dict())
    x0 = torch.randn(batch, dim, dtype=kind)
    seed = torch.randn(tasks, batch, dim, dtype=kind) if training else None
    check(modules, exact, x0, seed)
    if measuring:
        compiled = torch.compile(modules["eager"], fullgraph=True)
        check({"compile": compiled}, exact, x0, seed)
        torch._dynamo.reset()  # measured with shapes of its own, not with the check's beside them
        modules["compile"] = torch.compile(modules["eager"], fullgraph=True)

    calls = {name: lambda module=module: step(module, x0, seed) for name, module in modules.items()}
    keep(calls["fast"])
    times = rounds({**calls, "floor": products(dim, batch, tasks, 2, STEPS, kind, training)}, seconds=seconds)
    key = {"pass": "forward+backward" if training else "forward", "dtype": dtype, "D": dim, "B": batch, "T": tasks}
    record("cross_rnn_cpu", key, measured(times, "fast"))
