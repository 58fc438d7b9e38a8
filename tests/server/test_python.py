"""The contract of docs/guide/server.md, of the server in Python."""

import shutil
from importlib.util import find_spec

import pytest

from dcrnn_fast.serving.http import PACKAGES

from .contract import *  # noqa: F403
from .contract_in_use import *  # noqa: F403
from .on_a_thread import OnAThread

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in PACKAGES), reason="needs the extra serve: pip install 'dcrnn_fast[serve]'"
)


@pytest.fixture(scope="module")
def server(calibrated_shop):
    one = OnAThread(calibrated_shop / "run", max_body_bytes=65_536, max_rows=500)
    yield one
    assert one.stop() == 0


@pytest.fixture
def logged(capsys):
    return lambda server: capsys.readouterr().err


@pytest.fixture
def start(calibrated_shop, tmp_path, lasting):
    return lambda **options: lasting(OnAThread(shutil.copytree(calibrated_shop / "run", tmp_path / "run"), **options))
