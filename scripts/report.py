"""The end of a report on compiled kernels: the result in full to a file, and in short to the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KEY = (
    *("source", "kernel", "kind", "from", "arch", "rank", "gates", "tile", "tile_rows", "tile_columns"),
    *("warps", "stages", "all_steps", "context"),
)
"""What tells a row from the others, where it has it."""


def shown(value: Any) -> str:
    """A value in a table."""
    return " ".join(f"{name}:{one}" for name, one in value.items()) if isinstance(value, dict) else str(value)


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """The names of rows, then these columns, aligned."""
    every = [*(name for name in KEY if any(name in row for row in rows)), *columns]
    lines = [every, *([shown(row.get(name, "")) for name in every] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def conclude(result: dict[str, Any], columns: tuple[str, ...], path: Path) -> int:
    """Write the result, print its ``rows`` and whatever has ``failures``, and return the exit code."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result["rows"], columns))
    sections = {name: section for name, section in result.items() if isinstance(section, list)}
    failed = [row for section in sections.values() for row in section if row.get("failures")]
    for row in failed:
        names = [row[name] if isinstance(row[name], str) else f"{name}={shown(row[name])}" for name in (*KEY, "variant") if name in row]
        print(f"FAILED: {' '.join(names)}: {'; '.join(row['failures'])}")
    print(f"{', '.join(f'{len(section)} {name}' for name, section in sections.items())}, {len(failed)} failed; written to {path}")
    return int(bool(failed))
