"""How ``auto`` measures: a candidate is checked before it is timed, and must be a tenth faster."""

import pytest
import torch

from dcrnn_fast.ops import auto
from dcrnn_fast.ops.auto import Choice
from tests.ops.planted import (
    Planted,
    another_shape,
    call_of,
    crashing,
    not_a_number,
    out_of_memory,
    right,
    wrong_gradients_alone,
    wrong_output,
)

pytestmark = pytest.mark.usefixtures("unmeasured")

ALL, NONE, WITHOUT_X0 = (True,) * 5, (False,) * 5, (False, True, True, True, True)


def measured(change=right, seconds=0.5, needs=ALL, call=None):
    planted = Planted(seconds, change)
    with planted.clock:
        return auto.measure(planted.runs, call or call_of(needs)), planted


def test_a_right_and_faster_candidate_is_taken():
    assert measured()[0] == Choice("candidate", 0.5, {})


@pytest.mark.parametrize("seconds", [0.95, 3.0])
def test_a_candidate_that_is_not_a_tenth_faster_is_not_taken(seconds):
    assert measured(seconds=seconds)[0].backend == "reference"


def few_roundings(run, tensors):
    """An error far below the ceiling."""
    return run(*tensors) * (1 + 2**-21)


def wrong_later(run, tensors):
    out = run(*tensors)
    return out * 2 if len(tensors[0]) > 8 else out


def out_of_memory_later(run, tensors):
    return out_of_memory(run, tensors) if len(tensors[0]) > 8 else run(*tensors)


REFUSED = {
    wrong_output: "wrong: the relative error of the output is",
    few_roundings: "wrong: the relative error of the output is",
    not_a_number: "wrong: the relative error of the output is nan",
    another_shape: "wrong: the relative error of the output is inf",
    wrong_gradients_alone: "wrong: the relative error of gradient 0",
    crashing: "RuntimeError: planted",
    out_of_memory: "OutOfMemoryError: planted",
    wrong_later: "wrong on all rows",
    out_of_memory_later: "OutOfMemoryError: planted",
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_a_wrong_candidate_is_refused_and_never_timed(change, monkeypatch):
    monkeypatch.setattr(auto, "CHECKED_ROWS", 8 if change.__name__.endswith("later") else auto.CHECKED_ROWS)
    choice, planted = measured(change)
    assert choice.backend == "reference"
    assert REFUSED[change] in choice.refused["candidate"]
    assert "second line" not in choice.refused["candidate"]
    assert planted.timed == []


@pytest.mark.parametrize(("needs", "taken"), [(NONE, "candidate"), (WITHOUT_X0, "candidate"), (ALL, "reference")])
def test_the_gradients_that_are_needed_are_checked_and_no_others(needs, taken):
    """The candidate's gradient of x0 alone is wrong."""
    assert measured(wrong_gradients_alone, needs=needs)[0].backend == taken


def test_a_more_exact_candidate_is_taken():
    assert measured(lambda run, tensors: run(*(one.double() for one in tensors)).to(tensors[0].dtype))[0].backend == "candidate"


@pytest.mark.parametrize(("wrong_draws", "taken"), [({3}, "candidate"), (set(range(31)) - {1}, "reference")], ids=["one", "most"])
def test_a_candidate_is_judged_by_most_draws(wrong_draws, taken):
    """One draw may err by bad luck."""
    draws = iter(range(1000))

    def errs(run, tensors):
        return run(*tensors) * (1 + 2**-18 if next(draws) in wrong_draws else 1)

    assert measured(errs, needs=NONE)[0].backend == taken


def test_only_needed_gradients_are_computed():
    seen, needs = set(), (False, True, False, False, True)

    def watched(run, tensors):
        seen.add(tuple(tensor.requires_grad for tensor in tensors))
        return run(*tensors)

    assert measured(watched, needs=needs)[0].backend == "candidate"
    assert seen == {needs}


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 3e38, 0.0])
def test_nothing_is_chosen_by_results_that_are_not_finite_or_zero(value):
    call = call_of()
    call.tensors[0].fill_(value)
    with pytest.raises(ArithmeticError, match="not finite, or zero"):
        measured(call=call)


def test_a_measurement_touches_no_tensor_of_the_caller_and_no_random_state():
    call, before = call_of(), torch.get_rng_state()
    for tensor in call.tensors:
        tensor.requires_grad_()
    measured(call=call)
    assert all(tensor.grad is None for tensor in call.tensors)
    assert torch.equal(before, torch.get_rng_state())
