"""Packed folders on a file system of pyarrow's, such as s3://bucket/packed: fetched once, checked, and mapped from the cache.

Needs pyarrow.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import DataError, one_line
from ...support.files import leftovers, replacing, write_bytes
from ...support.locks import locked
from .arrays import PackedDataset, Progress, file_sha256, open_packed, open_whole
from .folders import lock_of
from .meta import META, SCHEMA, PackedMeta, read_meta

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

AT_ONCE, PIECE = 8, 1 << 22
"""Files that are fetched at the same time, and bytes that one thread holds."""


def is_remote(path: Any) -> bool:
    """Whether this is an address of a file system, such as s3://bucket/folder."""
    return isinstance(path, str) and "://" in path


def file_system(address: str | Path) -> tuple[FileSystem, str]:
    """The file system of an address or of a path, and the path there.

    Raises DataError for one that pyarrow does not know, and for one with a password, which messages and runs would show.
    """
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    if is_remote(address) and urlsplit(str(address)).password is not None:
        raise DataError("the address holds a password: leave it to the file system's own credentials, such as AWS_SECRET_ACCESS_KEY")
    try:
        return FileSystem.from_uri(address if is_remote(address) else os.path.abspath(address))
    except (pa.ArrowException, OSError, ValueError, ImportError) as error:
        raise DataError(f"{address} cannot be reached: {one_line(error)}") from error


def open_remote(address: str, cache: Path, progress: Progress) -> PackedDataset:
    """Open the packed folder at an address. What the cache lacks is fetched into it.

    Every file is checked against its SHA-256 when it is fetched, and fetched again if the cache's is damaged. `progress` is called after
    each with "fetching files", how many are whole, and how many there are. Raises DataError for what cannot be read, is damaged there, or
    has parts outside the folder.
    """
    (system, root), schema = file_system(address), None
    try:
        content = _read(system, f"{root}/{META}")
        with suppress(FileNotFoundError):
            schema = _read(system, f"{root}/{SCHEMA}")
    except (OSError, ValueError) as error:
        raise DataError(f"{address} cannot be read: {one_line(error)}") from error
    folder = cache / f"fetched-{hashlib.sha256(content).hexdigest()[:32]}"
    if (whole := open_whole(folder)) is not None:
        return whole
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(folder), wait=True):  # other processes of this machine wait for what this one fetches
            _complete(system, root, folder, _checked(content, address, folder), progress)
            if schema is not None:
                write_bytes(folder / SCHEMA, schema)
            write_bytes(folder / META, content)
    except OSError as error:
        raise DataError(f"{address} cannot be fetched into {folder}: {one_line(error)}; what was fetched stays") from error
    return open_packed(folder)


def _checked(content: bytes, address: str, folder: Path) -> PackedMeta:
    try:
        meta = read_meta(folder / META, content)
    except DataError as error:
        raise DataError(str(error).replace(str(folder), address)) from error
    if outside := [path for path in meta.shards if os.path.isabs(path) or ".." in Path(path).parts]:
        raise DataError(f"{address} has the part {outside[0]!r}, expected parts in its folder; what lies elsewhere is not fetched")
    return meta


def _complete(system: FileSystem, root: str, folder: Path, meta: PackedMeta, progress: Progress) -> None:
    """Fetch the files that are not in the folder, or damaged there. If one fails, or the user stops it, the others stop too."""
    stopped = Event()

    def fetch(name: str, expected: str) -> None:
        file = folder / name
        if file.is_file() and file_sha256(file) == expected:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        for beside in leftovers(file):
            beside.unlink()
        _fetch(system, f"{root}/{name}", file, expected, stopped)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        files = [pool.submit(fetch, *file) for file in meta.checksums.items()]
        try:
            progress("fetching files", 0, len(files))
            for done, one in enumerate(as_completed(files), start=1):
                one.result()
                progress("fetching files", done, len(files))
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


def _fetch(system: FileSystem, source: str, file: Path, expected: str, stopped: Event) -> None:
    hasher = hashlib.sha256()
    with replacing(file) as beside:
        with system.open_input_stream(source) as stream, beside.open("wb") as kept:
            while not stopped.is_set() and (piece := stream.read(PIECE)):
                kept.write(piece)
                hasher.update(piece)
        if hasher.hexdigest() != expected:
            raise DataError(f"{source} is damaged: sha256 {hasher.hexdigest()}, expected {expected}; write the data set again")


def _read(system: FileSystem, file: str) -> bytes:
    with system.open_input_stream(file) as stream:
        return bytes(stream.read())
