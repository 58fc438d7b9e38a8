"""Connections of the server in Python: how many, how long a request and an answer may take, how each ends. Needs the extra ``serve``."""

from __future__ import annotations

import asyncio
import json
import select
import sys
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

ARRIVAL = 10.0
"""Seconds within which a whole request must arrive."""
TAKING = 30.0
"""Seconds within which a client must take what it was answered."""
LINGER = 2.0
"""Seconds that a client may send on after its last answer: a socket that is closed with unread bytes takes the answer back."""
LAST = 0.5
"""Seconds that an idle connection stays once the server stops, for a request that is on its way."""
SURPLUS = 64
"""The most clients that are told at once that they are too many; further ones wait to be accepted."""
RESERVED = 256
"""Descriptors that are no connection's: files, threads, those too many."""


def error(status: str, message: str, *headers: str) -> bytes:
    """An answer that ends its connection."""
    body = json.dumps({"error": message})
    head = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join([*head, "", body]).encode()


class Connections(ServerState):
    """All connections of a server. ``idle`` holds those of whose next request nothing has come, the one that waits longest first."""

    def __init__(self) -> None:
        super().__init__()
        self.idle: dict[Connection, None] = {}
        self.is_stopping = False

    def end_one(self) -> bool:
        """End the connection that is idle for the longest time. Returns whether there was one."""
        for connection in list(self.idle):
            del self.idle[connection]
            if connection.nothing_came():
                connection.transport.close()
                return True
        return False


class Connection(H11Protocol):
    """A connection that is closed if a request does not arrive, or an answer is not taken, in time."""

    server_state: Connections
    arrival: asyncio.TimerHandle | None = None
    taking: asyncio.TimerHandle | None = None
    is_half_closed = False

    def connection_made(self, transport: Any) -> None:
        """Give the first request its time."""
        super().connection_made(transport)
        self._time()

    def data_received(self, data: bytes) -> None:
        """Read on. Time runs until the request is whole."""
        super().data_received(data)
        self._time()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what came as a whole from a client that sends no more, and then close."""
        self.is_half_closed = True
        return not self.is_arriving

    def on_response_complete(self) -> None:
        """Give a request its time that came before this answer, as a part, and the client its time to take the answer."""
        super().on_response_complete()
        if self.is_half_closed and self.is_arriving:
            self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            self._time()
        self._note_idle()
        if self.server_state.is_stopping:
            self.shutdown()
        if self.taking is None and self.transport.get_write_buffer_size():
            self.taking = self.loop.call_later(TAKING, self._abort)

    def pause_writing(self) -> None:
        """Give the client its time to take what is written."""
        super().pause_writing()
        if self.taking is None:
            self.taking = self.loop.call_later(TAKING, self._abort)

    def resume_writing(self) -> None:
        """The client takes what is written."""
        super().resume_writing()
        self._cancel_taking()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the times."""
        super().connection_lost(exc)
        self.server_state.idle.pop(self, None)
        self._cancel_taking()
        if self.arrival is not None:
            self.arrival.cancel()

    def shutdown(self) -> None:
        """Once the server stops, an idle connection stays a moment, for a request that is on its way; its answer is the last."""
        self.loop.call_later(LAST, self._end_if_idle)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless an answer has begun."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(error("400 Bad Request", "the request is no HTTP"))
        self.transport.close()

    @property
    def is_arriving(self) -> bool:
        """Whether the next request has not arrived as a whole."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def nothing_came(self) -> bool:
        """Whether the system has no byte for this connection that was not read."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def _time(self) -> None:
        if self.is_arriving and self.arrival is None:
            self.arrival = self.loop.call_later(ARRIVAL, self.transport.close)
        elif not self.is_arriving and self.arrival is not None:
            self.arrival.cancel()
            self.arrival = None
        self._note_idle()

    def _note_idle(self) -> None:
        self.server_state.idle.pop(self, None)
        nothing_yet = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if nothing_yet and (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.server_state.idle[self] = None

    def _end_if_idle(self) -> None:
        if self in self.server_state.idle and self.nothing_came():
            self.transport.close()

    def _abort(self) -> None:
        self.taking = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _cancel_taking(self) -> None:
        if self.taking is not None:
            self.taking.cancel()
            self.taking = None


class TooMany(asyncio.Protocol):
    """A client that is told that it is one too many. Nobody reads what it sends."""

    def __init__(self, gone: Callable[[], None]) -> None:
        self._gone = gone

    def connection_made(self, transport: Any) -> None:
        """Answer at once."""
        transport.write(error("503 Service Unavailable", "the server has too many connections; try again", "retry-after: 1"))
        transport.write_eof()
        self._end = asyncio.get_running_loop().call_later(LINGER, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._end.cancel()
        self._gone()


class Once:
    """Says a line on stderr, at most once a minute."""

    def __init__(self) -> None:
        self._said = -60.0

    def say(self, line: str) -> None:
        """Say it, or leave it."""
        if time.monotonic() - self._said >= 60:
            self._said = time.monotonic()
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def allowed_connections(wanted: int) -> tuple[int, int]:
    """How many connections, at most ``wanted``, and how many clients beyond them the limit of open files has room for.

    It is raised as far as this process may.
    """
    import resource  # there is none on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted, SURPLUS
    soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    reserved = min(RESERVED, soft // 2)
    return max(1, min(wanted, soft - reserved)), max(1, reserved * SURPLUS // RESERVED)
