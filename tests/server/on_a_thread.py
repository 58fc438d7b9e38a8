"""The server in Python on a thread of this process, asked over a socket: it starts in no time."""

import threading
from functools import partial

from dcrnn_fast.serving.http.served import load_run


class OnAThread:
    """A server of a run folder, with the methods that the contract asks for. Options are those of the command, as ``max_rows=100``."""

    def __init__(self, served, *, load=load_run, grace=10.0, threads=1, **limits):
        from dcrnn_fast.serving.http.app import Application, Limits
        from dcrnn_fast.serving.http.server import Server, bind

        named = {name.removeprefix("max_"): value for name, value in limits.items()}
        self.served = served
        self.application = Application(partial(load, served), Limits(**named), threads=threads)
        self._server = Server(self.application, bind("127.0.0.1", 0), grace=grace)
        self.url, self.reload = self._server.url, self._server.reload
        self._thread = threading.Thread(target=self._server.serve_until_stopped, daemon=True)
        self._thread.start()
        while self._thread.is_alive() and not self._server.started:
            self._thread.join(0.002)

    def ask_to_stop(self):
        self._server.stop()

    def stop(self):
        """0, as the command's exit code, when it has stopped."""
        self._server.stop()
        self._thread.join(30)
        return int(self._thread.is_alive())
