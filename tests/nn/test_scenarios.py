"""Scenarios: which states a level reads, which rows run which trunk, and what an unknown scenario computes."""

import inspect
import itertools
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck
from torch.func import functional_call

from dcrnn_fast import DCRNN, CrossRNN, ScenarioCrossRNN, SharingPlan, reference
from dcrnn_fast.nn import scenarios
from dcrnn_fast.ops import backends
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
def test_each_row_computes_the_recurrence_of_its_scenarios_and_tasks_full_matrices(plan):
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
def test_all_scenarios_on_all_rows_give_what_a_call_for_each_scenario_gives(plan, monkeypatch):
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


@pytest.mark.parametrize("plan", [PLANS["gated-tied-rankNone-share0.5-scenario0.25"], PLANS["gated-untied-rank2-share0-scenario0.5"]])
def test_gradients_match_finite_differences(plan):
    layer = drawn(replace(plan, steps=2))
    parameters = {name: value for name, value in layer.named_parameters() if value.numel()}
    x0 = torch.randn(len(SCENARIOS), plan.dim, dtype=DOUBLE, requires_grad=True)

    def run(x0, *values):
        return functional_call(layer, dict(zip(parameters, values, strict=True)), (x0, SCENARIOS))

    assert gradcheck(run, (x0, *parameters.values()))


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


def test_an_unknown_scenario_computes_what_a_trunk_of_zeros_does_and_ignores_the_scenarios():
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


def test_a_row_does_not_depend_on_the_other_rows_of_its_batch():
    layer, x0, order = drawn(PLAN), torch.randn(len(SCENARIOS), 6, dtype=DOUBLE), torch.randperm(len(SCENARIOS))
    together = layer(x0, SCENARIOS)
    torch.testing.assert_close(layer(x0[order], SCENARIOS[order]), together[:, order])
    alone = torch.cat([layer(x0[row : row + 1], SCENARIOS[row : row + 1]) for row in range(len(x0))], dim=1)
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("rank", [None, 2])
def test_two_runs_give_the_same_bits(rank):
    layer, x0, scenario = ScenarioCrossRNN(replace(PLAN, rank=rank)), torch.randn(200, 6), torch.randint(0, N + 1, (200,))
    first, second = results(layer, x0, scenario), results(layer, x0, scenario)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize(
    ("scenario", "error", "message"),
    [
        (torch.tensor([0, 4]), IndexError, r"scenario: got 4, expected values in \[0, 3\]"),
        (torch.tensor([-1, 2]), IndexError, r"scenario: got -1, expected values in \[0, 3\]"),
        (torch.tensor([1]), ValueError, r"scenario: got shape \[1\], expected \[2\]"),
        (torch.tensor([1.0, 2.0]), TypeError, r"scenario: got dtype torch\.float32"),
        ([1, 2], TypeError, "scenario: got list"),
    ],
)
def test_a_wrong_scenario_is_refused_by_name(scenario, error, message):
    with pytest.raises(error, match=message):
        ScenarioCrossRNN(PLAN)(torch.randn(2, 6), scenario)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "rows"}, 'sharing="rows": expected sharing="trunk" with scenarios'),
        ({"num_scenarios": -1}, "num_scenarios=-1"),
        ({"scenario_units": (2, 3)}, "scenario_units: unit 2 is in shared_units too"),
        ({"scenario_units": (6,)}, r"scenario_units=\(6,\): expected sorted, distinct unit numbers in \[0, 6\)"),
    ],
)
def test_a_plan_that_scenarios_cannot_have_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **change)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_cost_in_parameters_is_what_the_module_has_and_flops_do_not_grow_with_scenarios(plan):
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


