"""param_gather against the reference, PyTorch's own index_select of the joined banks, and the floor: a copy of the same bytes."""

import pytest
import torch

from dcrnn_fast import functional

from .candidates import gathers
from .interleave import measured, rounds

SMOKE = [(64, 2)]
GRID = [(dim, tasks) for dim in (64, 256, 624, 1024) for tasks in (2, 4)]


def pytest_generate_tests(metafunc):
    cases = GRID if metafunc.config.getoption("--benchmark") else SMOKE
    metafunc.parametrize(("dim", "tasks"), cases, ids=[f"D{d}-T{t}" for d, t in cases])


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_param_gather(dim, tasks, training, seconds, record, keep):
    torch.manual_seed(0)
    calls = gathers(dim, tasks, training, {"fast": functional.param_gather})
    keep(calls["fast"])
    key = {"pass": "forward+backward" if training else "forward", "D": dim, "T": tasks}
    record("param_gather_cpu", key, measured(rounds(calls, seconds=seconds), "fast"))
