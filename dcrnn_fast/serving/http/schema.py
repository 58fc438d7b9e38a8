"""The OpenAPI description of the HTTP interface, with the columns of the model that is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import __version__

_CELL = [{"type": kind} for kind in ("string", "number", "boolean", "null")]
_PAGES = {
    "/v1/model": ("model", "The model and the limits"),
    "/health/live": ("live", "Whether the process answers"),
    "/health/ready": ("ready", "Whether it takes requests"),
    "/metrics": ("metrics", "Metrics for Prometheus, in text of version 0.0.4"),
}


def describe_api(about: Mapping[str, Any]) -> dict[str, Any]:
    """The description, OpenAPI 3.1, of a server that says ``about`` itself at /v1/model."""
    limits, columns = about["limits"], about["columns"]
    probabilities = {name: {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}} for name in about["names"]}
    schemas = {
        "Cell": {
            "description": "null is a missing cell. In a field with several values, a list of these.",
            "anyOf": [*_CELL, {"type": "array", "items": {"anyOf": _CELL}}],
        },
        "Cells": {"type": "array", "items": _named("Cell"), "minItems": 1, "maxItems": limits["rows"]},
        "ScoreRequest": {
            "description": "All lists of `columns` have one length, the number of rows. A column is in one of the two. The model reads "
            f"{', '.join(columns)}; other columns are ignored.",
            **_object({"columns": _of_columns(columns, "Cells"), "shared": _of_columns(columns, "Cell")}),
            "required": [],
            "examples": [{"columns": {name: [None, None] for name in columns}}],
        },
        "Scores": _object({"model": {"type": "string"}, "rows": {"type": "integer", "minimum": 1}, "scores": _object(probabilities)}),
        "Error": _object({"error": {"type": "string", "description": "One line: the column, the row (from 1), and what was expected."}}),
    }
    problems = {
        "400": "No JSON, or a wrong shape, column or cell.",
        "413": f"More than {limits['body_bytes']:,} bytes, or more than {limits['rows']:,} rows.",
        "415": "Another content type than application/json.",
        "503": "The server has no room for the request, the deadline passed, or the server is stopping.",
    }
    deadline = {"type": "integer", "minimum": 1, "maximum": 600_000, "description": "Milliseconds from arrival until scoring must begin."}
    score = {
        "operationId": "score",
        "summary": "Score rows",
        "parameters": [{"name": "X-Deadline-Ms", "in": "header", "schema": deadline}],
        "requestBody": {"required": True} | _json("ScoreRequest"),
        "responses": {"200": {"description": "Probabilities by name, one for each row."} | _json("Scores")}
        | {status: {"description": words} | _json("Error") for status, words in problems.items()},
    }
    paths: dict[str, Any] = {"/v1/score": {"post": score}}
    for path, (name, summary) in _PAGES.items():
        responses = {"200": {"description": summary}} | ({"503": {"description": "It is stopping."}} if name == "ready" else {})
        paths[path] = {"get": {"operationId": name, "summary": summary, "responses": responses}}
    info = {"title": "dcrnn_fast", "version": __version__, "description": f"Scores rows with the model {about['model']}."}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _named(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _json(schema: str) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": _named(schema)}}}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _of_columns(columns: list[str], of: str) -> dict[str, Any]:
    return {"type": "object", "properties": dict.fromkeys(columns, _named(of)), "additionalProperties": _named(of)}
