"""Packed folders appear whole or not at all: they are written beside, under a lock, and what killed processes left is deleted or used."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ...errors import DataError
from ...support.locks import NoLocksError, locked
from .meta import META

LOCK, STAGING = ".lock", "staging"


@contextmanager
def writing_packed(path: Path, goes_on: str | None = None) -> Iterator[Path]:
    """A temporary folder for the block to fill; when the block ends, it becomes `path`. If another process was faster, its folder stays.

    Meanwhile it shares the lock of the folder above, so that `remove_leftovers` spares what is being written. If the block fails, nothing
    of the folder is left. What killed processes left for `path` is deleted, unless a process writes to the folder above now. Of it the new
    folder gets the folder STAGING, if `goes_on` names a file in it that is this user's. Raises DataError if the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = temporary_name(path)
        _take_over(path, beside, goes_on)
        with locked(path.parent / LOCK, shared=True, wait=True), ExitStack() as stack:
            beside.mkdir(exist_ok=True)
            stack.callback(shutil.rmtree, beside, ignore_errors=True)
            yield beside
            try:
                os.rename(beside, path)
            except OSError:
                if not (path / META).is_file():
                    raise
    except NoLocksError as error:
        raise no_locks(path, error) from error
    except OSError as error:
        raise DataError(
            f"packed data cannot be written to {path}: {error}; free space, or choose another folder (of the cache: DCRNN_FAST_CACHE)"
        ) from error


def temporary_name(path: Path) -> Path:
    """A new name in the folder above for what becomes `path`, or was it."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"


def remove_leftovers(folder: Path, but: str = "") -> None:
    """Delete the temporary folders that killed processes left for the cache entries in `folder`, but for those of one name.

    If a process writes packed data to `folder` now, the next call does it. Other names are somebody else's.
    """
    for leftover in _leftovers(folder, rf"\.(?!{re.escape(but)}\.).+-[0-9a-f]{{16}}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _take_over(path: Path, beside: Path, goes_on: str | None) -> None:
    """Delete what killed processes left for `path`, but for the folder STAGING with the longest file `goes_on`, which moves to `beside`."""
    for leftover in _leftovers(path.parent, rf"\.{re.escape(path.name)}"):
        if goes_on is not None and _length(leftover / STAGING / goes_on) > _length(beside / STAGING / goes_on):
            shutil.rmtree(beside, ignore_errors=True)
            with suppress(OSError):
                beside.mkdir()
                (leftover / STAGING).rename(beside / STAGING)
        shutil.rmtree(leftover, ignore_errors=True)


def _length(file: Path) -> int:
    """The bytes of a file of this user; 0 for one that is not there, or of somebody else, who may have written anything."""
    with suppress(OSError):
        found = file.lstat()
        return found.st_size if found.st_uid == os.geteuid() else 0
    return 0


def _leftovers(folder: Path, name: str) -> Iterator[Path]:
    """The temporary folders of what is named so, if no process writes to `folder` now. None can begin to while they are gone through."""
    found = [path for path in folder.glob(".*.tmp") if re.fullmatch(rf"{name}\.[0-9a-f]{{8}}\.tmp", path.name)]
    if found:
        with suppress(OSError), locked(folder / LOCK) as nobody_writes:  # who may only read the folder leaves them to its owner
            yield from found if nobody_writes else ()


def no_locks(path: Path, error: NoLocksError) -> DataError:
    """The error for a folder whose file system has no locks."""
    return DataError(
        f"packed data cannot be written to {path}: {error.strerror}; choose a cache folder on a local disk (DCRNN_FAST_CACHE); Windows "
        "has no such locks"
    )
