"""The process around the HTTP interface: its socket, its signals, and its end. Needs the extra ``serve``."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator

import uvicorn

from ...errors import ConfigError
from .app import Application
from .connections import Connection, Connections, Seldom, TooMany, allowed_connections, warn


class Server(uvicorn.Server):
    """Serves an :class:`Application` on a bound socket until :meth:`stop`. ``url`` is where.

    It has at most ``max_connections`` connections, fewer where the limit of open files is lower. For one more, the connection ends that is
    idle for the longest time; if none is idle, the client gets a 503.
    """

    should_exit: bool

    def __init__(self, application: Application, bound: socket.socket, *, grace: float = 10.0, max_connections: int = 1000) -> None:
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
        self.server_state: Connections = Connections(lambda status: application.metrics.requests.labels(status).inc())
        self.max_connections, self._most_too_many = allowed_connections(max_connections)
        self._wanted, self._seldom = max_connections, Seldom()
        host, port = bound.getsockname()[:2]
        self.application, self.bound, self.grace = application, bound, grace
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._loading = self._asked = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, take signals, and say where."""
        self._loop = asyncio.get_running_loop()
        self.bound.setblocking(False)
        self.bound.listen(self.config.backlog)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stop)
            self._loop.add_signal_handler(signal.SIGHUP, self.reload)
            if _EARLY.is_set():
                self.reload()
        await super().startup(sockets=[])
        self._accepting = self._loop.create_task(self._accept())
        if self.max_connections < self._wanted:
            warn(
                f"--max-connections {self._wanted:,}: the limit of open files leaves room for {self.max_connections:,}; "
                "raise it by `ulimit -n`"
            )
        sys.stdout.write(f"listening on {self.url}\n")
        sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, answer what has come, and end all connections."""
        self._accepting.cancel()
        self.server_state.is_stopping = True
        await super().shutdown(sockets=sockets)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while len(self.server_state.too_many) >= self._most_too_many:
                await asyncio.sleep(0.02)
            client = None
            try:
                client, _ = await loop.sock_accept(self.bound)
                await loop.connect_accepted_socket(self._protocol, client)
            except Exception as error:  # such as too many open files
                if client is not None:
                    client.close()
                self._seldom.warn(f"a connection cannot be taken: {getattr(error, 'strerror', None) or error}")
                await asyncio.sleep(0.1)

    def _protocol(self) -> asyncio.Protocol:
        """Of the next connection."""
        state, metrics = self.server_state, self.application.metrics
        if len(state.connections) < self.max_connections or state.end_one():
            return Connection(config=self.config, server_state=state, app_state=self.lifespan.state)
        self._seldom.warn(f"all {self.max_connections:,} connections are in use, and further clients get a 503")
        metrics.rejected.labels("overload").inc()
        state.count("503")
        return TooMany(state)

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
            if isinstance(connection, Connection) and connection.transport.get_write_buffer_size():
                connection.transport.abort()
            elif isinstance(connection, Connection) and connection.is_arriving:
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
