"""CrossRNN with rows sharing: the fast module against the eager reference, its compiled form, and the GEMM floor.

The floor is the time of the bare matrix products that the work needs: [B, D] x [D, G * D] a task and step forward, and as much twice
backward. Ratios are times over times: above 1 is slower than the peer named.
"""

import pytest
import torch

from dcrnn_fast import CrossRNN, SharingPlan, backends, reference

from .interleave import ratio, rounds

STEPS, SHARE_RATIO = 3, 0.5
SMOKE = [(64, 64, 2)]
GRID = [(dim, batch, tasks) for dim in (64, 128, 256, 624) for batch in (64, 512, 4096) for tasks in (2,)]


def floor(dim, batch, tasks, training):
    """The products alone, as one call of the library a task."""
    x, weight = torch.randn(batch, dim), torch.randn(2 * dim, dim)
    gradient = torch.randn(STEPS * batch, 2 * dim)
    states = torch.randn(STEPS * batch, dim)

    def run():
        for _ in range(tasks):
            for _ in range(STEPS):
                torch.mm(x, weight.T)
            if training:
                for _ in range(STEPS):
                    torch.mm(gradient[:batch], weight)
                torch.mm(gradient.T, states)

    return run


def check(module, exact, x0):
    """Outputs within 1e-5 of float64, relative; nothing is timed that is wrong."""
    with torch.no_grad():
        expected = exact(x0.double())
        error = (module(x0).double() - expected).norm() / expected.norm()
    assert error < 1e-5, f"relative error {error:.1e} against float64"


def pytest_generate_tests(metafunc):
    cases = GRID if metafunc.config.getoption("--benchmark") else SMOKE
    metafunc.parametrize(("dim", "batch", "tasks"), cases, ids=[f"D{d}-B{b}-T{t}" for d, b, t in cases])


@pytest.mark.parametrize("training", [False, True], ids=["forward", "forward+backward"])
def test_cross_rnn(dim, batch, tasks, training, measuring, seconds, record):
    torch.manual_seed(0)
    torch._dynamo.reset()
    plan = SharingPlan.from_ratio("rows", tasks, dim, SHARE_RATIO, steps=STEPS)
    backend = "auto" if backends.REASONS["cpp"] else "cpp"
    eager, fast, exact = reference.CrossRNN(plan), CrossRNN(plan, backend=backend), reference.CrossRNN(plan, dtype=torch.float64)
    fast.load_state_dict(eager.state_dict())
    exact.load_state_dict(eager.state_dict())
    candidates = {"fast": fast, "eager": eager}
    if measuring:
        candidates["compile"] = torch.compile(eager, fullgraph=True)
    x0, seed = torch.randn(batch, dim), torch.randn(tasks, batch, dim)

    def call(module):
        if training:
            leaf = x0.detach().requires_grad_()
            torch.autograd.grad(module(leaf), [leaf, *module.parameters()], seed)
        else:
            with torch.no_grad():
                module(x0)

    for module in candidates.values():
        check(module, exact, x0)
    calls = {name: (lambda module=module: call(module)) for name, module in candidates.items()}
    times = rounds({**calls, "floor": floor(dim, batch, tasks, training)}, seconds=seconds)
    row = {"backend": backend, "D": dim, "B": batch, "T": tasks, "pass": "forward+backward" if training else "forward"}
    row["fast, ms"] = round(sorted(times["fast"])[len(times["fast"]) // 2] * 1e3, 3)
    for peer in ("eager", "compile", "floor"):
        if peer in times:
            row[f"fast / {peer}"] = str(ratio(times, "fast", peer))
    for other in ("eager", "compile"):
        if other in times:
            row[f"{other} / floor"] = str(ratio(times, other, "floor"))
    record("cross_rnn_cpu.json", row)
