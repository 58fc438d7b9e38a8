"""How ``auto`` measures: a candidate is checked before it is timed, and must be a tenth faster."""

import pytest
import torch

from dcrnn_fast.ops import auto
from dcrnn_fast.ops.auto import Choice
from tests.ops.planted import (
    Planted,
    another_shape,
    crashing,
    not_a_number,
    out_of_memory,
    problem,
    wrong_gradients_alone,
    wrong_output,
)

pytestmark = pytest.mark.usefixtures("unmeasured")


ALL, NONE, WITHOUT_X0 = (True,) * 5, (False,) * 5, (False, True, True, True, True)


def measured(change=None, seconds=0.5, needs=ALL):
    given, index = problem(needs)
    planted = Planted(index, candidate=seconds)
    candidate = planted.of("candidate", *([change] if change else []))
    return planted.measure({"candidate": candidate}, given), planted


def test_a_right_and_faster_candidate_is_taken():
    choice, _ = measured()
    assert choice == Choice("candidate", 0.5, {})


@pytest.mark.parametrize("seconds", [0.95, 1.0, 3.0])
def test_a_candidate_that_is_not_a_tenth_faster_is_not_taken(seconds):
    assert measured(seconds=seconds)[0].backend == "reference"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrong_output, "wrong: the relative error of the output"),
        (wrong_gradients_alone, "wrong: the relative error of gradient 0"),
        (not_a_number, "wrong: the relative error of the output is nan"),
        (another_shape, "wrong: the relative error of the output is inf"),
    ],
)
def test_a_wrong_candidate_is_refused_and_never_timed(change, said):
    choice, planted = measured(change)
    assert choice.backend == "reference"
    assert said in choice.refused["candidate"]
    assert planted.timed == []


@pytest.mark.parametrize(("needs", "taken"), [(NONE, "candidate"), (WITHOUT_X0, "candidate"), (ALL, "reference")])
def test_the_gradients_that_are_needed_are_checked_and_no_others(needs, taken):
    """The candidate's gradient of x0 alone is wrong."""
    assert measured(wrong_gradients_alone, needs=needs)[0].backend == taken


def rounded(run, tensors):
    """As exact as float32 can be."""
    return run(*(tensor.double() for tensor in tensors)).to(tensors[0].dtype)


def test_a_more_exact_candidate_is_taken():
    assert measured(rounded)[0].backend == "candidate"


def test_an_error_of_a_few_roundings_is_refused_though_it_is_far_below_the_ceiling():
    choice, _ = measured(lambda run, tensors: run(*tensors) * (1 + 2**-21))
    assert choice.backend == "reference"
    assert "wrong: the relative error of the output is" in choice.refused["candidate"]


def errs_in(wrong_draws):
    """A candidate whose output errs in these draws of a call without gradients."""
    draws = iter(range(1000))

    def run_of(run, tensors):
        return run(*tensors) * (1 + 2**-18 if next(draws) in wrong_draws else 1)

    return run_of, draws


def test_one_draw_in_which_a_candidate_errs_by_bad_luck_does_not_refuse_it():
    assert measured(errs_in({3})[0], needs=NONE)[0].backend == "candidate"


def test_a_candidate_that_errs_in_most_draws_is_refused():
    assert measured(errs_in(set(range(31)) - {1})[0], needs=NONE)[0].backend == "reference"


def test_only_needed_gradients_are_computed():
    seen = []

    def watched(run, tensors):
        seen.append(tuple(tensor.requires_grad for tensor in tensors))
        return run(*tensors)

    needs = (False, True, False, False, True)
    assert measured(watched, needs=needs)[0].backend == "candidate"
    assert set(seen) == {needs}


@pytest.mark.parametrize(("change", "said"), [(crashing, "RuntimeError: planted"), (out_of_memory, "OutOfMemoryError: planted")])
def test_a_candidate_that_raises_is_refused(change, said):
    choice, _ = measured(change)
    assert (choice.backend, choice.refused) == ("reference", {"candidate": said})


def test_a_candidate_that_runs_out_of_memory_on_all_rows_is_refused(monkeypatch):
    monkeypatch.setattr(auto, "CHECKED_ROWS", 8)

    def large(run, tensors):
        return out_of_memory(run, tensors) if len(tensors[0]) > 8 else run(*tensors)

    choice, _ = measured(large)
    assert (choice.backend, choice.refused) == ("reference", {"candidate": "OutOfMemoryError: planted"})


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 3e38, 0.0])
def test_nothing_is_chosen_by_results_that_are_not_finite_or_zero(value):
    given, index = problem()
    given.tensors[0].fill_(value)
    planted = Planted(index, candidate=0.1)
    with pytest.raises(ArithmeticError, match="not finite, or zero"):
        planted.measure({"candidate": planted.of("candidate")}, given)
    assert planted.timed == []


def test_a_measurement_touches_neither_the_callers_tensors_nor_the_random_state():
    given, index = problem()
    for tensor in given.tensors:
        tensor.requires_grad_()
    planted, before = Planted(index, candidate=0.5), torch.get_rng_state()
    planted.measure({"candidate": planted.of("candidate")}, given)
    assert all(tensor.grad is None for tensor in given.tensors)
    assert torch.equal(before, torch.get_rng_state())


def test_a_candidate_that_is_wrong_beyond_the_checked_rows_is_refused(monkeypatch):
    monkeypatch.setattr(auto, "CHECKED_ROWS", 8)

    def wrong_later(run, tensors):
        out = run(*tensors)
        return out * 2 if len(tensors[0]) > 8 else out

    choice, _ = measured(wrong_later)
    assert choice.backend == "reference"
    assert "wrong on all rows" in choice.refused["candidate"]
