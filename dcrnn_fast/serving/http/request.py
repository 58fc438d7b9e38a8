"""Reads the body of a request for scores: any bytes become encoded rows, or an error of one line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from types import NoneType
from typing import Any

from ...data import Encoder
from ...data.encoder.encoder import Encoded
from ...errors import DataError, shown

MAX_SPREAD = 2**24
"""The most characters or values that a shared cell may have, counted in every row."""
_EXPECTED = '{"columns": {"NAME": [cell, ...]}, "shared": {"NAME": cell}}'
_PLAIN = {str, int, float, bool, NoneType}
_CELLS = "text, a number, true, false, null, or a list of these"


class Refused(Exception):  # noqa: N818 (it is an answer, not a failure)
    """A request that is not answered as it wishes: the status, why in one line, further headers of the answer, and maybe the ``reason`` by
    which metrics count it: "overload", "deadline" or "stopping"."""

    def __init__(self, status: int, message: str, *, reason: str = "", **headers: str) -> None:
        super().__init__(" ".join(message.split()))
        self.status, self.reason, self.headers = status, reason, headers


def unavailable(reason: str, message: str, **headers: str) -> Refused:
    """A request that may be tried again."""
    return Refused(503, message, reason=reason, **{"retry-after": "1"}, **headers)


def read_request(body: bytes | bytearray, encoder: Encoder, *, max_rows: int) -> Encoded:
    """The encoded rows of a body.

    Raises :class:`Refused`: 400 for what is not JSON, another shape than the message says, or a wrong column or cell; 413 for more than
    ``max_rows`` rows, and for a shared cell that would take too much memory in each row.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 text: byte {error.start + 1:,} does not fit; write JSON as UTF-8") from error
    value = _parsed(text)
    if not isinstance(value, dict):
        raise Refused(400, f"the body holds {shown(value)}, expected an object: {_EXPECTED}")
    if unknown := value.keys() - {"columns", "shared"}:
        raise Refused(400, f"the body has the key {shown(min(unknown))}, expected 'columns' and 'shared' alone: {_EXPECTED}")
    for key, one in value.items():
        if not isinstance(one, dict):
            raise Refused(400, f"{key!r} is {shown(one)}, expected an object: {_EXPECTED}")
    columns, shared = value.get("columns", {}), value.get("shared", {})
    if both := columns.keys() & shared.keys():
        raise Refused(400, f"{shown(min(both))} is both in 'columns' and in 'shared'; leave it out of one of them")
    rows = _rows_of(columns, max_rows)
    for name, cells in columns.items():
        _check_cells(cells, f"column {shown(name)}")
    for name, cell in shared.items():
        _check_cells([cell], f"shared {shown(name)}")
    _check_wanted(columns, shared, rows, encoder.columns)
    try:
        return encoder.encode_shared(columns, shared, rows)
    except DataError as error:
        raise Refused(400, str(error)) from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"it goes wrong at line {error.lineno:,}, column {error.colno:,}" if text else "it is empty"
        raise Refused(400, f"the body is not JSON: {place}; expected {_EXPECTED}") from error
    except ValueError as error:
        raise Refused(400, "the body holds an integer of more than 4,300 digits, which no cell holds; write it as text") from error
    except RecursionError:
        raise Refused(400, f"the body is nested too deep, expected {_EXPECTED}") from None


def _rows_of(columns: dict[str, Any], max_rows: int) -> int:
    first, rows = "", 1
    for name, cells in columns.items():
        if not isinstance(cells, list):
            raise Refused(400, f"column {shown(name)} is {shown(cells)}, expected a list of cells, one for each row")
        if not first:
            first, rows = f"{shown(name)} has", len(cells)
        if len(cells) != rows:
            remedy = "give each row a cell in every column (null: missing), or put a cell that all rows have into 'shared'"
            raise Refused(400, f"column {shown(name)} has {len(cells):,} rows, and {first} {rows:,}; {remedy}")
        if not rows:
            raise Refused(400, f"column {shown(name)} has no rows, expected at least one")
    if rows > max_rows:
        raise Refused(413, f"the request has {rows:,} rows, expected at most {max_rows:,}; send several requests")
    return rows


def _check_cells(cells: list[Any], column: str) -> None:
    """Raise for what no cell holds, in a list of values neither."""
    if set(map(type, cells)) <= _PLAIN:
        return
    for row, cell in enumerate(cells, start=1):
        if wrong := [item for item in (cell if type(cell) is list else [cell]) if type(item) not in _PLAIN]:
            where = f"row {row:,}: {column}" if column.startswith("column") else column
            raise Refused(400, f"{where} holds {shown(wrong[0])}, expected {_CELLS}")


def _check_wanted(columns: dict[str, Any], shared: dict[str, Any], rows: int, wanted: Sequence[str]) -> None:
    """Raise for a wanted column that is not there, and for a shared cell that takes too much memory in each row."""
    if missing := [name for name in wanted if name not in columns and name not in shared]:
        names = ", ".join(map(repr, missing[:10])) + (f" and {len(missing) - 10:,} more" if missing[10:] else "")
        reads = f"the model reads {names}, and the request has neither cells nor a shared cell of that name"
        raise Refused(400, f"{reads}; null is a missing cell")
    for name in shared.keys() & set(wanted):
        cell = shared[name]
        size = len(cell) + sum(len(item) for item in cell if type(item) is str) if type(cell) is list else len(str(cell))
        if size * rows > MAX_SPREAD:
            held = f"shared {name!r} holds {size:,} characters or values for each of {rows:,} rows"
            raise Refused(413, f"{held}, expected at most {MAX_SPREAD:,} in all; shorten it, or send fewer rows at once")


def _constant(name: str) -> None:
    raise Refused(400, f"the body holds {name}, which JSON cannot hold; write null for a missing number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Refused(400, f"the body has the key {shown(twice)} twice; give each column once")
    return found
