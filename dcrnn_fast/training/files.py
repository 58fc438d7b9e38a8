"""Writing into a run folder so that a reader finds the old file or the new one, never half of either."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dcrnn_fast.errors import RunFolderError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and go on with --resume",
    errno.EDQUOT: "the disk quota is used up; free some space and go on with --resume",
    errno.EFBIG: "the file would exceed the largest size allowed here; raise the limit (ulimit -f) and go on with --resume",
    errno.EROFS: "the file system is read-only; choose another --output",
    errno.EACCES: "no permission to write there; choose another --output",
    errno.EPERM: "no permission to write there; choose another --output",
    errno.ENOTDIR: "a part of the path is a file and not a folder; choose another --output",
    errno.EEXIST: "a file stands where the folder should be; choose another --output",
    errno.ENOENT: "the place does not exist and cannot be made; choose another --output",
}


@contextmanager
def run_folder_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write ``path`` into a :class:`RunFolderError` with its remedy."""
    try:
        yield
    except RunFolderError:
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another --output")
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has the folder's entries: without it, a rename may not survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Replace a file atomically; on failure the old one stays as it was. Raises :class:`RunFolderError`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with run_folder_errors(path):
        try:
            write_synced(beside, data)
            os.replace(beside, path)
            sync_folder(path.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically. NaN and infinities are refused: JSON has no word for them."""
    write_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
