"""Fixtures of these tests."""

import pytest

from dcrnn_fast import auto
from dcrnn_fast.auto import memory


@pytest.fixture
def unmeasured(tmp_path, monkeypatch):
    """An empty folder for the user's file, and a process that knows nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(auto.ENVIRONMENT, raising=False)
    monkeypatch.setitem(memory.REASONS, "candidate", None)
    memory.clear()
    yield tmp_path
    memory.clear()
