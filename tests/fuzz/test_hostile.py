"""The fuzzer of hostile calls; and that it finds a crash, a call without an end, and the rest that it looks for."""

import os
import time

import pytest
import torch

from dcrnn_fast import functional
from dcrnn_fast.ops import backends

from . import calls, hostile

pytestmark = pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the backend cpp cannot run here")


def test_calls_with_wrong_arguments_are_refused_in_words_or_right(record_property, monkeypatch):
    monkeypatch.setenv("MALLOC_PERTURB_", "165")  # the C library fills memory with rubbish
    record_property("fuzz", hostile.fuzz(5))


def test_every_registered_operator_has_a_valid_call():
    assert {calls.name_of(target) for target in calls.operators()} == set(calls.VALID)
    for target in [*calls.operators(), *calls.functions()]:
        case = {"target": target, "recipe": {}, "spoiled": []}
        assert hostile.judged(case) is None, f"{target}: {hostile.judged(case)}"


def aborts(*arguments, **options):
    os.abort()


def sleeps(*arguments, **options):
    time.sleep(60)


def speaks_raw(*arguments, **options):
    raise RuntimeError("torch_call_dispatcher(index) API call failed")


def names_nothing(*arguments, **options):
    raise ValueError("dcrnn_fast: bad argument")


def accepts_anything(shared, private, index, **options):
    return shared[:0]


def returns_rubbish(shared, private, index, **options):
    return torch.rand(*index.shape, *shared.shape[1:], dtype=shared.dtype)


def plant(name):
    """In the process of the calls: a wrong function takes the place of ``param_gather``."""
    functional.param_gather = globals()[name]


DEFECTS = {
    aborts: ("torch.int64", "crash, SIGABRT"),
    sleeps: ("torch.int64", "no end after"),
    speaks_raw: ("torch.int64", "raw words"),
    names_nothing: ("torch.int64", "names no argument"),
    accepts_anything: ("torch.int64", "accepted: index: got dtype torch.int64"),
    returns_rubbish: ("sliced", "result 0 is not that of plain tensors"),
}
"""What is done to the index, and what the fuzzer must say."""


@pytest.mark.parametrize("wrong", DEFECTS, ids=lambda wrong: wrong.__name__)
def test_a_defect_is_found(wrong):
    mutation, words = DEFECTS[wrong]
    worker = hostile.Worker(seconds=2 if wrong is sleeps else 60, prepare=(plant, wrong.__name__))
    case = {"target": "functional.param_gather on cpp", "recipe": {}, "spoiled": [("index", mutation)]}
    try:
        assert words in str(worker.judge(case))
    finally:
        worker.stop()
