"""Packed folders appear whole or not at all: one process at a time writes a folder beside, and what killed ones left is deleted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import DataError
from ...support.locks import locked
from .meta import META

BESIDE = ".packed.tmp"


@contextmanager
def writing_packed(path: Path) -> Iterator[Path]:
    """A temporary folder for the block to fill; when the block ends, it becomes `path`. If another process was faster, its folder stays.

    Other processes that write the same folder wait meanwhile. If the block fails, nothing of the folder is left. What a killed process left
    is deleted. Raises DataError if the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}{BESIDE}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(path), wait=True):
            shutil.rmtree(beside) if beside.is_dir() else beside.unlink(missing_ok=True)
            beside.mkdir()
            try:
                yield beside
                if not (path / META).is_file():
                    os.rename(beside, path)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"packed data cannot be written to {path}: {error}; free space, or choose another folder (of the cache: DCRNN_FAST_CACHE)"
        ) from error


def lock_of(path: Path) -> Path:
    """The file that whoever writes a packed folder locks."""
    return path.with_name(f".{path.name}.lock")


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left for the cache entries in `folder`. Other names are somebody else's."""
    for leftover in folder.glob(f".*{BESIDE}"):
        name = leftover.name[1:].removesuffix(BESIDE)
        if re.fullmatch(r".+-[0-9a-f]{16}", name):
            with suppress(OSError), locked(lock_of(folder / name)) as nobody_writes:  # who may only read leaves them to their owner
                if nobody_writes:
                    shutil.rmtree(leftover, ignore_errors=True)
