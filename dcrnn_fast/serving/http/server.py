"""The process around the HTTP interface: its socket, its signals, and slow or broken clients. Needs the extra ``serve``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...errors import ConfigError
from .app import Application

ARRIVAL = 10.0
"""Seconds within which a whole request must arrive."""
_BROKEN = json.dumps({"error": "the request is no HTTP"}).encode()


class Connection(H11Protocol):
    """A connection that is closed if a request does not arrive in time, and that answers broken HTTP as any other error."""

    arrival: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Give the first request its time."""
        super().connection_made(transport)
        self._time()

    def data_received(self, data: bytes) -> None:
        """Read on. Time runs until the request is whole."""
        super().data_received(data)
        self._time()

    def on_response_complete(self) -> None:
        """Give a request its time that came before this answer, as a part."""
        super().on_response_complete()
        if self.cycle is not None and not self.cycle.response_complete:
            self._time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        super().connection_lost(exc)
        if self.arrival is not None:
            self.arrival.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless an answer has begun."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = (
                f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(_BROKEN)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + _BROKEN)
        self.transport.close()

    @property
    def is_arriving(self) -> bool:
        """Whether the next request has not arrived as a whole."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _time(self) -> None:
        if self.is_arriving and self.arrival is None:
            self.arrival = self.loop.call_later(ARRIVAL, self.transport.close)
        elif not self.is_arriving and self.arrival is not None:
            self.arrival.cancel()
            self.arrival = None


class Server(uvicorn.Server):
    """Serves an :class:`Application` on a bound socket until :meth:`stop`. ``url`` is where."""

    should_exit: bool

    def __init__(self, application: Application, bound: socket.socket, *, grace: float = 10.0) -> None:
        config = uvicorn.Config(
            application,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(grace) + 2,
        )
        super().__init__(config)
        host, port = bound.getsockname()[:2]
        self.application, self.bound, self.grace = application, bound, grace
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._loading = self._asked = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, take signals, and say where."""
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stop)
            self._loop.add_signal_handler(signal.SIGHUP, self.reload)
            if _EARLY.is_set():
                self.reload()
        await super().startup(sockets=sockets)
        sys.stdout.write(f"listening on {self.url}\n")
        sys.stdout.flush()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to :meth:`startup`: uvicorn would end the process by the signal, and not with 0."""
        yield

    def serve_until_stopped(self) -> None:
        """Serve, and return when all that was accepted is answered, or the grace is over."""
        self.run(sockets=[self.bound])

    def stop(self) -> None:
        """Stop, from any thread: not ready, no new connections; what is accepted is answered, for ``grace`` seconds at most."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has stopped
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if not self.should_exit and self._loop is not None:
            self.application.is_stopping = self.should_exit = True
            self._loop.call_later(self.grace, self._give_up)

    def _give_up(self) -> None:
        self.application.batcher.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and connection.is_arriving:
                connection.transport.close()

    def reload(self) -> None:
        """Load again, on a thread of its own; asked while it loads, it loads once more afterwards."""
        with self._lock:
            self._asked = True
            if self._loading:
                return
            self._loading = True
        threading.Thread(target=self._reload, name="reload", daemon=True).start()

    def _reload(self) -> None:
        while True:
            with self._lock:
                self._loading = self._asked
                if not self._asked:
                    return
                self._asked = False
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


_EARLY = threading.Event()
"""A reload was asked for before the server took signals."""


def keep_hangups() -> None:
    """Remember a SIGHUP until the server takes it: a supervisor may ask for a reload while the model loads for the first time."""
    signal.signal(signal.SIGHUP, lambda number, frame: _EARLY.set())
