"""Fixtures of these tests."""

from collections import Counter

import pytest

from dcrnn_fast.ops import auto

from ..operators.conftest import backend

__all__ = ["backend"]


@pytest.fixture
def unmeasured(monkeypatch):
    """A process that knows nothing and has no Triton: its interpreter would take minutes."""
    monkeypatch.setattr(auto, "known", {})
    monkeypatch.setattr(auto, "_tries", Counter())
    monkeypatch.setitem(auto.REASONS, "candidate", None)
    monkeypatch.setitem(auto.REASONS, "triton", "taken away by the test")
