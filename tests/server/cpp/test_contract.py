"""The contract of docs/guide/server.md, of the server in C++; what it alone has is in test_server.py."""

import shutil

import pytest

from ..contract import *  # noqa: F403
from ..contract_in_use import *  # noqa: F403
from ..process import CppServer
from .hostile import *  # noqa: F403


@pytest.fixture(scope="module")
def server(cpp_program, compiled, tmp_path_factory):
    one = CppServer(cpp_program, compiled, tmp_path_factory.mktemp("cpp") / "errors", max_body_bytes=65_536, max_rows=500)
    yield one
    assert one.stop() == 0
    lines = one.errors.read_text().splitlines()
    assert not [line for line in lines if not line.startswith("warning: field ")]  # the tests score many unknown ids


@pytest.fixture
def logged():
    return lambda server: server.errors.read_text()


@pytest.fixture
def start(cpp_program, compiled, tmp_path, lasting):
    def begin(**options):
        return lasting(CppServer(cpp_program, shutil.copy(compiled, tmp_path / "shop.pt2"), tmp_path / "errors", **options))

    return begin
