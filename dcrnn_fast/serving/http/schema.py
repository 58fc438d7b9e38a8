"""The OpenAPI description of the HTTP interface, with the columns of the model that is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ... import __version__

Schema = dict[str, Any]
_CELL = [{"type": kind} for kind in ("string", "number", "boolean", "null")]
_RETRY = {"headers": {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}}}


def describe_api(about: Mapping[str, Any]) -> Schema:
    """The description, OpenAPI 3.1, of a server that says ``about`` itself at /v1/model."""
    limits, columns = about["limits"], about["columns"]
    probabilities = {name: {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}} for name in about["names"]}
    rows = {"type": "integer", "minimum": 1, "maximum": limits["rows"]}
    scores = {"model": {"type": "string"}, "rows": rows, "scores": _object(probabilities, about["names"])}
    request = {
        "columns": _mapping(columns, "Cells", "Column -> a cell for each row. Without it, there is one row."),
        "shared": _mapping(columns, "Cell", "Column -> the cell that every row has."),
    }
    alike = "All lists of `columns` have one length, the number of rows. A column is in one of the two."
    reads = f"The model reads {', '.join(columns)}; other columns are ignored."
    schemas = {
        "Cell": {
            "description": "null is a missing cell. In a field with several values, a list of these.",
            "anyOf": [*_CELL, {"type": "array", "items": {"anyOf": _CELL}}],
        },
        "Cells": {"type": "array", "items": _named("Cell"), "minItems": 1, "maxItems": limits["rows"]},
        "ScoreRequest": _object(request)
        | {"description": f"{alike} {reads}", "examples": [{"columns": {name: [None, None] for name in columns}}]},
        "Scores": _object(scores, scores),
        "Error": _object(
            {"error": {"type": "string", "description": "One line that names the column, the row (from 1), and what was expected."}},
            ["error"],
        ),
    }
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
        "requestBody": {"required": True, "content": {"application/json": {"schema": _named("ScoreRequest")}}},
        "responses": {
            "200": _answer("Probabilities by name, one for each row.", _named("Scores")),
            "400": _error("No JSON, or a wrong shape, column or cell."),
            "413": _error(f"More than {limits['body_bytes']:,} bytes, or more than {limits['rows']:,} rows."),
            "415": _error("Another content type than application/json."),
            "503": _error("The server has no room for the request, the deadline passed, or the server is stopping.") | _RETRY,
        },
    }
    status = _object({"status": {"type": "string"}}, ["status"]) | {"additionalProperties": True}
    text = {"description": "Text, version 0.0.4.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    model = {"type": "object", "required": list(about)}
    paths = {
        "/v1/score": {"post": score},
        "/v1/model": _get("model", "The model and the limits", {"200": _answer("What scores.", model)}),
        "/health/live": _get("live", "Whether the process answers", {"200": _answer("It does.", status)}),
        "/health/ready": _get(
            "ready", "Whether it takes requests", {"200": _answer("It does.", status), "503": _error("It is stopping.") | _RETRY}
        ),
        "/metrics": _get("metrics", "Metrics for Prometheus", {"200": text}),
    }
    info = {"title": "dcrnn_fast", "version": __version__, "description": f"Scores rows with the model {about['model']}."}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _object(properties: Schema, required: Iterable[str] = ()) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _mapping(names: Iterable[str], of: str, description: str) -> Schema:
    properties = dict.fromkeys(names, _named(of))
    return {"type": "object", "description": description, "properties": properties, "additionalProperties": _named(of)}


def _named(schema: str) -> Schema:
    return {"$ref": f"#/components/schemas/{schema}"}


def _get(name: str, summary: str, responses: Schema) -> Schema:
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _answer(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error(description: str) -> Schema:
    return _answer(description, _named("Error"))
