"""JSON, read so that any text ends in plain values or in a ValueError of one line; and the digest of JSON values."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NoReturn

from .files import regular_file

MAX_DEPTH = 100
MAX_DIGITS = 20


def load(path: Path) -> Any:
    """The content of a JSON file. Raises OSError if it cannot be read, and ValueError as :func:`parse` does."""
    return parse(regular_file(path).read_text(encoding="utf-8"))


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises ValueError for what is no JSON (NaN and infinities included), for numbers beyond float64 (1e999), for nesting deeper than 100
    levels, for integers of more than 20 digits, and for text that is no Unicode (half of a surrogate pair).

    >>> from dcrnn_fast.support import strict_json
    >>> strict_json.parse('{"rows": 8}')
    {'rows': 8}
    """
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except RecursionError:
        raise _too_deep() from None
    _check(value)
    return value


def json_digest(value: Any) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON in one fixed spelling, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _check(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise _too_deep()
        for item in level:
            if isinstance(item, str):
                item.encode()
        inner = [item for item in level if isinstance(item, (dict, list))]
        level = [child for item in inner for child in ([*item, *item.values()] if isinstance(item, dict) else item)]
        depth += 1


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it holds an integer of {len(digits)} digits, expected at most {MAX_DIGITS}")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"it holds {text[:40]}, which is beyond the range of float64")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which JSON cannot hold")


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
