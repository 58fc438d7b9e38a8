"""param_gather against the reference, PyTorch's own index_select of the joined banks, and the floor: a copy of the same bytes."""

import pytest
import torch

from dcrnn_fast import SharingPlan, functional, reference

from .interleave import measured, rounds

SMOKE = [(64, 2)]
GRID = [(dim, tasks) for dim in (64, 256, 624, 1024) for tasks in (2, 4)]


def pytest_generate_tests(metafunc):
    cases = GRID if metafunc.config.getoption("--benchmark") else SMOKE
    metafunc.parametrize(("dim", "tasks"), cases, ids=[f"D{d}-T{t}" for d, t in cases])


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_param_gather(dim, tasks, training, seconds, record, keep):
    torch.manual_seed(0)
    plan = SharingPlan.from_ratio("rows", tasks, dim, 0.5)
    shared, private, index = torch.randn(plan.shared_shape()), torch.randn(plan.private_shape()), plan.index()
    seed = torch.randn(*index.shape, *shared.shape[1:])
    own = torch.arange(tasks)[:, None] * private.shape[1]
    place = torch.where(index < shared.shape[0], index, index + own).flatten()
    into, back = torch.empty_like(seed), torch.empty_like(seed)

    def index_select(shared, private, index):
        return torch.cat([shared, private.flatten(0, 1)]).index_select(0, place).view_as(seed)

    def call(gather):
        if not training:
            with torch.no_grad():
                return [gather(shared, private, index)]
        banks = shared.detach().requires_grad_(), private.detach().requires_grad_()
        return torch.autograd.grad(gather(*banks, index), banks, seed)

    def copies():
        into.copy_(seed)
        if training:
            back.copy_(seed)

    candidates = {"fast": functional.param_gather, "eager": reference.param_gather, "index_select": index_select}
    calls = {name: lambda gather=gather: call(gather) for name, gather in candidates.items()}
    for name, run in calls.items():
        for got, right in zip(run(), call(reference.param_gather), strict=True):
            torch.testing.assert_close(got, right, msg=lambda text, name=name: f"{name}: {text}")
    keep(calls["fast"])
    key = {"pass": "forward+backward" if training else "forward", "D": dim, "T": tasks}
    record("param_gather_cpu", key, measured(rounds({**calls, "copy": copies}, seconds=seconds), "fast"))
