"""Scenarios: which states a level reads, which rows run which trunk, and what an unknown scenario computes."""

import itertools
from dataclasses import replace

import pytest
import torch

from dcrnn_fast import DCRNN, ScenarioCrossRNN, SharingPlan, reference
from dcrnn_fast.nn import scenarios
from tests.nn.models import SIZES, batch
from tests.operators.problems import DOUBLE

N = 3
PLANS = {
    f"{cell}-{'tied' if tied else 'untied'}-rank{rank}-share{share}-scenario{scenario}": SharingPlan.from_ratio(
        "trunk", 2, 6, share, cell=cell, tied=tied, rank=rank, num_scenarios=N, scenario_ratio=scenario
    )
    for cell, tied, rank, (share, scenario) in itertools.product(
        ("gated", "cross"), (True, False), (None, 2), ((0.5, 0.25), (0, 0.5), (0.5, 0.5), (0, 1), (0.5, 0))
    )
    if (cell, tied) != ("cross", False)
}
PLANS["units in no order"] = SharingPlan("trunk", 2, 6, (1, 4), num_scenarios=N, scenario_units=(0, 5))
SCENARIOS = torch.tensor([2, 0, 1, 2, 2, 0, 1])  # none of scenario 3, rows out of order


def drawn(plan, module=ScenarioCrossRNN):
    """A module in float64 whose parameters are all random: training has moved the scenarios from where they start."""
    layer = module(plan, dtype=DOUBLE)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5)
    return layer


def full_matrices(layer, task, scenario):
    """The matrices [W, G, D, D] and biases [W, G, D] of a row, with zeros where a unit may not read, and for an unknown scenario."""
    plan = layer.plan
    steps, gates, dim = plan.weight_steps, plan.gates, plan.dim
    shared, of_scenario, private = (list(units) for units in (plan.shared_units, plan.scenario_units, plan.private_units))
    levels = [(shared, shared, layer.shared_weight, layer.shared_bias, "trunk_projection")]
    if scenario:
        banks = layer.scenario_weight[scenario - 1], layer.scenario_bias[scenario - 1]
        levels.append((of_scenario, shared + of_scenario, *banks, "scenario_projection"))
    banks = layer.private_weight[task], layer.private_bias[task]
    levels.append((private, shared + of_scenario + private, *banks, "shared_projection"))
    weight, bias = torch.zeros(steps, gates, dim, dim, dtype=DOUBLE), torch.zeros(steps, gates, dim, dtype=DOUBLE)
    for units, read, rows, row_biases, projection in levels:
        if plan.rank is not None and units:
            rows = torch.einsum("wngr,wrgk->wngk", rows, getattr(layer, projection))
        for step, (row, unit) in itertools.product(range(steps), enumerate(units)):
            weight[step, :, unit, read] = rows[step, row]
            bias[step, :, unit] = row_biases[step, row]
    return weight, bias


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_each_row_computes_the_recurrence_of_its_own_full_matrices(plan):
    layer, x0 = drawn(plan), torch.randn(len(SCENARIOS), plan.dim, dtype=DOUBLE)
    result = layer(x0, SCENARIOS)
    for task, row in itertools.product(range(plan.num_tasks), range(len(x0))):
        weight, bias = full_matrices(layer, task, int(SCENARIOS[row]))
        h = x0[row]
        for step in range(plan.steps):
            w, b = weight[step % plan.weight_steps], bias[step % plan.weight_steps]
            gate = torch.sigmoid(w[1] @ h + b[1]) if plan.cell == "gated" else 1
            h = h + gate * x0[row] * (w[0] @ h + b[0])
        torch.testing.assert_close(result[task, row], h, rtol=1e-12, atol=1e-12)


