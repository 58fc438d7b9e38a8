"""JSON, read so that any text ends in plain values or in a ValueError of one line; and the digest of JSON values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .files import regular_file


def load(path: Path) -> Any:
    """The content of a JSON file. Raises OSError if it cannot be read, and ValueError as :func:`parse` does."""
    return parse(regular_file(path).read_text(encoding="utf-8"))


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises ValueError for what is not JSON (NaN and infinities included), for numbers beyond float64 (1e999), for nesting that exhausts
    Python's stack, for integers of more digits than Python reads, and for text that is not Unicode (half of a surrogate pair).
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def fits(value: Any, shape: Any) -> bool:
    """Whether JSON has a shape: a type, `[shape]` for a list, `{str: shape}` for any keys, a mapping of required keys, or a test."""
    if isinstance(shape, type):
        return type(value) is shape
    if isinstance(shape, list):
        one = shape[0]
        return type(value) is list and (set(map(type, value)) <= {one} if isinstance(one, type) else all(fits(each, one) for each in value))
    if not isinstance(shape, dict):
        return bool(shape(value))
    if type(value) is not dict:
        return False
    if str in shape:
        return set(map(type, value)) <= {str} and all(fits(one, shape[str]) for one in value.values())
    return all(key in value and fits(value[key], one) for key, one in shape.items())


def json_digest(value: Any) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON in one fixed spelling, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
