"""The contract of docs/server.md, of the server in Python, which runs on a thread here and is asked over a socket."""

import shutil
import threading
from functools import partial
from importlib.util import find_spec

import pytest

from dcrnn_fast.serving import http_app
from dcrnn_fast.serving.served import load_run

from .contract import *  # noqa: F403

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in http_app.PACKAGES), reason="needs the extra serve: pip install 'dcrnn_fast[serve]'"
)


class OnAThread:
    """A server on a thread of this process, with the methods that the contract asks for."""

    def __init__(self, served, **limits):
        from dcrnn_fast.serving.http_server import Server, bind

        named = {name.removeprefix("max_"): value for name, value in limits.items()}
        self.served = served
        application = http_app.Application(partial(load_run, served), http_app.Limits(**named))
        self._server = Server(application, bind("127.0.0.1", 0))
        self.url, self.reload, self.application = self._server.url, self._server.reload, application
        self._thread = threading.Thread(target=self._server.serve_until_stopped, daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.002)

    def stop(self):
        self._server.stop()
        self._thread.join(30)
        return int(self._thread.is_alive())


@pytest.fixture(scope="module")
def server(shop):
    one = OnAThread(shop / "run", max_body_bytes=65_536, max_rows=500)
    yield one
    assert one.stop() == 0


@pytest.fixture
def start(shop, tmp_path):
    running = []

    def begin(**options):
        running.append(OnAThread(shutil.copytree(shop / "run", tmp_path / "run"), **options))
        return running[-1]

    yield begin
    for one in running:
        one.stop()
