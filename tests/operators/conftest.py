"""The fixture through which one test of an operator runs on every backend that can run here."""

import os

import pytest

from .backend import CHOICES, opened, unusable


@pytest.fixture
def kernels_folder(tmp_path_factory):
    """Where the CUDA kernels are compiled for the CPU, once for all processes that run tests."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder) / "cuda_on_host"


@pytest.fixture
def backend(request, kernels_folder, monkeypatch, poisoned_memory):
    """A backend by name, or a choice of its kernels by words; see :func:`tests.operators.backend.on`."""
    name = request.param.partition(",")[0]
    if reason := unusable(name):
        pytest.skip(f"no {name} kernels here: {reason}")
    found = opened(name, kernels_folder, monkeypatch)
    with found.kernel_override(**CHOICES[name].get(request.param, {})):
        yield found
