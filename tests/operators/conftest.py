"""The fixture through which one test of an operator runs on every backend that can run here."""

from dataclasses import replace

import pytest

from .backend import CHOICES, opened, unusable


@pytest.fixture
def backend(request, monkeypatch, poisoned_memory):
    """A backend by name, or a choice of its kernels by words; see :func:`tests.operators.backend.on`."""
    name = request.param.partition(",")[0]
    if reason := unusable(name):
        pytest.skip(f"no {name} kernels here: {reason}")
    found = replace(opened(name, monkeypatch), choice=request.param)
    with found.kernel_override(**CHOICES[name].get(request.param, {})):
        yield found
