"""Fixtures of these tests."""

import pytest

from dcrnn_fast.ops import auto
from dcrnn_fast.ops.auto import memory

from ..operators.conftest import backend

__all__ = ["backend"]


@pytest.fixture
def unmeasured(tmp_path, monkeypatch):
    """An empty folder for the user's file, and a process that knows nothing and has no Triton: its interpreter would take minutes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(auto.ENVIRONMENT, raising=False)
    monkeypatch.setitem(memory.REASONS, "candidate", None)
    monkeypatch.setitem(memory.REASONS, "triton", "taken away by the test")
    memory.clear()
    yield tmp_path
    memory.clear()
