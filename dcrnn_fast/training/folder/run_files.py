"""Files of a run folder: replaced in one step, with errors that say how to go on."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, RunFolderError, shown
from ...support import files, strict_json

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


def write_with_digest(path: Path, values: Mapping[str, Any], again: str = "go on with --resume") -> None:
    """Replace a JSON file in one step, with a digest over its values."""
    write_json(path, {**values, "digest": strict_json.json_digest(values)}, again)


def read_with_digest(path: Path, remedy: str) -> dict[str, Any]:
    """The values that :func:`write_with_digest` wrote. Raises :class:`CheckpointError` if the file is missing or not as it was written."""
    try:
        values = strict_json.load(path)
        if not isinstance(values, dict):
            raise ValueError(f"it holds {shown(values)}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {remedy}") from error
    if (digest := values.pop("digest", None)) is None:
        raise CheckpointError(f"{path} has no digest, so nothing shows that it is as it was written; {remedy}")
    if digest != strict_json.json_digest(values):
        raise CheckpointError(f"{path} was changed after it was written: its digest does not match; {remedy}")
    return values
