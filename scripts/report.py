"""How the scripts write a result: a file beside and renamed, lines with their columns below one another."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path


def write(path: Path, content: object) -> None:
    """Beside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Lines of as many words each as a table."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines)
