"""The HTTP interface of a ranker: its model, its paths and its errors. Needs the extra ``serve``; docs/guide/server.md is its contract."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import orjson
import torch
from fastapi_offline import FastAPIOffline
from starlette.responses import Response

from ... import __version__
from ...data.encoder.encoder import Encoded
from .batching import Batcher, Job, Limits
from .metrics import Metrics
from .openapi import describe_api
from .request import Refused, read_request, unavailable
from .served import Served, short_id, told

JSON, UTF_8 = "application/json", ("charset=utf-8", 'charset="utf-8"')
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
INLINE = 65_536
"""Bodies of more bytes are read on another thread, so that small requests need not wait for them."""
BODIES = 64 << 20
"""The most bytes of bodies that are held at once, or those of one body if that may have more."""
MAX_DEADLINE = 600_000
SCORE, PAGES = "/v1/score", ("/docs", "/static-offline-docs")
"""The path for scores, and those of the page for trying requests out and of its files."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Application:
    """Answers requests with the ranker of ``load``, which is called at once, and again by :meth:`reload`.

    It is an ASGI application. ``is_stopping`` says that it refuses new requests for scores; ``connections`` are those of its server.
    """

    def __init__(self, load: Callable[[], Served], limits: Limits = Limits(), *, threads: int = 1) -> None:  # noqa: B008 (it is immutable)
        self._load, self.limits, self.served = load, limits, load()
        self.metrics, self.is_stopping = Metrics(), False
        self.connections: Collection[Any] = ()
        self.batcher = Batcher(limits, self.metrics, threads)
        self._body_bytes = 0
        self._aside = ThreadPoolExecutor(1, "aside")  # several would take turns with the event loop, which would wait for all of them
        self._pages = FastAPIOffline(title="dcrnn_fast", redoc_url=None)  # Swagger UI, and its files
        self._paths: dict[str, Callable[[], Any]] = {
            "/v1/model": self.about,
            "/openapi.json": lambda: describe_api(self.about()),
            "/health/live": lambda: {"status": "live"},
            "/health/ready": self._ready,
            "/metrics": lambda: self.metrics.text(self.served),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        arrived = time.monotonic()
        path = scope["raw_path"].decode("latin-1")  # as it came: what a proxy lets through by its spelling must have no other one
        if path.startswith(PAGES) and scope["method"] in ("GET", "HEAD"):
            await self._pages(scope, receive, send)
            return
        status, kind, more = 200, JSON, dict[str, str]()
        try:
            answer = await self._answer(scope, path, receive, arrived)
            kind, body = (PROMETHEUS, answer) if isinstance(answer, bytes) else (JSON, _json(answer))
        except ConnectionResetError:  # nobody hears an answer
            return
        except Refused as error:
            status, body, more = error.status, _json({"error": str(error)}), error.headers
            if error.reason:
                self.metrics.rejected.labels(error.reason).inc()
            if any(name == b"expect" for name, _ in scope["headers"]):  # a client that asked whether to send a body may not send it
                more["connection"] = "close"
        except Exception:
            logging.getLogger("uvicorn.error").exception("a request failed")
            self.metrics.rejected.labels("failed").inc()
            status, body, more = 503, _json({"error": "the server failed, and its log says how; report this"}), {"retry-after": "1"}
        if self.is_stopping:
            more["connection"] = "close"
        self.metrics.requests.labels(str(status)).inc()
        if path == SCORE:
            self.metrics.seconds.observe(time.monotonic() - arrived)
        await Response(body, status, more, kind)(scope, receive, send)

    async def _answer(self, scope: Scope, path: str, receive: Receive, arrived: float) -> Any:
        """What is answered: JSON types, or the text of the metrics. Raises :class:`Refused`; ConnectionResetError if the client is gone."""
        if len(self.connections) > self.limits.connections:
            raise unavailable("overload", "the server has too many connections; try again", connection="close")
        if path != SCORE and path not in self._paths:
            raise Refused(404, f"there is no path {path[:100]!r}; try /v1/score, /v1/model, /health/ready, /metrics or /docs")
        allowed = "POST" if path == SCORE else "GET, HEAD"
        if scope["method"] not in allowed.split(", "):
            raise Refused(405, f"{path} has no method {scope['method'][:20]}, expected {allowed}", allow=allowed)
        return await self._scores(scope, receive, arrived) if path == SCORE else self._paths[path]()

    async def _scores(self, scope: Scope, receive: Receive, arrived: float) -> dict[str, Any]:
        headers: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            headers[name] = f"{headers[name]}, {value.decode('latin-1')}" if name in headers else value.decode("latin-1")
        _check_type(headers.get(b"content-type", ""), headers.get(b"content-encoding", ""))
        deadline = _deadline(headers.get(b"x-deadline-ms"), arrived)
        served, (ids, dense) = await self._encoded(headers.get(b"content-length", ""), receive)
        job = Job(served, ids, dense, deadline)
        self.batcher.submit(job)
        scores = await job.done
        self.metrics.rows.inc(job.rows)
        return {"model": short_id(served), "rows": job.rows, "scores": scores}

    async def _encoded(self, told: str, receive: Receive) -> tuple[Served, Encoded]:
        """The rows of a body, whose bytes are counted while they are held, and what scores them."""
        is_late, body = self.is_stopping, bytearray()
        try:
            await self._receive(body, told, receive)
            if is_late:
                raise unavailable("stopping", "the server is stopping; ask another one")
            served = self.served
            read = partial(read_request, body, served.encoder, max_rows=self.limits.rows)
            return served, await asyncio.get_running_loop().run_in_executor(self._aside, read) if len(body) > INLINE else read()
        finally:
            self._body_bytes -= len(body)

    async def _receive(self, body: bytearray, told: str, receive: Receive) -> None:
        """Fill a body, which may have a Content-Length that is ``told``. Raises ConnectionResetError if the client is gone."""
        limit, more = self.limits.body_bytes, True
        size = int(told) if told.isdigit() else 0
        while more and size <= limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            part, more = message["body"], message["more_body"]
            if self._body_bytes + len(part) > max(BODIES, limit):
                raise unavailable("overload", f"the server holds {self._body_bytes:,} bytes of other requests; try again")
            body += part
            self._body_bytes += len(part)
            size = max(size, len(body))
        if size > limit:
            raise Refused(413, f"the body has more than {limit:,} bytes, the most that are read; send several requests")

    def reload(self) -> None:
        """Load again, score a row, and then take the new ranker; requests that run end with the old one.

        If it cannot, the old one stays, and one line on stderr says why.
        """
        try:
            self.served = self._load()
        except Exception as error:
            told(f"error: not loaded again: {' '.join(str(error).split())}; the earlier model scores on")
            self.metrics.reloads.labels("failed").inc()
        else:
            self.metrics.reloads.labels("ok").inc()

    def _ready(self) -> dict[str, str]:
        if self.is_stopping:
            raise unavailable("", "the server is stopping")
        return {"status": "ready"}

    def about(self) -> dict[str, Any]:
        """The answer of /v1/model."""
        served, limits = self.served, self.limits
        origin = getattr(served, "about", {"kind": "run", "dcrnn_fast": __version__, "torch": torch.__version__})
        return {
            "model": short_id(served),
            "names": list(served.names),
            "tasks": list(served.encoder.tasks),
            "columns": list(served.columns),
            **{key: origin[key] for key in ("kind", "dcrnn_fast", "torch")},
            "limits": {"body_bytes": limits.body_bytes, "rows": limits.rows, "queue_rows": limits.queue_rows},
        }


def _json(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _check_type(kind: str, encoding: str) -> None:
    first, *others = (part.strip(" \t").lower() for part in kind.split(";"))
    if first != JSON or "," in kind or any(part.startswith("charset=") and part not in UTF_8 for part in others):
        raise Refused(415, f"Content-Type is {kind[:100]!r}, expected {JSON} in UTF-8")
    if encoding.strip(" \t").lower() not in ("identity", ""):
        raise Refused(415, f"Content-Encoding is {encoding[:100]!r}; send the body as it is")


def _deadline(value: str | None, arrived: float) -> float:
    if value is None:
        return math.inf
    if not re.fullmatch("[1-9][0-9]{0,5}", value) or int(value) > MAX_DEADLINE:
        raise Refused(400, f"X-Deadline-Ms is {value[:100]!r}, expected one whole number from 1 to {MAX_DEADLINE:,}")
    return arrived + int(value) / 1000
