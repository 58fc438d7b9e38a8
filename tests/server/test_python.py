"""The contract of docs/guide/server.md, of the server in Python."""

import shutil

import pytest

from .calls import needs_packages
from .contract import *  # noqa: F403
from .contract_in_use import *  # noqa: F403
from .process import OnAThread

pytestmark = needs_packages


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
