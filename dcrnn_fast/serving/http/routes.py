"""The paths of the HTTP interface and its errors, as a FastAPI application. Needs the extra ``serve``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from ... import __version__
from .batching import Refused
from .request import Unusable
from .schema import describe_api

if TYPE_CHECKING:
    from .app import Application

JSON = "application/json"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


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
        if application.stopping:
            return _unavailable("the server is stopping")
        return _json('{"status": "ready"}')

    @api.get("/metrics")
    async def metrics() -> Response:
        return Response(application.metrics.text(), headers={"Content-Type": PROMETHEUS})

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


def _json(text: str) -> Response:
    return Response(text, media_type=JSON)


def _unavailable(message: str) -> Response:
    return _error(HTTPStatus.SERVICE_UNAVAILABLE, message, {"Retry-After": "1"})


def _error(status: HTTPStatus, message: str, headers: Mapping[str, Any] | None = None) -> Response:
    return Response(json.dumps({"error": message}), status, dict(headers or {}), media_type=JSON)
