import pytest

from dcrnn_fast.kernels import tile_choice, tile_file

from ..operators.conftest import backend

__all__ = ["backend"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A user's cache and a folder of shipped files of the test's own."""
    monkeypatch.delenv(tile_file.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tile_file, "SHIPPED", tmp_path / "tuned")
    tile_choice.clear()
    yield tmp_path
    tile_choice.clear()
