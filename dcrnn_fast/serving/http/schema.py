"""The OpenAPI description of the HTTP interface, with the columns of the model that is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import __version__

_CELL = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"}]}
_STATUS = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
_SCHEMAS: dict[str, Any] = {
    "Cell": {
        "description": "null is a missing cell. In a field with several values, a list of these.",
        "anyOf": [*_CELL["anyOf"], {"type": "array", "items": _CELL}],
    },
    "Error": {
        "type": "object",
        "properties": {
            "error": {"type": "string", "description": "One line that names the column, the row (from 1), and what was expected."}
        },
        "required": ["error"],
        "additionalProperties": False,
    },
}
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}}


def describe_api(about: Mapping[str, Any]) -> dict[str, Any]:
    """The description, OpenAPI 3.1, of a server that says ``about`` itself at /v1/model."""
    limits = about["limits"]
    scores = {name: {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}} for name in about["names"]}
    answer = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "rows": {"type": "integer", "minimum": 1, "maximum": limits["rows"]},
            "scores": {"type": "object", "properties": scores, "required": about["names"], "additionalProperties": False},
        },
        "required": ["model", "rows", "scores"],
        "additionalProperties": False,
    }
    cell, cells = {"$ref": "#/components/schemas/Cell"}, {"$ref": "#/components/schemas/Cells"}
    request = {
        "type": "object",
        "description": "All lists of `columns` have one length, the number of rows. A column is in one of the two. "
        f"The model reads {', '.join(about['columns'])}; other columns are ignored.",
        "properties": {
            "columns": {
                "type": "object",
                "description": "Column -> a cell for each row. Without it, there is one row.",
                "properties": dict.fromkeys(about["columns"], cells),
                "additionalProperties": cells,
            },
            "shared": {
                "type": "object",
                "description": "Column -> the cell that every row has.",
                "properties": dict.fromkeys(about["columns"], cell),
                "additionalProperties": cell,
            },
        },
        "additionalProperties": False,
        "examples": [{"columns": {name: [None, None] for name in about["columns"]}}],
    }
    of_column = {"type": "array", "items": cell, "minItems": 1, "maxItems": limits["rows"]}
    deadline = {
        "name": "X-Deadline-Ms",
        "in": "header",
        "description": "Milliseconds from arrival within which scoring must begin.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 600_000},
    }
    score = {
        "operationId": "score",
        "summary": "Score rows",
        "parameters": [deadline],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ScoreRequest"}}}},
        "responses": {
            "200": _answer("Probabilities by name, one for each row.", {"$ref": "#/components/schemas/Scores"}),
            "400": _error("No JSON, or a wrong shape, column or cell."),
            "413": _error(f"More than {limits['body_bytes']:,} bytes, or more than {limits['rows']:,} rows."),
            "415": _error("Another content type than application/json."),
            "503": _error("The queue is full, the deadline passed, or the server is stopping.") | {"headers": _RETRY},
        },
    }
    model = {"type": "object", "required": list(about)}
    paths = {
        "/v1/score": {"post": score},
        "/v1/model": {"get": _get("model", "The model and the limits", _answer("What scores.", model))},
        "/health/live": {"get": _get("live", "Whether the process answers", _answer("It does.", _STATUS))},
        "/health/ready": {
            "get": _get(
                "ready", "Whether it takes requests", _answer("It does.", _STATUS), {"503": _error("It is stopping.") | {"headers": _RETRY}}
            )
        },
        "/metrics": {
            "get": _get(
                "metrics",
                "Metrics for Prometheus",
                {"description": "Text, version 0.0.4.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            )
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "dcrnn_fast", "version": __version__, "description": f"Scores rows with the model {about['model']}."},
        "paths": paths,
        "components": {"schemas": _SCHEMAS | {"Cells": of_column, "ScoreRequest": request, "Scores": answer}},
    }


def _get(name: str, summary: str, answer: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "responses": {"200": answer} | (more or {})}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error(description: str) -> dict[str, Any]:
    return _answer(description, {"$ref": "#/components/schemas/Error"})
