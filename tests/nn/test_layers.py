"""CrossRNN, sharing as a computation, and the towers' layer."""

import itertools

import pytest
import torch

from dcrnn_fast import CrossRNN, SharingPlan
from dcrnn_fast.nn.layers import TaskLinear
from tests.operators.problems import DOUBLE

PLANS = {
    f"{kind}-{cell}-{'tied' if tied else 'untied'}-share{ratio}": SharingPlan.from_ratio(kind, 3, 6, ratio, steps=3, cell=cell, tied=tied)
    for kind in ("rows", "trunk")
    for cell in ("gated", "cross")
    for tied in (True, False)
    for ratio in (0, 0.5, 1)
}
for kind in ("rows", "trunk"):
    PLANS[f"{kind}-by-field"] = SharingPlan.from_fields(kind, 3, [2, 1, 2, 1], [1, 2])
    for ratio, tied in itertools.product((0, 0.5, 1), (True, False)):
        name = f"{kind}-rank4-{'tied' if tied else 'untied'}-share{ratio}"
        PLANS[name] = SharingPlan.from_ratio(kind, 3, 6, ratio, steps=3, tied=tied, rank=4)
    PLANS[f"{kind}-cross-rank2"] = SharingPlan.from_ratio(kind, 3, 6, 0.5, cell="cross", rank=2)


def full_rows(module, weight, trunk):
    """The weights [W, n, G, r] of a low-rank cell as rows of full matrices [W, n, G, K]: each times the projection of its step."""
    return torch.einsum("wngr,wrgk->wngk", weight, module.trunk_projection if trunk else module.shared_projection)


def dense_weights(module, task):
    """One task's full matrices [W, G, D, D] and biases [W, G, D] in the order of the units, with zeros where a trunk unit may not read."""
    plan = module.plan
    steps, gates, dim = plan.weight_steps, plan.gates, plan.dim
    trunk, shared, private, order = plan.kind == "trunk", list(plan.shared_units), list(plan.private_units), list(plan.order)
    weight, bias = torch.zeros(steps, gates, dim, dim, dtype=DOUBLE), torch.zeros(steps, gates, dim, dtype=DOUBLE)
    for of_trunk, units, read, rows, biases in (
        (trunk, shared, shared if trunk else order, module.shared_weight, module.shared_bias),
        (False, private, order, module.private_weight[task], module.private_bias[task]),
    ):
        if plan.rank is not None and units:
            rows = full_rows(module, rows, of_trunk)
        for step, (row, unit) in itertools.product(range(steps), enumerate(units)):
            weight[step, :, unit, read] = rows[step, row]
            bias[step, :, unit] = biases[step, row]
    return weight, bias


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_each_task_computes_the_recurrence_of_its_own_full_matrices(plan):
    """For a trunk too: computing the shared units once gives what a computation per task gives."""
    module = CrossRNN(plan, dtype=DOUBLE)
    with torch.no_grad():
        for bias in (module.shared_bias, module.private_bias):
            bias.normal_()
    x0 = torch.randn(7, plan.dim, dtype=DOUBLE)
    expected = []
    for task in range(plan.num_tasks):
        weight, bias = dense_weights(module, task)
        h = x0
        for step in range(plan.steps):
            w, b = weight[step % plan.weight_steps], bias[step % plan.weight_steps]
            gate = torch.sigmoid(h @ w[1].T + b[1]) if plan.cell == "gated" else 1
            h = h + gate * x0 * (h @ w[0].T + b[0])
        expected.append(h)
    torch.testing.assert_close(module(x0), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_updates_of_a_low_rank_cell_start_as_large_as_of_the_full_cell():
    x0, sizes = torch.randn(500, 64), []
    for rank in (None, 8, 32):
        modules = [CrossRNN(SharingPlan.from_ratio("rows", 2, 64, 0.5, steps=1, rank=rank)) for _ in range(8)]
        sizes.append(sum(float((module(x0) - x0).square().mean()) for module in modules) / 8)
    assert max(sizes) < 1.3 * min(sizes)


def test_the_towers_layer_is_one_linear_layer_a_task():
    layer, x = TaskLinear(4, 5, 3, dtype=DOUBLE), torch.randn(3, 6, 4, dtype=DOUBLE)
    expected = [x[task] @ layer.private_weight[task].T + layer.private_bias[task] for task in range(3)]
    torch.testing.assert_close(layer(x), torch.stack(expected))


def test_modules_move_between_dtypes_and_devices_as_a_whole():
    for module in (CrossRNN(SharingPlan.from_fields("trunk", 2, [4, 4], [1])), TaskLinear(4, 5, 2)):
        module.to(torch.float64)
        assert all(p.dtype == torch.float64 for p in module.parameters())
        assert not list(module.buffers())
        assert all(t.device.type == "meta" for t in module.to("meta").parameters())
