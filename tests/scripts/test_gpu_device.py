"""scripts.gpu.device: what runs on the card, tried without one."""

import math
import re
import time
from functools import partial

import pytest
import torch

from dcrnn_fast import functional
from dcrnn_fast.ops import backends

SHAPE = {"batch": 3, "dim": 4}


def spoilt(monkeypatch, factor):
    """``cross_rnn`` gives wrong results on every backend but the reference."""
    right = functional.cross_rnn
    monkeypatch.setattr(functional, "cross_rnn", lambda **given: right(**given) * (1 if given["backend"] == "reference" else factor))


def test_the_comparison_of_the_smoke_test_finds_nan(script, monkeypatch):
    spoilt(monkeypatch, torch.nan)
    assert script("gpu.device")._errors("cpp", SHAPE, torch.float32, {}, "cpu")["out"] == math.inf


def test_the_smoke_test_names_what_is_wrong_and_goes_on(script, monkeypatch, capsys):
    device = script("gpu.device")
    spoilt(monkeypatch, 1.1)
    cell = partial(device._compare_cell, "cpp", {}, SHAPE, "float32", {}, "cpu")
    assert not device.attempt("cpp, float32", cell)
    said = capsys.readouterr().out
    assert said.startswith("FAILED: cpp, float32\n")
    assert re.search(r"errors relative to their ceiling: \{'out': '\d+", said)
    assert device.attempt("cpp, param_gather", partial(device._compare_gather, "cpp", "cpu"))


def test_without_two_full_steps_there_is_no_rate(script):
    with pytest.raises(ValueError, match="needs two full steps: got 300 train rows in batches of 256"):
        script("gpu.device").Clock(rows=300, batch_size=256, device="cpu")


def test_the_trainer_times_the_steps_behind_the_first_ones(script, monkeypatch):
    device = script("gpu.device")
    clock = device.Clock(rows=1000, batch_size=10, device="cpu")
    for step in range(1, 101):
        now = min(step, 50) + max(0, step - 50) / 10
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        clock(step)
    assert clock.rate() == pytest.approx(100), "50 steps of 10 rows in 5 seconds"


def test_a_backend_that_is_left_out_says_why(script, monkeypatch):
    monkeypatch.setenv("DCRNN_FAST_LEFT_OUT", "cuda")
    monkeypatch.setattr(backends, "REASONS", dict.fromkeys(backends.REASONS))
    script("gpu.left_out").pytest_configure()
    assert {name: why for name, why in backends.REASONS.items() if why} == {"cuda": "its smoke test failed"}
