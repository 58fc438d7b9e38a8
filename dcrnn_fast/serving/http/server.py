"""The process around the HTTP interface: its socket, its signals, and its end. Needs the extra ``serve``."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from queue import SimpleQueue
from types import FrameType
from typing import Any

import torch
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ...errors import ConfigError
from .app import Application

IDLE = 75
"""Seconds that a connection may wait for its next request."""
HEAD_BYTES, PIPELINED = 65_536, 1000
"""The most bytes without a whole head or a part of a body, and the most requests that wait on one connection."""
LAST = 0.5
"""Seconds in which clients hear that an answer is their connection's last one, before idle connections end."""


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's that holds a bounded part of what a client sends, and ends if no request comes."""

    unread = 0

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request as long as for the next ones."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Read on, within bounds."""
        self.unread += len(data)
        super().data_received(data)
        if self.unread > HEAD_BYTES or len(self.pipeline) > PIPELINED:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self.unread = 0
        super().on_headers_complete()
        self.headers = []  # what stands in a trailer is none of them

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self.unread = 0
        super().on_body(body)


class Server(uvicorn.Server):
    """Serves an :class:`Application` on a bound socket until :meth:`stop`. ``url`` is where.

    What is put into ``asked`` loads the model again, on a thread of its own. What was asked for before a load begins is one load.
    """

    def __init__(self, application: Application, bound: socket.socket, asked: SimpleQueue[None], *, grace: float = 10.0) -> None:
        config = uvicorn.Config(
            application,
            http=Connection,
            ws="none",
            loop="uvloop",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=int(grace) + 3,
        )
        super().__init__(config)
        host, port = bound.getsockname()[:2]
        self.application, self.bound, self.grace = application, bound, grace
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._asked = asked
        application.connections = self.server_state.connections

    def serve_until_stopped(self) -> None:
        """Serve, and return when all that was accepted is answered, or the grace is over."""
        threading.Thread(target=self._reload, name="reload", daemon=True).start()
        torch.set_num_threads(1)
        self.run(sockets=[self.bound])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        sys.stdout.write(f"listening on {self.url}\n")
        sys.stdout.flush()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at a signal, and end with 0."""
        self.stop()

    def stop(self) -> None:
        """Stop, from any thread: not ready, no new connections; what is accepted is answered, for ``grace`` seconds at most."""
        self.application.is_stopping = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, let each client hear that its connection ends, answer what has come, and end all connections."""
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        loop.call_later(self.grace, self.application.batcher.close)
        loop.call_later(self.grace + 1, self._abort)
        await asyncio.sleep(LAST)
        await super().shutdown(sockets)

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _reload(self) -> None:
        while True:
            self._asked.get()
            while not self._asked.empty():
                self._asked.get()
            self.application.reload()


def bind(host: str, port: int) -> socket.socket:
    """A socket at a host and port; 0: a free one. Raises :class:`ConfigError` where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--host {host} --port {port}: {reason}; name an address of this machine, and another port or 0, a free one"
        ) from error
    return bound
