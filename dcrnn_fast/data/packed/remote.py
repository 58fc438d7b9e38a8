"""Packed folders on a file system of pyarrow's, such as s3://bucket/packed: fetched once, checked, and mapped from the cache.

Needs pyarrow.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ...support.files import leftovers, replacing, write_bytes
from ...support.locks import locked
from .arrays import LOCK, PackedDataset, open_packed
from .meta import META, read_meta

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

AT_ONCE, PIECE = 8, 1 << 22
"""Files that are fetched at the same time, and bytes that one thread holds."""


def is_remote(path: Any) -> bool:
    """Whether this is an address of a file system, such as s3://bucket/folder."""
    return isinstance(path, str) and "://" in path


def file_system(address: str | Path) -> tuple[FileSystem, str]:
    """The file system of an address or of a path, and the path there. Raises DataError for one that pyarrow does not know."""
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    try:
        return FileSystem.from_uri(address if is_remote(address) else os.path.abspath(address))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{address} cannot be reached: {_words(error)}") from error


def open_remote(address: str, cache: Path) -> PackedDataset:
    """Open the packed folder at an address, of which the cache gets what it does not hold yet.

    Every file is checked against its SHA-256. Raises DataError for what cannot be read, is damaged, or has parts outside the folder.
    """
    system, root = file_system(address)
    try:
        with system.open_input_stream(f"{root}/{META}") as stream:
            content = stream.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{address} cannot be read: {_words(error)}") from error
    folder = cache / f"fetched-{hashlib.sha256(content).hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LOCK, wait=True):  # other processes of this machine wait for what this one fetches
            write_bytes(folder / META, content)
            try:
                meta = read_meta(folder / META)
            except DataError as error:
                raise DataError(str(error).replace(str(folder), address)) from error
            if outside := [path for path in meta.shards if os.path.isabs(path) or ".." in Path(path).parts]:
                raise DataError(f"{address} has the part {outside[0]!r}, expected parts in its folder; what lies elsewhere is not fetched")
            missing = [name for name in meta.checksums if not (folder / name).is_file()]
            for beside in (beside for name in missing for beside in leftovers(folder / name)):
                beside.unlink()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for _ in pool.map(lambda name: _fetch(system, f"{root}/{name}", folder / name, meta.checksums[name]), missing):
                    pass
    except OSError as error:
        raise DataError(f"{address} cannot be fetched into {folder}: {_words(error)}; what was fetched stays, so try again") from error
    return open_packed(folder)


def _fetch(system: FileSystem, source: str, file: Path, expected: str) -> None:
    hasher = hashlib.sha256()
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as beside:
        with system.open_input_stream(source) as stream, beside.open("wb") as kept:
            while piece := stream.read(PIECE):
                kept.write(piece)
                hasher.update(piece)
        if hasher.hexdigest() != expected:
            raise DataError(f"{source} is damaged: sha256 {hasher.hexdigest()}, expected {expected}; write the data set again")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
