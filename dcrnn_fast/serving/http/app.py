"""The HTTP interface of a ranker: its model, its paths and its errors. Needs the extra ``serve``; docs/guide/server.md is its contract."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import orjson
from fastapi_offline import FastAPIOffline

from ...data.encoder.encoder import Encoded
from ...errors import DataError, printable
from ..export.load import ExportedRanker
from ..ranker import Ranker
from .batching import Batcher, Job, Refused
from .metrics import Metrics
from .request import Unusable, read_request
from .schema import describe_api
from .served import Served

JSON, UTF_8 = "application/json", ("charset=utf-8", 'charset="utf-8"')
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
INLINE = 65_536
"""Bodies of more bytes are read on another thread, so that small requests need not wait for them."""
MAX_DEADLINE = 600_000
PAGES = "/docs", "/static-offline-docs"
"""Paths of the page for trying requests out, and of its files."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = defaultdict[bytes, list[str]]
T = TypeVar("T")


class Limits(NamedTuple):
    """A server's limits: bytes of a body, rows of a request, rows that wait, rows that are scored together, and connections.

    With one thread, up to ``inline_rows`` rows are scored on that of the event loop.
    """

    body_bytes: int = 1_048_576
    rows: int = 10_000
    queue_rows: int = 100_000
    batch_rows: int = 512
    connections: int = 1000
    inline_rows: int = 512


class Answer(NamedTuple):
    """What a request is answered."""

    status: int
    body: bytes
    headers: Iterable[tuple[str, str]] = ()
    kind: str = JSON


class Application:
    """Answers requests with the ranker of ``load``, which is called at once, and again by :meth:`reload`.

    It is an ASGI application. ``is_stopping`` says that it refuses new requests for scores; ``connections`` are those of its server.

    >>> application = Application(lambda: load_run(Path("runs/shop")))  # doctest: +SKIP
    """

    def __init__(self, load: Callable[[], Served], limits: Limits = Limits(), *, threads: int = 1) -> None:  # noqa: B008 (it is immutable)
        served = load()
        self._load, self.limits = load, limits
        self.metrics, self.is_stopping = Metrics(), False
        self.connections: Collection[Any] = ()
        self.batcher = Batcher(
            max_queue_rows=limits.queue_rows,
            max_batch_rows=limits.batch_rows,
            threads=threads,
            inline_rows=limits.inline_rows if threads == 1 else 0,
            scored=self.metrics.batch_rows.observe,
            waiting=self.metrics.queue_rows.set,
        )
        self._aside = ThreadPoolExecutor(1, "aside")  # several would take turns with the event loop, which would wait for all of them
        self._pages = FastAPIOffline(title="dcrnn_fast", redoc_url=None)  # Swagger UI, and its files
        self._paths: dict[str, Callable[[], Answer]] = {
            "/v1/model": lambda: _json(self.about()),
            "/openapi.json": lambda: _json(describe_api(self.about())),
            "/health/live": lambda: _json({"status": "live"}),
            "/health/ready": lambda: _unavailable("the server is stopping") if self.is_stopping else _json({"status": "ready"}),
            "/metrics": lambda: Answer(200, self.metrics.text(self.served.ranker.unseen), kind=PROMETHEUS),
        }
        self._take(served)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        arrived = time.monotonic()
        path = scope["raw_path"].decode("latin-1")  # as it came: what a proxy lets through by its spelling must have no other one
        if path.startswith(PAGES) and scope["method"] in ("GET", "HEAD"):
            await self._pages(scope, receive, send)
            return
        try:
            answer = await self._answer(scope, path, receive, arrived)
        except ConnectionResetError:  # nobody hears an answer
            return
        except Exception:
            logging.getLogger("uvicorn.error").exception("a request failed")
            self.metrics.rejected.labels("failed").inc()
            answer = _unavailable("the server failed, and its log says how; report this")
        headers = [("content-type", answer.kind), ("content-length", str(len(answer.body))), *answer.headers]
        if self.is_stopping:
            headers.append(("connection", "close"))
        self.metrics.count(answer.status)
        if path == "/v1/score":
            self.metrics.seconds.observe(time.monotonic() - arrived)
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, path: str, receive: Receive, arrived: float) -> Answer:
        if len(self.connections) > self.limits.connections:
            self.metrics.rejected.labels("overload").inc()
            return _unavailable("the server has too many connections; try again", ("connection", "close"))
        if path != "/v1/score" and path not in self._paths:
            return _error(404, f"there is no path {path[:100]!r}; try /v1/score, /v1/model, /health/ready, /metrics or /docs")
        allowed = "POST" if path == "/v1/score" else "GET, HEAD"
        if scope["method"] not in allowed.split(", "):
            return _error(405, f"{path} has no method {scope['method'][:20]}, expected {allowed}", ("allow", allowed))
        if path != "/v1/score":
            return self._paths[path]()
        headers: Headers = defaultdict(list)
        for name, value in scope["headers"]:
            headers[name].append(value.decode("latin-1"))
        try:
            return await self.score(headers, receive, arrived)
        except Unusable as error:
            # The rest of a body that is too large is read and forgotten; but a client that asked whether to send it may not send it.
            return _error(error.status, str(error), *([("connection", "close")] if headers[b"expect"] else []))
        except Refused as error:
            self.metrics.rejected.labels(error.reason).inc()
            return _unavailable(str(error))

    async def score(self, headers: Headers, receive: Receive, arrived: float) -> Answer:
        """The answer to a request for scores. Raises :class:`Unusable`, :class:`Refused`, and ConnectionResetError: the client has gone."""
        _check_type(headers)
        deadline = _deadline(headers[b"x-deadline-ms"], arrived)
        is_late = self.is_stopping
        body = await self._body(headers, receive)
        if is_late:
            raise Refused("stopping", "the server is stopping; ask another one")
        served = self.served
        ids, dense = await self._done(partial(self._read, served.ranker, body), is_long=len(body) > INLINE)
        job = Job(served.ranker, ids, dense, deadline)
        del body
        self.batcher.submit(job)
        scores = await job.done
        self.metrics.rows.inc(job.rows)
        return _json({"model": served.id, "rows": job.rows, "scores": scores})

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        told, limit, parts, more = "".join(headers[b"content-length"]), self.limits.body_bytes, [], True
        size, came = int(told) if told.isdigit() else 0, 0
        while more and size <= limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            parts.append(message["body"])
            came, more = came + len(message["body"]), message["more_body"]
            size = max(size, came)
        if size > limit:
            too_large = f"the body has more than {limit:,} bytes, the most that are read; send several requests"
            raise Unusable(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_large)
        return b"".join(parts)

    async def _done(self, work: Callable[[], T], *, is_long: bool) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._aside, work) if is_long else work()

    def _read(self, ranker: Ranker | ExportedRanker, body: bytes) -> Encoded:
        request = read_request(body, max_rows=self.limits.rows)
        request.check(ranker.columns)
        try:
            return ranker.encoder.encode_shared(request.columns, request.shared, request.rows)
        except DataError as error:
            raise Unusable(HTTPStatus.BAD_REQUEST, str(error)) from error

    def reload(self) -> None:
        """Load again, score a row, and then take the new ranker; requests that run end with the old one.

        If it cannot, the old one stays, and one line on stderr says why.
        """
        try:
            served = self._load()
        except Exception as error:
            sys.stderr.write(printable(f"error: not loaded again: {' '.join(str(error).split())}; the earlier model scores on\n"))
            sys.stderr.flush()
            self.metrics.reloads.labels("failed").inc()
        else:
            self._take(served)
            self.metrics.reloads.labels("ok").inc()

    def _take(self, served: Served) -> None:
        self.served = served
        self.metrics.set_model(served.id)

    def about(self) -> dict[str, Any]:
        """The answer of /v1/model."""
        served, limits = self.served, self.limits
        return {
            "model": served.id,
            "names": list(served.ranker.names),
            "tasks": list(served.ranker.encoder.tasks),
            "columns": list(served.ranker.columns),
            "kind": served.kind,
            "dcrnn_fast": served.dcrnn_fast,
            "torch": served.torch,
            "limits": {"body_bytes": limits.body_bytes, "rows": limits.rows, "queue_rows": limits.queue_rows},
        }


