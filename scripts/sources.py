"""Where the sources are. setup.py, the scripts and the tests read csrc/sources.txt, the list of C++ and CUDA files, through ``sources``."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "kernels"


def sources(*groups: str) -> list[str]:
    """The sources of these groups in the list's order, as paths relative to the repository's root."""
    lines = (ROOT / "csrc" / "sources.txt").read_text(encoding="utf-8").splitlines()
    return [path for group, path in (line.split() for line in lines if not line.startswith("#")) if group in groups]
