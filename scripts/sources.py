"""Where the sources are, and copies of them without anything that was built.

setup.py, the scripts and the tests read csrc/sources.txt, the list of C++ and CUDA files, through ``sources``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "kernels"
COPIED = ("bench", "csrc", "dcrnn_fast", "kernels", "scripts", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")
RESULTS = Path("bench/results")
BUILT = (".so", ".pyc", "_build_failure.txt", "_build_failure_cuda.txt")


def sources(*groups: str) -> list[str]:
    """The sources of these groups in the list's order, as paths relative to the repository's root."""
    lines = (ROOT / "csrc" / "sources.txt").read_text(encoding="utf-8").splitlines()
    return [path for group, path in (line.split() for line in lines if not line.startswith("#")) if group in groups]


def copy(target: Path) -> str:
    """Make ``target`` hold the sources, and return their hash.

    Unchanged files keep their times, so that a build there compiles only what changed. Files that are no longer among the sources are
    deleted. What was built or measured in ``target`` stays.
    """
    wanted = {}
    for name in COPIED:
        for path in sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]:
            place = path.relative_to(ROOT)
            # The kernels go where they are installed: a package whose kernels lie beside it cannot be imported. In a checkout, that place
            # may be a link to kernels/; in the copy it is a folder.
            if path.is_file() and not _made(place):
                wanted[target / ("dcrnn_fast" if name == "kernels" else "") / place] = path
    for there in [*target.rglob("*")] if target.is_dir() else []:
        if there.is_file() and there not in wanted and not _made(there.relative_to(target)):
            there.unlink()
    digest = hashlib.sha256()
    for there, path in sorted(wanted.items()):
        content = path.read_bytes()
        if path.name == "pyproject.toml":  # a copy is built by the machine's own setuptools, and one before 77 refuses an SPDX license
            content = b"".join(line for line in content.splitlines(keepends=True) if not line.startswith(b"license"))
        digest.update(f"{there.relative_to(target)} {len(content)}\n".encode() + content)
        if not there.is_file() or there.read_bytes() != content:
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(content)
    return digest.hexdigest()


def _made(place: Path) -> bool:
    """Whether a file was built or measured. ``place`` is relative to the root of the sources or of a copy."""
    return place.name.endswith(BUILT) or place.is_relative_to("build") or place.is_relative_to(RESULTS)
