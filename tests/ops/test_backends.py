"""Backends: what auto takes, what a named backend answers where it cannot run, and what info shows."""

import re

import pytest
import torch

from dcrnn_fast import DCRNN, BackendUnavailable, functional
from dcrnn_fast.ops import backends
from tests.nn.models import SIZES
from tests.operators.problems import cross_arguments
from tests.processes import run_python

UNUSABLE = [name for name, reason in backends.REASONS.items() if reason]


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_named_backend_that_cannot_run_says_why_and_what_to_do(name):
    for ask in (lambda: DCRNN(SIZES, backend=name), lambda: functional.cross_rnn(**cross_arguments(), backend=name)):
        with pytest.raises(BackendUnavailable, match=rf"backend='{name}' cannot be used: .+ Use backend='auto'"):
            ask()


def test_a_backend_asked_for_on_a_device_it_does_not_serve_says_so(monkeypatch):
    monkeypatch.setitem(backends.REASONS, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert backends.resolve("cuda", device="cuda") == "cuda"
    with pytest.raises(BackendUnavailable, match="computes on cuda and the tensors are on cpu"):
        backends.resolve("cuda", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_compiled_cuda_kernels_without_a_gpu_say_that_there_is_none(monkeypatch):
    monkeypatch.setitem(backends.REASONS, "cuda", None)
    for ask in (lambda: DCRNN(SIZES, backend="cuda"), lambda: functional.cross_rnn(**cross_arguments(), backend="cuda")):
        with pytest.raises(BackendUnavailable, match=r"backend='cuda' cannot be used: no CUDA device was found.+ Use backend='auto'"):
            ask()
    assert {row["backend"]: row["usable"] for row in backends.table()}["cuda"].startswith("no: no CUDA device was found")


def test_auto_takes_compiled_kernels_on_a_cpu_and_plain_pytorch_elsewhere(monkeypatch):
    monkeypatch.delenv("DCRNN_FAST_BACKEND", raising=False)
    monkeypatch.setattr(backends, "ISA_ERROR", None)
    for name in ("cpp", "triton", "cuda"):
        monkeypatch.setitem(backends.REASONS, name, None)
    assert (backends.resolve("auto", device="cpu"), backends.resolve("auto", device="cuda")) == ("cpp", "reference")
    monkeypatch.setitem(backends.REASONS, "cpp", "taken away by the test")
    assert backends.resolve("auto", device="cpu") == "reference"


def test_the_environment_variable_takes_the_place_of_auto(monkeypatch):
    monkeypatch.setenv("DCRNN_FAST_BACKEND", "reference")
    assert backends.resolve("auto") == "reference"
    monkeypatch.setenv("DCRNN_FAST_BACKEND", "fastest")
    with pytest.raises(ValueError, match="DCRNN_FAST_BACKEND='fastest': expected one of 'auto', 'reference'"):
        backends.resolve("auto")


def test_info_prints_versions_and_every_backend_with_why_it_cannot_run():
    done = run_python("-m", "dcrnn_fast", "info")
    assert done.returncode == 0, done.stderr
    for word in ("dcrnn_fast", "PyTorch", "extension", "auto on CPU", *backends.BACKENDS):
        assert word in done.stdout
    for name in UNUSABLE:
        assert f"no: {backends.REASONS[name]}" in done.stdout


@pytest.mark.parametrize("value", ["fastest", "cuda"])
def test_info_prints_when_the_environment_names_no_usable_backend(value):
    done = run_python("-m", "dcrnn_fast", "info", DCRNN_FAST_BACKEND=value)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"auto on CPU\s+none: .*{value}", done.stdout)
