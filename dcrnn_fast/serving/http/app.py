"""The HTTP interface of a ranker: its model, its paths and its errors. Needs the extra ``serve``; docs/guide/server.md is its contract."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from ... import __version__
from ...errors import DataError
from ..export.load import ExportedRanker, load_exported
from ..ranker import Ranker, Scores
from .batching import Batcher, Job, Refused
from .connections import warn
from .metrics import Metrics
from .request import BodyReader, Receive, ScoreRequest, Unusable, read_request
from .schema import describe_api

JSON, UTF_8 = "application/json", ("charset=utf-8", 'charset="utf-8"')
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
INLINE = 16_384
"""Bodies of more bytes are parsed on another thread, so that small requests need not wait for them."""
INLINE_ROWS = 512
"""Requests of more rows are encoded there, and their answers written."""
DEADLINE = "x-deadline-ms"
MAX_DEADLINE = 600_000

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")


class Limits(NamedTuple):
    """A server's limits: bytes of a body, rows of a request, rows that wait, and rows that are scored together."""

    body_bytes: int = 1_048_576
    rows: int = 10_000
    queue_rows: int = 100_000
    batch_rows: int = 512


class Application:
    """Answers requests with the ranker of ``load``, which is called at once, and again by :meth:`reload`.

    It is an ASGI application; ``api`` is the FastAPI application inside. ``is_stopping`` says that it refuses new requests for scores.

    >>> application = Application(lambda: load_run(Path("runs/shop")))  # doctest: +SKIP
    """

    def __init__(self, load: Callable[[], Served], limits: Limits = Limits(), *, threads: int = 1) -> None:  # noqa: B008 (it is immutable)
        served = load()
        self._load, self.limits = load, limits
        self.metrics, self.is_stopping = Metrics(), False
        self.batcher = Batcher(
            max_queue_rows=limits.queue_rows,
            max_batch_rows=limits.batch_rows,
            threads=threads,
            scored=self.metrics.batch_rows.observe,
            waiting=self.metrics.queue_rows.set,
        )
        self._bodies = BodyReader(limits.body_bytes)
        self._aside = ThreadPoolExecutor(1, "aside")  # several would take turns with the event loop, which would wait for all of them
        self.api = make_api(self)
        self._take(served)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        arrived = time.monotonic()
        path = scope["raw_path"].decode("latin-1")  # as it came: what a proxy lets through by its spelling must have no other one

        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                if self.is_stopping:
                    message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
                self.metrics.requests.labels(str(message["status"])).inc()
                if path == "/v1/score":
                    self.metrics.seconds.observe(time.monotonic() - arrived)
            await send(message)

        if scope["http_version"] not in ("1.0", "1.1"):
            other = f"the request is of HTTP/{scope['http_version']}, expected 1.0 or 1.1"
            await _error(HTTPStatus.BAD_REQUEST, other, {"Connection": "close"})(scope, receive, counted)
            return
        names = {name for name, _ in scope["headers"]}
        if b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] == "1.0"):
            unclear = "Transfer-Encoding is there beside Content-Length, or in HTTP/1.0, so that readers differ in where the request ends"
            await _error(HTTPStatus.BAD_REQUEST, unclear, {"Connection": "close"})(scope, receive, counted)
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self.api({**scope, "method": method, "path": path, "arrived": arrived}, receive, counted)

    async def score(self, headers: Any, receive: Receive, arrived: float) -> str:
        """The answer to a request for scores, as JSON. Raises :class:`Unusable` and :class:`Refused`."""
        if self.is_stopping:
            raise Refused("stopping", "the server is stopping; ask another one")
        _check_type(headers)
        deadline = _deadline(headers.getlist(DEADLINE), arrived)
        async with self._bodies.reading(receive, headers) as body:
            served = self.served
            read = partial(read_request, body, max_rows=self.limits.rows)
            request = await self._done(read, is_long=len(body) > INLINE)
            is_long = request.rows > INLINE_ROWS
            job = await self._done(partial(self._job, served.ranker, request, deadline), is_long=is_long)
        self.batcher.submit(job)
        scores = await asyncio.wrap_future(job.done)
        self.metrics.rows.inc(job.rows)
        return await self._done(partial(_answer, served.id, job.rows, scores), is_long=is_long)

    async def _done(self, work: Callable[[], T], *, is_long: bool) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._aside, work) if is_long else work()

    def _job(self, ranker: Ranker | ExportedRanker, request: ScoreRequest, deadline: float | None) -> Job:
        try:
            ids, dense = ranker.encoder.encode(request.table(ranker.columns))
        except DataError as error:
            raise Unusable(HTTPStatus.BAD_REQUEST, str(error)) from error
        return Job(ranker, ids, dense, deadline)

    def reload(self) -> bool:
        """Load again, score a row, and then take the new ranker; requests that run end with the old one. Returns whether it could.

        If it cannot, the old one stays, and one line on stderr says why.
        """
        try:
            served = self._load()
        except Exception as error:
            sys.stderr.write(f"error: not loaded again: {' '.join(str(error).split())}; the earlier model scores on\n")
            sys.stderr.flush()
            self.metrics.reloads.labels("failed").inc()
            return False
        self._take(served)
        self.metrics.reloads.labels("ok").inc()
        return True

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