def test_the_summary_says_what_a_scenario_costs():
    lines = SharingPlan.from_ratio("trunk", 2, 8, 0.5, num_scenarios=7, scenario_ratio=0.25).summary().splitlines()
    assert lines[0].startswith("trunk sharing of 4 of 8 units, 2 units for each of 7 scenarios, 2 tasks")
    assert lines[4].split() == ["per", "added", "scenario", str(2 * 2 * (6 + 1)), "0", str(4 * 2 * 2 * (6 + 1)), "0"]
    assert "scenario" not in SharingPlan.from_ratio("trunk", 2, 8, 0.5).summary()


OPTIONS = {"embedding_dim": 4, "tower_dims": (8,), "dropout": 0.0, "sharing": "trunk", "scenario": "item"}


def trained(model):
    """The model with parameters that differ between scenarios."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def test_the_model_reads_the_scenario_from_the_named_field():
    model = trained(DCRNN(SIZES, **OPTIONS))
    ids = torch.tensor([[1, 5, 2]])
    before = model(ids)
    with torch.no_grad():
        model.cross.scenario_weight[[scenario for scenario in range(10) if scenario != 4]] += 1
    assert torch.equal(model(ids), before)
    with torch.no_grad():
        model.cross.scenario_weight[4] += 1
    assert not torch.equal(model(ids), before)


def test_a_field_of_a_sequence_is_named_by_its_position():
    assert DCRNN([3, 5], sharing="trunk", scenario="1").plan.num_scenarios == 4


def test_a_field_without_known_ids_has_no_scenarios():
    model = DCRNN([3, 1], sharing="trunk", scenario="1")
    model(torch.tensor([[2, 0]])).sum().backward()
    assert model.plan.num_scenarios == 0


@pytest.mark.parametrize("model", [DCRNN, reference.DCRNN], ids=["fast", "reference"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenario": "channel"}, "scenario='channel': expected one of 'user', 'item', 'hour'"),
        ({"scenario": "item", "sharing": "rows"}, "scenario='item' with sharing='rows': expected sharing=\"trunk\""),
        ({"scenario": "item", "share_ratio": 0.8}, r"share_ratio=0\.8 with scenario='item': expected at most 0\.75"),
    ],
)
def test_a_models_scenario_that_cannot_be_is_refused_by_name(model, change, message):
    with pytest.raises(ValueError, match=message):
        model(SIZES, **{"sharing": "trunk", **change})


def test_constructors_of_the_fast_recurrences_have_the_same_signature():
    assert inspect.signature(ScenarioCrossRNN) == inspect.signature(CrossRNN)


def test_a_model_without_a_scenario_has_no_weights_for_any():
    assert not any("scenario" in name for name in DCRNN(SIZES, sharing="trunk").state_dict())


def test_a_model_built_on_the_meta_device_is_whole_after_to_empty_and_reset():
    model = DCRNN(SIZES, device="meta", rank=3, **OPTIONS)
    assert model(batch()[0].to("meta")).shape == (9, 2)
    model.to_empty(device="cpu").reset_parameters()
    whole = DCRNN(SIZES, rank=3, **OPTIONS)
    whole.load_state_dict(model.state_dict())
    ids = batch()[0]
    assert torch.equal(model(ids), whole(ids))


@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low-rank"])
def test_a_compiled_model_runs_in_one_graph_and_an_exported_one_takes_any_batch(rank):
    model = trained(DCRNN(SIZES, rank=rank, **OPTIONS))
    ids = batch(30)[0]
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(ids), model(ids))
    program = torch.export.export(model, (batch(5)[0],), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.testing.assert_close(program.module()(ids), model(ids))


def test_autocast_computes_close_to_float32():
    model = trained(DCRNN(SIZES, **OPTIONS))
    ids = batch(40)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(ids)
    torch.testing.assert_close(rounded.float(), model(ids), rtol=0.1, atol=0.1)


@pytest.mark.skipif(backends.resolve("auto") == "reference", reason="needs a second backend")
def test_the_models_backend_reaches_the_scenarios():
    assert DCRNN(SIZES, backend="reference", **OPTIONS).cross.backend == "reference"
