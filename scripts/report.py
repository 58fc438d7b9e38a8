"""A report on compiled kernels: how it is written to a file and printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Report:
    """The content of the result's file; the table's lines, the first with the columns' names; each failure's place; what was counted."""

    content: dict[str, Any]
    lines: list[tuple[str, ...]]
    failed: list[tuple[str, list[str]]]
    counted: str

    def write(self, path: Path) -> None:
        """Write the content to the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        """The table with aligned columns, then the failures."""
        widths = [max(map(len, column)) for column in zip(*self.lines, strict=True)]
        shown = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in self.lines]
        shown += [f"FAILED: {name}: {'; '.join(failures)}" for name, failures in self.failed]
        return "\n".join([*shown, f"{self.counted}, {len(self.failed)} failed"])
