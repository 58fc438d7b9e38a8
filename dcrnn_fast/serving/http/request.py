"""Reads the body of a request for scores: any bytes become columns of cells, or an error of one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import NoneType
from typing import Any, NamedTuple, NoReturn

from ...errors import shown

MAX_SPREAD = 2**24
"""The most characters or values that a shared cell may have, counted in every row."""
MAX_DIGITS = 4300
"""The most digits of an integer, as in Python."""
_EXPECTED = '{"columns": {"NAME": [cell, ...]}, "shared": {"NAME": cell}}'
_PLAIN = {str, int, float, bool, NoneType}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_CELLS = "text, a number, true, false, null, or a list of these"


class Unusable(Exception):  # noqa: N818 (it is an answer, not a failure)
    """A request that cannot be scored: the status to answer, and why in one line."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status


class ScoreRequest(NamedTuple):
    """The cells of ``rows`` rows: lists of one length, and cells that every row has."""

    columns: dict[str, list[Any]]
    shared: dict[str, Any]
    rows: int

    def check(self, wanted: Sequence[str]) -> None:
        """Raise :class:`Unusable` for a wanted column that is not there, and for a shared cell that takes too much memory in each row."""
        if missing := [name for name in wanted if name not in self.columns and name not in self.shared]:
            names = ", ".join(map(repr, missing[:10])) + (f" and {len(missing) - 10:,} more" if missing[10:] else "")
            raise _bad(f"the model reads {names}, and the request has neither cells nor a shared cell of that name; null is a missing cell")
        for name in wanted:
            if name not in self.shared:
                continue
            cell = self.shared[name]
            size = len(cell) + sum(len(item) for item in cell if type(item) is str) if type(cell) is list else len(str(cell))
            if size * self.rows > MAX_SPREAD:
                raise Unusable(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"shared {name!r} holds {size:,} characters or values for each of {self.rows:,} rows, expected at most {MAX_SPREAD:,} "
                    "in all; shorten it, or send fewer rows at once",
                )


def read_request(body: bytes, *, max_rows: int) -> ScoreRequest:
    """The request in a body.

    Raises :class:`Unusable`: 400 for what is no JSON, or another shape than the message says; 413 for more than ``max_rows`` rows.

    >>> from dcrnn_fast.serving.http.request import read_request
    >>> read_request(b'{"columns": {"item": ["i1", null]}, "shared": {"user": "u7"}}', max_rows=10)
    ScoreRequest(columns={'item': ['i1', None]}, shared={'user': 'u7'}, rows=2)
    >>> read_request(b'{"columns": {"item": "i1"}}', max_rows=10)
    Traceback (most recent call last):
    ...
    dcrnn_fast.serving.http.request.Unusable: column 'item' is 'i1', expected a list of cells, one for each row
    """
    text, value = _parsed(body)
    if not isinstance(value, dict):
        raise _bad(f"the body holds {shown(value)}, expected an object: {_EXPECTED}")
    if unknown := value.keys() - {"columns", "shared"}:
        raise _bad(f"the body has the key {shown(min(unknown))}, expected 'columns' and 'shared' alone: {_EXPECTED}")
    for key, one in value.items():
        if not isinstance(one, dict):
            raise _bad(f"{key!r} is {shown(one)}, expected an object: {_EXPECTED}")
    columns, shared = value.get("columns", {}), value.get("shared", {})
    if both := columns.keys() & shared.keys():
        raise _bad(f"{shown(min(both))} is both in 'columns' and in 'shared'; leave it out of one of them")
    rows = _rows_of(columns, max_rows)
    for name, cells in columns.items():
        _check_cells(cells, "column", name)
    for name, cell in shared.items():
        _check_cells([cell], "shared", name)
    if _SURROGATE.search(text):
        _check_text(value)
    return ScoreRequest(columns, shared, rows)


def _parsed(body: bytes, parse_int: Callable[[str], Any] | None = None) -> tuple[str, Any]:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _bad(f"the body is no UTF-8 text: byte {error.start + 1:,} does not fit; write JSON as UTF-8") from error
    try:
        value = json.loads(text, parse_int=parse_int, parse_float=_float, parse_constant=_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"it goes wrong at line {error.lineno:,}, column {error.colno:,}" if text else "it is empty"
        raise _bad(f"the body is no JSON: {place}; expected {_EXPECTED}") from error
    except ValueError:  # an integer of more digits than Python reads; our own function for each integer would take longer than the rest
        return _parsed(body, _integer)
    except RecursionError:
        raise _bad(f"the body is nested too deep, expected {_EXPECTED}") from None
    return text, value


def _rows_of(columns: dict[str, Any], max_rows: int) -> int:
    first = None
    for name, cells in columns.items():
        if not isinstance(cells, list):
            raise _bad(f"column {shown(name)} is {shown(cells)}, expected a list of cells, one for each row")
        if first is not None and len(cells) != len(columns[first]):
            raise _bad(
                f"column {shown(name)} has {len(cells):,} rows, and {shown(first)} has {len(columns[first]):,}; give each row a cell in "
                "every column (null: missing), or put a cell that all rows have into 'shared'"
            )
        first = name if first is None else first
    rows = 1 if first is None else len(columns[first])
    if not rows:
        raise _bad(f"column {shown(first)} has no rows, expected at least one")
    if rows > max_rows:
        raise Unusable(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request has {rows:,} rows, expected at most {max_rows:,}; send several requests"
        )
    return rows


def _check_cells(cells: list[Any], kind: str, name: str) -> None:
    if set(map(type, cells)) <= _PLAIN:
        return
    for row, cell in enumerate(cells, start=1):
        wrong = [item for item in (cell if type(cell) is list else [cell]) if type(item) not in _PLAIN]
        if wrong:
            where = f"row {row:,}: " if kind == "column" else ""
            raise _bad(f"{where}{kind} {shown(name)} holds {shown(wrong[0])}, expected {_CELLS}")


def _check_text(value: dict[str, Any]) -> None:
    """Raise for half of a surrogate pair, which is no text."""
    for part in value.values():
        for name, cells in part.items():
            try:
                json.dumps([name, cells], ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise _bad(f"column {ascii(name)[:80]} holds half of a surrogate pair, which is no text; write both halves") from None


class _Beyond:
    """A number that no cell holds."""

    def __init__(self, digits: str, what: str) -> None:
        self._shown = f"{digits[:20]}{'...' if len(digits) > 20 else ''}, {what}"

    def __repr__(self) -> str:
        return self._shown


def _integer(digits: str) -> Any:
    size = len(digits.removeprefix("-"))
    return int(digits) if size <= MAX_DIGITS else _Beyond(digits, f"an integer of {size:,} digits")


def _float(digits: str) -> Any:
    return value if math.isfinite(value := float(digits)) else _Beyond(digits, "a number beyond float64")


def _constant(name: str) -> NoReturn:
    raise _bad(f"the body holds {name}, which JSON cannot hold; write null for a missing number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _bad(f"the body has the key {shown(twice)} twice; give each column once")
    return found


def _bad(message: str) -> Unusable:
    return Unusable(HTTPStatus.BAD_REQUEST, message)
