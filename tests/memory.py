"""How much memory a call takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

PROCESS = Path("/proc/self")


def growth() -> Callable[[], int]:
    """A function that tells by how many bytes this process has grown since, at its highest.

    The system's record of the highest is of the whole life of a process: what an earlier test took would hide what this one takes. Linux
    begins it anew.
    """
    (PROCESS / "clear_refs").write_text("5")
    before = _status("VmRSS")
    return lambda: _status("VmHWM") - before


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", (PROCESS / "status").read_text())
    assert found
    return int(found[1]) << 10
