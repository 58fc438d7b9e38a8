"""Reads a request's body within bounds, before anything parses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from .batching import Refused
from .request import Unusable

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
DRAINED = 16
"""So many times the limit is read of a body that is too large, and forgotten, so that its sender reads the answer."""
HELD = 64
"""So many bodies of the greatest size may be held at once."""


class BodyReader:
    """Reads bodies of at most ``limit`` bytes, and of all requests at once at most :data:`HELD` times as many."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0

    @asynccontextmanager
    async def reading(self, receive: Receive, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The whole body, which is held until the block ends.

        Raises :class:`Unusable` (413) as soon as it is too large, by ``Content-Length`` or as it comes, :class:`Refused` where too many
        bodies are held, and ``ConnectionResetError`` where the client has gone.
        """
        told = headers.get("content-length", "")
        if told.isdigit() and int(told) > self.limit:
            if "expect" not in headers:
                await self._forget(receive, 0)
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            more = True
            while more:
                part, more = await _part(receive)
                size += len(part)
                self._held += len(part)
                if size > self.limit:
                    if more:
                        await self._forget(receive, size)
                    raise self._too_large()
                if self._held > HELD * self.limit:
                    raise Refused("overload", "the server holds too many bodies; ask again")
                parts.append(part)
            body = b"".join(parts)
            parts.clear()
            yield body
        finally:
            self._held -= size

    async def _forget(self, receive: Receive, size: int) -> None:
        more = True
        while more and size <= DRAINED * self.limit:
            part, more = await _part(receive)
            size += len(part)

    def _too_large(self) -> Unusable:
        return Unusable(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has more than {self.limit:,} bytes, the most that are read; send several requests",
        )


async def _part(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ConnectionResetError
    return message.get("body", b""), message.get("more_body", False)
