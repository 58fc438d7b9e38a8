"""The differential fuzzer, on each instruction set of this CPU; and that it finds wrong results."""

import os
import re

import pytest
import torch

from dcrnn_fast import functional
from dcrnn_fast.ops import backends

from ..processes import run_python
from . import differential
from .campaign import Campaign


def test_random_calls_give_what_plain_pytorch_gives(record_property):
    campaign = differential.fuzz(Campaign.from_environment("differential", 4, part=2 / 3))
    record_property("fuzz", campaign.summary())
    assert not campaign.findings, campaign.report()


@pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the backend cpp cannot run here")
@pytest.mark.parametrize("isa", ["avx2", "baseline"])
def test_random_calls_are_right_on_older_instruction_sets(isa, record_property):
    minutes, seed = os.environ.get("FUZZ_MINUTES"), os.environ.get("FUZZ_SEED")
    time = {"FUZZ_MINUTES": str(float(minutes) / 6 if minutes else 0.05), "FUZZ_SEED": seed if minutes else "0"}
    done = run_python("-m", "tests.fuzz.differential", DCRNN_FAST_ISA=isa, **time)
    if "this CPU lacks" in done.stderr:
        pytest.skip(f"this CPU lacks {isa}")
    summary = done.stdout.strip().splitlines()[-1] if done.stdout else "no output"
    record_property("fuzz", f"{summary}, on {isa}")
    assert summary.endswith(" 0 findings"), done.stdout + done.stderr


right = functional.cross_rnn


def inexact_gradient(x0, *others, **arguments):
    return right(x0 * (1 + 1e-5) - x0.detach() * 1e-5, *others, **arguments)


def without_nan(*tensors, **arguments):
    return right(*tensors, **arguments).nan_to_num(nan=0.0)


def blind_to_strides(x0, *others, **arguments):
    return right(x0.as_strided(x0.shape, (x0.shape[1], 1)), *others, **arguments)


def with_noise(*tensors, **arguments):
    out = right(*tensors, **arguments)
    return out * (1 + 1e-6 * torch.rand_like(out))


def with_a_side_effect(x0, *others, **arguments):
    out = right(x0, *others, **arguments)
    x0.fill_(0)
    return out


WRONG = {
    inexact_gradient: ({}, "x0: relative error"),
    without_nan: ({"special": "nan"}, "out: 5 values of another kind"),
    blind_to_strides: ({"x0_layout": "transposed", "wanted": 0}, "out: relative error"),
    with_noise: ({}, "out: two equal calls gave different bits"),
    with_a_side_effect: ({"wanted": 0}, "an argument was changed"),
}
"""Wrong operators, a case that shows each, and what the fuzzer must say."""


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_operator_is_found(wrong, monkeypatch):
    fields, words = WRONG[wrong]
    case = {**differential.SIMPLEST, "batch": 4, "dim": 5, **fields}
    assert differential.outcome(case) is None
    monkeypatch.setattr(functional, "cross_rnn", wrong)
    assert words in str(differential.outcome(case))


def test_a_wrong_operator_is_found_and_told_by_its_simplest_call(monkeypatch):
    monkeypatch.setattr(functional, "cross_rnn", with_noise)
    campaign = differential.fuzz(Campaign("differential", seconds=60, most_calls=100, most_findings=1))
    assert campaign.findings, campaign.summary()
    assert re.search(r"again: python -m tests\.fuzz\.differential '\{.{,100}\}'", campaign.report()), campaign.report()
