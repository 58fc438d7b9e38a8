"""The fixture through which one test of an operator runs on every backend that can run here."""

import pytest

from .backend import CHOICES, opened, unusable


@pytest.fixture
def backend(request, monkeypatch, poisoned_memory):
    """A backend by name, or a choice of its kernels by words; see :func:`tests.operators.backend.on`."""
    name = request.param.partition(",")[0]
    if reason := unusable(name):
        pytest.skip(f"no {name} kernels here: {reason}")
    found = opened(name, monkeypatch)
    with found.kernel_override(**CHOICES[name].get(request.param, {})):
        yield found
