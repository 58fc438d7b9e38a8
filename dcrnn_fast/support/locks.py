"""Locks between processes. The operating system drops a lock when its process ends, however it ends, so no lock is ever left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock the file ``path`` for the block, and say whether that succeeded: it fails while somebody else holds the lock.

    The file is made if it is absent, in a folder that must exist. It stays, empty. ``wait`` waits instead of failing. Raises
    :class:`OSError` if the file cannot be made, or its file system has no locks.
    """
    lock = FileLock(path)
    with suppress(Timeout):
        lock.acquire(timeout=-1 if wait else 0)
    try:
        yield lock.is_locked
    finally:
        lock.release()
