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

    Raises ValueError for what is no JSON (NaN and infinities included), for numbers beyond float64 (1e999), for nesting that exhausts
    Python's stack, for integers of more digits than Python reads, and for text that is no Unicode (half of a surrogate pair).

    >>> from dcrnn_fast.support import strict_json
    >>> strict_json.parse('{"rows": 8}')
    {'rows': 8}
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def json_digest(value: Any) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON in one fixed spelling, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