def _check_type(headers: Headers) -> None:
    for name, values in (("Content-Type", headers[b"content-type"]), ("Content-Encoding", headers[b"content-encoding"])):
        if len(values) > 1:
            raise Unusable(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{name} is there twice")
    kind, encoding = "".join(headers[b"content-type"]), "".join(headers[b"content-encoding"])
    first, *others = (part.strip(" \t").lower() for part in kind.split(";"))
    if first != JSON or any(part.startswith("charset=") and part not in UTF_8 for part in others):
        raise Unusable(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {kind[:100]!r}, expected {JSON} in UTF-8")
    if encoding.strip(" \t").lower() not in ("identity", ""):
        raise Unusable(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding is {encoding[:100]!r}; send the body as it is")


def _deadline(values: list[str], arrived: float) -> float | None:
    if not values:
        return None
    if len(values) > 1 or not re.fullmatch("[1-9][0-9]{0,5}", values[0]) or int(values[0]) > MAX_DEADLINE:
        expected = f"expected one whole number from 1 to {MAX_DEADLINE:,}"
        raise Unusable(HTTPStatus.BAD_REQUEST, f"X-Deadline-Ms is {', '.join(values)[:100]!r}, {expected}")
    return arrived + int(values[0]) / 1000


def _json(content: Any) -> Answer:
    return Answer(200, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def _error(status: int, message: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, orjson.dumps({"error": message}), headers)


def _unavailable(message: str, *headers: tuple[str, str]) -> Answer:
    return _error(503, message, ("retry-after", "1"), *headers)