def results(layer, x0, scenario):
    """The states and the gradients of everything."""
    inputs = x0.detach().requires_grad_()
    h = layer(inputs, scenario)
    h.backward(torch.linspace(-1, 1, h.numel(), dtype=h.dtype).view_as(h))
    found = {"h": h.detach(), "x0": inputs.grad}
    found |= {name: value.grad for name, value in layer.named_parameters() if value.numel()}
    layer.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_all_scenarios_on_all_rows_give_what_a_call_for_each_gives(plan, monkeypatch):
    layer, x0 = drawn(plan), torch.randn(len(SCENARIOS), plan.dim, dtype=DOUBLE)
    expected = results(layer, x0, SCENARIOS)
    monkeypatch.setattr(scenarios, "may_read_values", lambda tensor: False)
    for name, value in results(layer, x0, SCENARIOS).items():
        torch.testing.assert_close(value, expected[name], msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_fast_recurrence_has_the_references_states_and_gradients(plan):
    exact, fast = drawn(plan, reference.ScenarioCrossRNN), ScenarioCrossRNN(plan, dtype=DOUBLE)
    fast.load_state_dict(exact.state_dict(), strict=True)
    x0 = torch.randn(len(SCENARIOS), plan.dim, dtype=DOUBLE)
    expected = results(exact, x0, SCENARIOS)
    for name, value in results(fast, x0, SCENARIOS).items():
        torch.testing.assert_close(value, expected[name], msg=lambda said, name=name: f"{name}: {said}")


PLAN = PLANS["gated-tied-rankNone-share0.5-scenario0.25"]


@pytest.mark.parametrize("module", [ScenarioCrossRNN, reference.ScenarioCrossRNN], ids=["fast", "reference"])
@pytest.mark.parametrize(
    "scenario", [[], [0, 0, 0], [1], [3, 3], [0, 3]], ids=["no row", "unknown alone", "a row", "one", "unknown and one"]
)
def test_any_batch_runs_and_gives_every_parameter_a_gradient(module, scenario):
    """DistributedDataParallel waits for each of them."""
    layer = module(PLAN)
    h = layer(torch.randn(len(scenario), 6), torch.tensor(scenario, dtype=torch.int64))
    assert h.shape == (2, len(scenario), 6)
    h.sum().backward()
    assert [name for name, value in layer.named_parameters() if value.grad is None] == []


def test_an_unknown_scenario_computes_what_a_trunk_of_zeros_does():
    layer, x0 = drawn(PLAN), torch.randn(5, 6, dtype=DOUBLE)
    unknown = layer(x0)
    assert torch.equal(unknown, layer(x0, torch.zeros(5, dtype=torch.int64)))
    assert torch.equal(unknown[:, :, list(PLAN.scenario_units)], x0[:, list(PLAN.scenario_units)].expand(2, -1, -1))
    with torch.no_grad():
        layer.scenario_weight[1] = 0
        layer.scenario_bias[1] = 0
    torch.testing.assert_close(layer(x0, torch.full((5,), 2)), unknown)


@pytest.mark.parametrize("rank", [None, 2])
def test_every_scenario_starts_as_the_unknown_one_and_training_moves_it(rank):
    layer, x0 = ScenarioCrossRNN(replace(PLAN, rank=rank)), torch.randn(len(SCENARIOS), 6)
    torch.testing.assert_close(layer(x0, SCENARIOS), layer(x0))
    layer(x0, SCENARIOS).square().sum().backward()
    moved = layer.scenario_weight.grad.flatten(1).norm(dim=1)
    assert moved[:2].min() > 0, "scenarios 1 and 2 have rows"
    assert moved[2] == 0, "scenario 3 has none"


@pytest.mark.parametrize("rank", [None, 2])
def test_two_runs_give_the_same_bits(rank):
    layer, x0, scenario = ScenarioCrossRNN(replace(PLAN, rank=rank)), torch.randn(200, 6), torch.randint(0, N + 1, (200,))
    first, second = results(layer, x0, scenario), results(layer, x0, scenario)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_cost_in_parameters_is_what_the_module_has(plan):
    for number in (0, 1, 5):
        one = replace(plan, num_scenarios=number)
        assert one.cost().parameters == sum(p.numel() for p in reference.ScenarioCrossRNN(one).parameters())
    added = plan.cost_per_added_scenario()
    assert (added.flops, added.kept_bytes) == (0, 0)
    assert added.parameters == sum(value[0].numel() for value in (drawn(plan).scenario_weight, drawn(plan).scenario_bias))
    assert added.weight_bytes == 4 * added.parameters


def test_flops_and_kept_bytes_count_the_three_levels():
    plan = SharingPlan.from_ratio("trunk", 3, 8, 0.5, steps=2, num_scenarios=7, scenario_ratio=0.25)
    assert plan.cost().flops == 2 * 2 * 2 * (4 * 4 + 2 * 6 + 3 * 2 * 8)
    assert plan.cost().kept_bytes == 4 * 2 * 3 * (4 + 2 + 3 * 2)
    assert "per added scenario" in plan.summary()


def test_a_field_without_known_ids_has_no_scenarios():
    model = DCRNN([3, 1], sharing="trunk", scenario="1")
    model(torch.tensor([[2, 0]])).sum().backward()
    assert model.plan.num_scenarios == 0
    assert model(torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 2)


@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low-rank"])
def test_a_model_compiles_into_one_graph_and_exports_for_any_batch(rank):
    model = DCRNN(SIZES, rank=rank, embedding_dim=4, tower_dims=(8,), dropout=0.0, sharing="trunk", scenario="item")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    ids = batch(30)[0]
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(ids), model(ids))
    program = torch.export.export(model, (batch(5)[0],), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.testing.assert_close(program.module()(ids), model(ids))
