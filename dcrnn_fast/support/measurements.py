"""Writes a file of measurements of a GPU: those of ``auto`` and those of tile sizes alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import files, locks


def update(path: Path, content: Callable[[], dict[str, Any]]) -> None:
    """Replace a file by what ``content`` returns, which reads the old one: no other process writes between the two.

    Raises OSError if it cannot be written or locked. What ``content`` raises comes unchanged, and the file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locks.locked(path.with_name(f".{path.name}.lock"), wait=True):
        files.write_text(path, json.dumps(content(), indent=1) + "\n")
