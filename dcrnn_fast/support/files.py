"""Replace a file in one step: write the new one beside it, sync it, rename it. A reader never sees half a file.

What a user names as an output is checked before the work (:func:`output_path`), and written in the end (:func:`writing_output`).
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from ..errors import DataError
from .locks import locked

SCRATCH, LOCK = "dcrnn_fast-scratch-", ".lock"
"""How the names of temporary folders begin, and how that of the file beside each ends which is locked while the folder is used."""


def path_of(name: str, value: object) -> Path:
    """``value`` as a path. Raises TypeError or ValueError that names the argument for what no file can be called."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}={value!r}: expected a path, got {type(value).__name__}")
    if "\0" in os.fspath(value):
        raise ValueError(f"{name}={value!r}: expected a path, which cannot hold a null character")
    return Path(value)


def regular_file(path: Path) -> Path:
    """``path``, for a reader to open: a pipe that nobody writes to would never open, and a device never end.

    Raises IsADirectoryError for a folder, OSError for what is no file either, and what the system raises for one that it does not find.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, "it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file", str(path))
    return path


def output_path(name: str, value: object, *suffixes: str) -> Path:
    """The path of a file to write.

    Raises TypeError or ValueError as :func:`path_of`, and DataError unless it ends in one of ``suffixes``, is not a folder, and lies in one
    that exists.
    """
    path = path_of(name, value)
    if path.suffix not in suffixes or path.is_dir() or not path.parent.is_dir():
        raise DataError(f"{name} {path}: expected the path of a {' or '.join(suffixes)} file in a folder that exists")
    return path


@contextmanager
def writing_output(name: str, path: Path) -> Iterator[Path]:
    """Write a file as :func:`replacing` does; if the system refuses, the error is a DataError that names the argument."""
    try:
        with replacing(path) as beside:
            yield beside
    except OSError as error:
        raise DataError(f"{name} {path} cannot be written: {error.strerror or error}; name another path, or make room there") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path in the same folder for the block to write to; when the block ends, the file there replaces ``path``.

    If the block or the disk fails, ``path`` stays as it was and nothing else is left. The folder must exist. Raises the block's own
    errors, and :class:`OSError` if the file cannot be synced or renamed.

        with replacing(path) as beside:
            figure.savefig(beside, format="svg")
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for the block, in the system's temporary one. First, those of killed processes are deleted there.

    Raises OSError if it cannot be made or locked.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*{LOCK}"):
        with suppress(OSError), locked(lock) as is_left:
            if is_left:
                _remove_scratch(lock)
    folder = Path(tempfile.gettempdir(), f"{SCRATCH}{secrets.token_hex(8)}")
    lock = folder.with_name(folder.name + LOCK)
    try:
        with locked(lock, wait=True):  # first: another process deletes a folder whose lock it finds free
            folder.mkdir(mode=0o700)
            yield folder
    finally:
        _remove_scratch(lock)


def _remove_scratch(lock: Path) -> None:
    """Delete a temporary folder, if the system lets it, and then its lock, by which a later process finds what a kill leaves of it."""
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)


def leftovers(path: Path) -> Iterator[Path]:
    """The files beside ``path`` that killed processes left inside :func:`replacing`, and that living ones write now."""
    return path.parent.glob(f".{escape(path.name)}.*.tmp")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of ``path``, see :func:`replacing`."""
    with replacing(path) as beside:
        beside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace the content of ``path`` with UTF-8 text, see :func:`replacing`."""
    write_bytes(path, text.encode())


def sync(path: Path) -> None:
    """Wait until the disk has a file's bytes, or a folder's entries: without the latter, a rename may not survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
