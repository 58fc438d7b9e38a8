"""Locks between processes. The operating system drops a lock when its process ends, however it ends, so no lock is ever left behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_held: set[int] = set()


class NoLocksError(OSError):
    """The file cannot be locked at all: the platform or the file system has no locks."""


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[bool]:
    """Lock the file ``path`` for the block, and say whether that succeeded: it fails while somebody else holds the lock.

    The file is made if it is absent, in a folder that must exist. It stays, empty; only a holder that does not share may delete it. Whoever
    had opened the deleted file then locks the new one of its name, and not the old one beside another process. ``shared`` lets others hold
    the lock too, if they share it. ``wait`` waits instead of failing. A forked child does not hold the lock. Raises :class:`OSError` if
    the file cannot be made, and :class:`NoLocksError` if the platform or its file system has no locks.

        with locked(folder / ".lock") as mine:
            if not mine:
                ...
    """
    try:
        import fcntl  # Unix alone has it; what takes no lock must be importable elsewhere.
    except ModuleNotFoundError as error:
        raise NoLocksError(errno.ENOLCK, f"{path} cannot be locked: this platform has no fcntl locks") from error

    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        descriptor = _opened(path)
        _held.add(descriptor)
        try:
            mine = True
            try:
                fcntl.flock(descriptor, operation)
            except BlockingIOError:
                mine = False
            except OSError as error:
                raise NoLocksError(error.errno, f"{path} cannot be locked ({error.strerror})") from error
            if mine and not _is_at(path, descriptor):
                continue
            yield mine
            return
        finally:
            if descriptor in _held:
                _held.remove(descriptor)
                os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)  # the file of another user, or on a read-only disk, can be locked too


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _forget() -> None:
    while _held:
        os.close(_held.pop())


# A forked child inherits the open file and with it the lock, which would outlive a killed parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
