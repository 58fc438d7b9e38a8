"""SharingPlan: which unit is shared, the shapes of the weights, and what a plan costs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcrnn_fast import CrossRNN, SharingPlan


def plans():
    return st.builds(
        SharingPlan.from_ratio,
        st.sampled_from(["rows", "trunk"]),
        st.integers(1, 5),
        st.integers(1, 24),
        st.floats(0, 1),
        steps=st.integers(1, 6),
        cell=st.sampled_from(["gated", "cross"]),
        tied=st.booleans(),
        rank=st.none() | st.integers(1, 9),
    )


@given(plans())
def test_the_banks_hold_each_unit_and_each_row_of_the_rank_once(plan):
    assert sorted(plan.order) == list(range(plan.dim))
    assert plan.shared_shape()[1] + plan.private_shape()[2] == plan.dim
    assert plan.shared_projection_shape()[1] == (plan.rank or 0 if plan.private_units or plan.kind == "rows" else 0)
    shapes = plan.shared_shape(), plan.private_shape()[1:], plan.shared_projection_shape(), plan.private_projection_shape()[1:]
    assert {shape[0] for shape in shapes} == {plan.weight_steps}


@given(plans())
def test_the_cost_in_parameters_is_what_the_module_has(plan):
    assert plan.cost().parameters == sum(p.numel() for p in CrossRNN(plan).parameters())


@given(plans())
def test_one_more_task_costs_what_the_plan_says(plan):
    more = replace(plan, num_tasks=plan.num_tasks + 1)
    assert plan.cost_per_added_task().parameters == more.cost().parameters - plan.cost().parameters
    assert plan.cost_per_added_task().flops == more.cost().flops - plan.cost().flops


def test_fields_can_be_shared_by_number():
    plan = SharingPlan.from_fields("trunk", 2, [2, 3, 1], [2, 0])
    assert plan.shared_units == (0, 1, 5)
    assert plan.private_units == (2, 3, 4)
    assert plan.order == (0, 1, 5, 2, 3, 4)


def test_fields_may_come_from_generators():
    assert SharingPlan.from_fields("rows", 2, iter([2, 3]), iter([1])) == SharingPlan.from_fields("rows", 2, [2, 3], [1])


@pytest.mark.parametrize("units", [[0, 1], np.array([0, 1], np.int8), range(2), iter([0, 1])], ids=["list", "array", "range", "iterator"])
def test_a_plan_of_the_same_units_is_the_same(units):
    plan, expected = SharingPlan("rows", 2, 4, units), SharingPlan("rows", 2, 4, (0, 1))
    assert plan == expected
    assert hash(plan) == hash(expected)


@pytest.mark.parametrize(("share_ratio", "fraction"), [(0.5, 0.5625), (0.75, 0.390625)])
def test_a_trunk_does_the_fraction_of_work_that_the_design_gives(share_ratio, fraction):
    trunk = SharingPlan.from_ratio("trunk", 4, 624, share_ratio).cost().flops
    rows = SharingPlan.from_ratio("rows", 4, 624, share_ratio).cost().flops
    assert trunk / rows == fraction


def test_a_low_rank_costs_two_thin_products_for_each_gate_vector():
    plan = SharingPlan.from_ratio("rows", 2, 320, 0.0, steps=2, rank=32)
    cost, tasks, steps, gates = plan.cost(), 2, 2, 2
    assert cost.flops == 2 * tasks * steps * gates * 32 * (320 + 320)
    assert cost.kept_bytes == 4 * tasks * steps * gates * 32
    assert cost.parameters == gates * 32 * 320 + tasks * gates * 320 * (32 + 1), "one projection for all tasks"
    assert "rank 32" in str(plan)