def make_api(application: Application) -> FastAPI:
    """The FastAPI application, with its page for trying it out at /docs, whose files the package fastapi-offline holds."""
    api = FastAPIOffline(title="dcrnn_fast", version=__version__, redoc_url=None, redirect_slashes=False)

    @api.post("/v1/score")
    async def score(request: Request) -> Response:
        try:
            return _json(await application.score(request.headers, request.receive, request.scope["arrived"]))
        except Unusable as error:
            too_large = error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE  # and the rest of the body may be on its way
            return _error(error.status, str(error), {"Connection": "close"} if too_large else None)
        except Refused as error:
            application.metrics.rejected.labels(error.reason).inc()
            return _unavailable(str(error))
        except ConnectionResetError:
            return _error(HTTPStatus.BAD_REQUEST, "the client went before its body had come")

    @api.get("/v1/model")
    async def model() -> Response:
        return _json(json.dumps(application.about()))

    @api.get("/health/live")
    async def live() -> Response:
        return _json('{"status": "live"}')

    @api.get("/health/ready")
    async def ready() -> Response:
        if application.is_stopping:
            return _unavailable("the server is stopping")
        return _json('{"status": "ready"}')

    @api.get("/metrics")
    async def metrics() -> Response:
        return Response(application.metrics.text(application.served.ranker.unseen), headers={"Content-Type": PROMETHEUS})

    @api.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        path, method = request.url.path, request.method
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = "POST" if path == "/v1/score" else "GET, HEAD"
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} has no method {method[:20]}, expected {allowed}", {"Allow": allowed})
        return _error(
            HTTPStatus(error.status_code), f"there is no path {path[:100]!r}; try /v1/score, /v1/model, /health/ready or /metrics"
        )

    @api.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        application.metrics.rejected.labels("failed").inc()
        return _unavailable("the server failed, and its log says how; report this")

    setattr(api, "openapi", lambda: describe_api(application.about()))  # noqa: B010 (mypy takes no assignment to a method)
    return api


def _answer(model: str, rows: int, scores: Scores) -> str:
    listed = ", ".join(f"{json.dumps(name)}: [{_numbers(values)}]" for name, values in scores.items())
    return f'{{"model": {json.dumps(model)}, "rows": {rows}, "scores": {{{listed}}}}}'


def _numbers(values: npt.NDArray[np.float32]) -> str:
    """Decimals of the fewest digits that read back as the same float32; null for what is no finite number."""
    # of many rows Arrow takes a quarter of str()'s time, and the event loop runs meanwhile
    return ", ".join(pa.array(values, mask=~np.isfinite(values)).cast(pa.string()).fill_null("null").to_pylist())


def _check_type(headers: Any) -> None:
    for name in ("Content-Type", "Content-Encoding"):
        if len(headers.getlist(name)) > 1:
            raise Unusable(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{name} is there twice")
    kind, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
    parts = [part.strip(" \t").lower() for part in kind.split(";")]
    if parts[0] != JSON or any(part.startswith("charset=") and part not in UTF_8 for part in parts):
        raise Unusable(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {kind[:100]!r}, expected {JSON} in UTF-8")
    if encoding.strip(" \t").lower() not in ("identity", ""):
        raise Unusable(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding is {encoding[:100]!r}; send the body as it is")


def _deadline(values: list[str], arrived: float) -> float | None:
    if not values:
        return None
    value = values[0]
    if len(values) > 1 or not re.fullmatch("[1-9][0-9]{0,5}", value) or int(value) > MAX_DEADLINE:
        raise Unusable(
            HTTPStatus.BAD_REQUEST, f"X-Deadline-Ms is {', '.join(values)[:100]!r}, expected one whole number from 1 to {MAX_DEADLINE:,}"
        )
    return arrived + int(value) / 1000


def _json(text: str) -> Response:
    return Response(text, media_type=JSON)


def _unavailable(message: str) -> Response:
    return _error(HTTPStatus.SERVICE_UNAVAILABLE, message, {"Retry-After": "1"})


def _error(status: HTTPStatus, message: str, headers: Mapping[str, Any] | None = None) -> Response:
    return Response(json.dumps({"error": message}), status, dict(headers or {}), media_type=JSON)


class Served(NamedTuple):
    """A ranker, its ``id`` (12 hex digits), its ``kind`` ("run", "pt2" or "aoti"), and the versions that made it."""

    ranker: Ranker | ExportedRanker
    id: str
    kind: str
    dcrnn_fast: str
    torch: str


def load_run(path: Path, *, device: str = "auto", backend: str = "auto") -> Served:
    """The ranker of a run folder, once it has scored a row. Raises the errors of :meth:`Ranker.load`."""
    ranker = Ranker.load(path, device=device, backend=backend)
    return _tried(Served(ranker, str(ranker.id)[:12], "run", __version__, torch.__version__), path)


def load_package(path: Path) -> Served:
    """The ranker of an exported file, once it has scored a row. Raises the errors of :func:`load_exported`."""
    ranker = load_exported(path)
    about = ranker.about
    return _tried(Served(ranker, ranker.id[:12], about["kind"], about["dcrnn_fast"], about["torch"]), path)


def _tried(served: Served, path: Path) -> Served:
    scores = served.ranker.predict({name: [None] for name in served.ranker.columns})
    if served.ranker.unseen is not None:
        served.ranker.unseen.clear()
        served.ranker.unseen.by_request, served.ranker.unseen.tell = True, warn
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise DataError(f"{path} gives a row of missing cells no finite score; train again, and see the run's log")
    return served
