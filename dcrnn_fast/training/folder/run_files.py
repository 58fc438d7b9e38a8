"""Files of a run folder: replaced in one step, with errors that say how to go on."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import RunFolderError
from ...support import files

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and {again}",
    errno.EDQUOT: "the disk quota is used up; free some space and {again}",
    errno.EFBIG: "the file would exceed the largest size allowed here; raise the limit (ulimit -f) and {again}",
    errno.EROFS: "the file system is read-only; use a folder that can be written",
    errno.EACCES: "no permission to write there; use a folder that can be written",
    errno.EPERM: "no permission to write there; use a folder that can be written",
    errno.ENOTDIR: "a part of the path is a file and not a folder; choose another --output",
    errno.EEXIST: "a file stands where the folder should be; choose another --output",
    **dict.fromkeys(
        (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP), "its file system cannot lock files; choose an --output on one that can"
    ),
    errno.ENOENT: "the place does not exist and cannot be made; choose another --output",
}


@contextmanager
def run_folder_errors(path: Path, again: str = "go on with --resume") -> Iterator[None]:
    """Turn the operating system's refusal to write ``path`` into a :class:`RunFolderError` that says what to do, with room ``again``."""
    try:
        yield
    except RunFolderError:
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another --output").format(again=again)
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


def write_file(path: Path, data: bytes, again: str = "go on with --resume") -> None:
    """Replace a file in one step; on failure the old one stays as it was. Raises :class:`RunFolderError`."""
    with run_folder_errors(path, again):
        files.write_bytes(path, data)


def write_json(path: Path, value: Any, again: str = "go on with --resume") -> None:
    """Replace a JSON file in one step. Raises :class:`ValueError` for NaN and infinities, which JSON cannot hold."""
    with run_folder_errors(path, again):
        files.write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
