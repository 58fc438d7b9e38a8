"""The resident memory of this process, from Linux's /proc. It counts every allocator and the kernels' scratch memory."""

from __future__ import annotations

from pathlib import Path

PROCESS = Path("/proc/self")
CAN_MEASURE = (PROCESS / "clear_refs").exists()


def memory_now() -> int:
    """Bytes. From here, :func:`memory_peak` starts again."""
    (PROCESS / "clear_refs").write_text("5", encoding="ascii")
    return _bytes("VmRSS")


def memory_peak() -> int:
    """The most bytes since the last :func:`memory_now`."""
    return _bytes("VmHWM")


def _bytes(field: str) -> int:
    line = next(line for line in (PROCESS / "status").read_text(encoding="utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
