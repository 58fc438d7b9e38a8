"""The fuzzer of hostile calls; and that it finds a crash, a call without an end, and the rest that it looks for."""

import pytest

from dcrnn_fast.ops import backends

from . import calls, defects, hostile
from .campaign import Campaign

pytestmark = pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the backend cpp cannot run here")


def test_calls_with_wrong_arguments_are_refused_in_words_or_right(record_property, monkeypatch):
    monkeypatch.setenv("MALLOC_PERTURB_", "165")  # the C library fills memory with rubbish
    campaign = hostile.fuzz(Campaign.from_environment("hostile", 5))
    record_property("fuzz", campaign.summary())
    assert not campaign.findings, campaign.report()


def test_every_registered_operator_has_a_valid_call():
    assert {calls.name_of(target) for target in calls.operators()} == set(calls.VALID)
    for target in [*calls.operators(), *calls.functions()]:
        case = {"target": target, "recipe": {}, "spoiled": []}
        assert hostile.judged(case) is None, f"{target}: {hostile.judged(case)}"


DEFECTS = {
    "aborts": ("torch.int64", "crash, SIGABRT"),
    "leaves": ("torch.int64", "crash, exit code 3"),
    "sleeps": ("torch.int64", "no end after"),
    "grows": ("torch.int64", " MiB"),
    "speaks_raw": ("torch.int64", "raw words"),
    "names_nothing": ("torch.int64", "names no argument"),
    "accepts_anything": ("torch.int64", "accepted: index: got dtype torch.int64"),
    "returns_rubbish": ("sliced", "result 0: relative error"),
}
"""What is done to the index, and what the fuzzer must say, by the function in :mod:`.defects`."""


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(name):
    mutation, words = DEFECTS[name]
    worker = hostile.Worker(seconds=2 if name == "sleeps" else 60, prepare=(defects.plant, name))
    case = {"target": "functional.param_gather on cpp", "recipe": {}, "spoiled": [("index", mutation)]}
    try:
        found = worker.judge(case)
    finally:
        worker.stop()
    assert found
    assert words in found


def test_the_fuzzer_goes_on_after_a_crash_with_the_call_that_crashed():
    worker = hostile.Worker(prepare=(defects.plant, "aborts"))
    campaign = hostile.fuzz(Campaign("hostile", 60, most_calls=2), ["functional.param_gather on cpp"], worker)
    assert campaign.calls == 2
    assert list(campaign.findings) == ["param_gather crash, SIGABRT"]
    assert """again: python -m tests.fuzz.hostile '{"target": "functional.param_gather on cpp", "recipe": {}""" in campaign.report()
