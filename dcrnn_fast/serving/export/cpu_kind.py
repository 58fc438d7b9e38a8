"""The kind of CPU that compiled code is for: the system, the architecture and the instruction sets."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SETS = (
    "avx",
    "amx",
    "fma",
    "f16c",
    "bmi",
    "sse",
    "ssse",
    "popcnt",
    "abm",
    "movbe",
    "adx",
    "aes",
    "vaes",
    "gfni",
    "sha",
    "pclmul",
    "vpclmul",
)
"""Instruction sets that a compiler may use, by the first letters of their names in Linux."""


PORTABLE = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "popcnt", "sse", "sse2", "sse4_1", "sse4_2", "ssse3")
"""The instruction sets of x86-64-v3, to which AVX2 belongs, as Linux names them."""


def portable_kind() -> dict[str, Any]:
    """The kind of all x86-64 CPUs under this system that have :data:`PORTABLE`."""
    return {"system": platform.system(), "machine": "x86_64", "instructions": list(PORTABLE)}


def cpu_kind() -> dict[str, Any]:
    """This machine's ``system``, ``machine`` and, on Linux with x86, its ``instructions``."""
    return {"system": platform.system(), "machine": platform.machine(), "instructions": _instructions()}


def missing_here(kind: Mapping[str, Any]) -> str | None:
    """The reason, in words, why code for this :func:`cpu_kind` does not run on this machine; None if it does."""
    ours = cpu_kind()
    for key in ("system", "machine"):
        if kind.get(key) != ours[key]:
            return f"its {key} is {kind.get(key)!r}, and here it is {ours[key]!r}"
    lacking = sorted(set(kind.get("instructions", ())) - set(ours["instructions"]))
    return f"this one lacks {', '.join(lacking)}" if lacking else None


def _instructions() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return sorted({flag for flag in flags if flag.startswith(_SETS)})
