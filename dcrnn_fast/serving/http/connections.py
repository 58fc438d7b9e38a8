"""Connections of the server in Python: how many, how long a request and an answer may take, how each ends. Needs the extra ``serve``."""

from __future__ import annotations

import asyncio
import json
import re
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ...errors import printable

HEAD_BYTES = 16_384
"""The most of a request before its body."""
ARRIVAL = 10.0
"""Seconds within which a whole request must arrive."""
TAKING = 30.0
"""Seconds within which a client must take what it was answered."""
LINGER = 2.0
"""Seconds that a client with its last answer may send on: a socket that is closed with unread bytes takes the answer back."""
LAST = 0.5
"""Seconds that an idle connection stays once the server stops, for a request that is on its way."""
SURPLUS = 64
"""The most clients that are told at once that they are too many; further ones wait to be accepted."""
RESERVED = 256
"""Descriptors that are no connection's: those of files, libraries, and clients beyond the limit."""

HEAD_END = re.compile(rb"\n\r?\n")
"""Where h11 takes a head to be whole."""
UNCLEAR = re.compile(rb"(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""In a head: a line feed alone, or a control character other than a tab."""


def error(status: str, message: str, *headers: str) -> bytes:
    """An answer that ends its connection."""
    body = json.dumps({"error": message})
    head = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join([*head, "", body]).encode()


class Reader(h11.Connection):
    """Reads requests, and refuses heads that h11 takes and other readers refuse or take otherwise: too large ones, those with a line that
    ends in a line feed alone, and those with control characters. ``refusal`` then says why."""

    refusal = "the request is no HTTP"

    def next_event(self) -> Any:
        """Raises RemoteProtocolError for such a head, once it is whole."""
        if self.their_state is h11.IDLE and (end := HEAD_END.search(data := self.trailing_data[0])):
            if end.end() > HEAD_BYTES:
                self.refusal = f"the headers have more than {HEAD_BYTES:,} bytes"
                raise h11.RemoteProtocolError(self.refusal)
            if UNCLEAR.search(data, 0, end.end()):
                self.refusal = "a line of the headers ends in a line feed alone, or they hold a control character"
                raise h11.RemoteProtocolError(self.refusal)
        return super().next_event()


class Connections(ServerState):
    """All connections of a server.

    ``idle`` holds those of whose next request nothing has come, the one that waits longest first; ``too_many``, which are not among
    ``connections``, the clients beyond the limit. ``count`` is called with the status of an answer that the application does not give.
    """

    def __init__(self, count: Callable[[str], None]) -> None:
        super().__init__()
        self.count = count
        self.idle: dict[Connection, None] = {}
        self.too_many: set[TooMany] = set()
        self.is_stopping = False

    def end_one(self) -> bool:
        """End the connection that is idle for the longest time. Returns whether there was one."""
        for connection in self.idle:
            if connection.nothing_came() and not connection.transport.get_write_buffer_size():
                del self.idle[connection]
                connection.transport.close()
                return True
        return False


class Ending:
    """A transport that ends in two steps where a client was answered before its request had come: it may send on for a while."""

    def __init__(self, transport: Any, connection: Connection) -> None:
        self._transport, self._connection = transport, connection
        self.is_begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether no other request will be read."""
        return self.is_begun or self._transport.is_closing()

    def close(self) -> None:
        """Begin to end, if a body may be on its way; end, if not or if this is the second time."""
        cycle = self._connection.cycle
        if not self.is_closing() and cycle is not None and cycle.response_complete and cycle.more_body:
            self.begin()
        else:
            self._transport.close()

    def begin(self) -> None:
        """Say that no other answer comes, and read on, but to forget it."""
        if not self.is_closing():
            self.is_begun = True
            with suppress(OSError):  # it has gone
                self._transport.write_eof()
            self._transport.resume_reading()
            asyncio.get_running_loop().call_later(LINGER, self._transport.close)


class Connection(H11Protocol):
    """A connection that is closed if a request does not arrive, or an answer is not taken, in time."""

    server_state: Connections
    transport: Any
    conn: Reader
    arrival: asyncio.TimerHandle | None = None
    taking: asyncio.TimerHandle | None = None
    is_half_closed = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = Reader(h11.SERVER)

    def connection_made(self, transport: Any) -> None:
        """Give the first request its time."""
        super().connection_made(Ending(transport, self))  # type: ignore[arg-type]
        self._watch_arrival()

    def data_received(self, data: bytes) -> None:
        """Read on. Time runs until the request is whole."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_arrival()
        self._watch_taking()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what came as a whole from a client that sends no more, and then close."""
        self.is_half_closed = True
        return not self.is_arriving and not self.transport.is_closing()

    def on_response_complete(self) -> None:
        """Give a request its time that came before this answer, as a part, and the client its time to take the answer."""
        super().on_response_complete()
        if self.is_half_closed and self.is_arriving:
            self.transport.close()
        self._end_arrival()
        if self.cycle is not None and not self.cycle.response_complete:
            self._watch_arrival()
        self._watch_taking()
        self._note_idle()
        if self.server_state.is_stopping:
            self.shutdown()

    def pause_writing(self) -> None:
        """Give the client its time to take what is written."""
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        """Give the client its time to take the rest."""
        super().resume_writing()
        self._watch_taking()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the times."""
        super().connection_lost(exc)
        self.server_state.idle.pop(self, None)
        self._end_arrival()
        if self.taking is not None:
            self.taking.cancel()

    def shutdown(self) -> None:
        """Once the server stops, an idle connection stays a moment, for a request that is on its way; its answer is the last."""
        self.loop.call_later(LAST, self._end_if_idle)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless an answer has begun."""
        is_begun = self.cycle is not None and not self.cycle.response_complete
        if is_begun and self.cycle.response_started:
            self.transport.close()
            return
        self.transport.write(error("400 Bad Request", self.conn.refusal))
        self.server_state.count("400")
        self.transport.begin()
        self._end_arrival()
        if is_begun:  # nobody hears what the application answers
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    @property
    def is_arriving(self) -> bool:
        """Whether the next request has not arrived as a whole."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def nothing_came(self) -> bool:
        """Whether the system has no byte for this connection that was not read."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def _watch_arrival(self) -> None:
        if not self.is_arriving:
            self._end_arrival()
        elif self.arrival is None:
            self.arrival = self.loop.call_later(ARRIVAL, self.transport.close)
        self._note_idle()

    def _end_arrival(self) -> None:
        if self.arrival is not None:
            self.arrival.cancel()
            self.arrival = None

    def _watch_taking(self) -> None:
        """Begin anew: the client has taken some, or there is something new to take."""
        if self.taking is not None:
            self.taking.cancel()
        self.taking = self.loop.call_later(TAKING, self._end_taking) if self.transport.get_write_buffer_size() else None

    def _end_taking(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _note_idle(self) -> None:
        self.server_state.idle.pop(self, None)
        nothing_yet = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if nothing_yet and (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.server_state.idle[self] = None

    def _end_if_idle(self) -> None:
        if self in self.server_state.idle and self.nothing_came():
            self.transport.close()


class TooMany(asyncio.Protocol):
    """A client that is told that it is one too many. Nobody reads what it sends."""

    def __init__(self, state: Connections) -> None:
        self.state = state

    def connection_made(self, transport: Any) -> None:
        """Answer at once."""
        self.state.too_many.add(self)
        self.end = asyncio.get_running_loop().call_later(LINGER, transport.abort)
        transport.write(error("503 Service Unavailable", "the server has too many connections; try again", "retry-after: 1"))
        with suppress(OSError):  # it has gone
            transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.state.too_many.discard(self)
        self.end.cancel()


def warn(line: str) -> None:
    """Say a line on stderr, if anybody can hear it."""
    with suppress(OSError, AttributeError, ValueError):  # its reader has gone, or there is none
        sys.stderr.write(printable(f"warning: {line}\n"))
        sys.stderr.flush()


class Seldom:
    """Warns, at most once a minute."""

    def __init__(self) -> None:
        self._last = -60.0

    def warn(self, line: str) -> None:
        """Say the line, or leave it."""
        if time.monotonic() - self._last >= 60:
            self._last = time.monotonic()
            warn(line)


def allowed_connections(wanted: int) -> tuple[int, int]:
    """How many connections, at most ``wanted``, and how many clients beyond them the limit of open files has room for.

    It is raised as far as this process may.
    """
    import resource  # there is none on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted, SURPLUS
    with suppress(ValueError, OSError):  # macOS calls a limit infinite that is not
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = min(RESERVED, soft // 2)
    return max(1, min(wanted, soft - reserved)), max(1, reserved * SURPLUS // RESERVED)
