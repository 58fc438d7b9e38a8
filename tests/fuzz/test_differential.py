"""The differential fuzzer, on each instruction set of this CPU; and that it finds wrong results."""

import os

import pytest

from dcrnn_fast import functional
from dcrnn_fast.ops import backends

from ..processes import run_python
from . import differential


def test_random_calls_give_what_plain_pytorch_gives(record_property):
    record_property("fuzz", differential.fuzz(4, part=2 / 3))


@pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the backend cpp cannot run here")
@pytest.mark.parametrize("isa", ["avx2", "baseline"])
def test_random_calls_are_right_on_older_instruction_sets(isa, record_property):
    minutes = os.environ.get("FUZZ_MINUTES")
    done = run_python("-m", "tests.fuzz.differential", DCRNN_FAST_ISA=isa, FUZZ_MINUTES=minutes and str(float(minutes) / 6))
    if "this CPU lacks" in done.stderr:
        pytest.skip(f"this CPU lacks {isa}")
    assert done.returncode == 0, done.stdout + done.stderr
    record_property("fuzz", f"{done.stdout.strip()}, on {isa}")


right = functional.cross_rnn


def inexact_gradient(x0, *others, **arguments):
    return right(x0 * (1 + 1e-5) - x0.detach() * 1e-5, *others, **arguments)


def without_nan(*tensors, **arguments):
    return right(*tensors, **arguments).nan_to_num(nan=0.0)


def blind_to_strides(x0, *others, **arguments):
    return right(x0.as_strided(x0.shape, (x0.shape[1], 1)), *others, **arguments)


def with_a_side_effect(x0, *others, **arguments):
    out = right(x0, *others, **arguments)
    x0.fill_(0)
    return out


WRONG = {
    inexact_gradient: ({}, "x0: relative error"),
    without_nan: ({"nan_in": "shared_bias"}, "out: NaN in other places"),
    blind_to_strides: ({"x0_layout": "transposed", "wanted": 0}, "out: another layout"),
    with_a_side_effect: ({"wanted": 0}, "x0: an argument was changed"),
}
"""Wrong operators, a case that shows each, and what the fuzzer must say."""


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_operator_is_found(wrong, monkeypatch):
    fields, words = WRONG[wrong]
    case = {**differential.SIMPLEST, "batch": 4, "dim": 5, **fields}
    assert differential.judge(case) is None
    monkeypatch.setattr(functional, "cross_rnn", wrong)
    assert words in str(differential.judge(case))
