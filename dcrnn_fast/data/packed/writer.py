"""Writing packed folders: under a temporary name, some rows at a time; and the cache entries that are damaged or left half-written."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from ...errors import DataError
from ...support.files import sync
from ...support.locks import NoLocksError, locked
from .arrays import META, PackedDataset, open_packed
from .meta import DTYPES, PackedMeta, UnreadableError

LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+-[0-9a-f]{16}\.[0-9a-f]{8}\.tmp")  # what _temporary_name makes of a cache entry's name


@contextmanager
def writing_packed(path: Path) -> Iterator[Path]:
    """A temporary folder for the block to fill; when the block ends, it becomes `path`. If another process was faster, its folder stays.

    Meanwhile it shares the lock of the folder above, so that `remove_leftovers` spares what is being written. If the block fails, nothing
    of the folder is left. Raises DataError if the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent / LOCK, shared=True, wait=True), ExitStack() as stack:
            beside = _temporary_name(path)
            beside.mkdir()
            stack.callback(shutil.rmtree, beside, ignore_errors=True)
            yield beside
            try:
                os.rename(beside, path)
            except OSError:
                if not (path / META).is_file():
                    raise
    except NoLocksError as error:
        raise _no_locks(path, error) from error
    except OSError as error:
        raise DataError(
            f"packed data cannot be written to {path}: {error}; free space, or choose another cache folder (DCRNN_FAST_CACHE)"
        ) from error


class PackedWriter:
    """Writes the arrays of a packed folder some rows at a time, and meta.json last. A context, which closes the files.

    `meta.checksums` and `meta.digest` are filled in by `finish`.
    """

    def __init__(self, folder: Path, meta: PackedMeta) -> None:
        self._folder, self._meta = folder, meta
        self._arrays = {
            split: {kind: _ArrayWriter(folder / f"{split}.{kind}.npy", DTYPES[kind], shape) for kind, shape in meta.arrays(split).items()}
            for split in meta.rows
        }

    def __enter__(self) -> PackedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for arrays in self._arrays.values():
            for array in arrays.values():
                array.close()

    def append(self, split: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add rows to a split; `arrays` holds them by kind ("ids", "dense", ...)."""
        for kind, array in arrays.items():
            self._arrays[split][kind].append(array)

    def finish(self) -> None:
        """Write meta.json, and wait until the disk has everything. Every split must have the rows that meta states."""
        checksums = {f"{split}.{kind}.npy": array.finish() for split, arrays in self._arrays.items() for kind, array in arrays.items()}
        meta = dataclasses.replace(self._meta, checksums=checksums)
        meta = dataclasses.replace(meta, digest=meta.computed_digest())
        text = json.dumps(meta.content(), indent=1, ensure_ascii=False)
        (self._folder / META).write_text(text, encoding="utf-8")
        sync(self._folder / META)


def raw_bytes(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> memoryview:
    """The bytes of an array as `dtype`, row-major."""
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8).data


class _ArrayWriter:
    """An .npy file of known shape that gets its rows piece by piece."""

    def __init__(self, file: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self._file, self._dtype, self._left = file, np.dtype(dtype), shape[0]
        self._hasher = hashlib.sha256()
        self._stream = file.open("wb")
        header = io.BytesIO()
        npy.write_array_header_1_0(header, {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape})
        self._write(header.getvalue())

    def _write(self, data: Any) -> None:
        self._stream.write(data)
        self._hasher.update(data)

    def append(self, rows: npt.NDArray[Any]) -> None:
        self._left -= len(rows)
        self._write(raw_bytes(rows, self._dtype))

    def close(self) -> None:
        self._stream.close()

    def finish(self) -> str:
        """Close the file, and return its SHA-256."""
        self.close()
        if self._left:
            raise AssertionError(f"{self._file} lacks {self._left} of its rows")
        sync(self._file)
        return self._hasher.hexdigest()


def open_or_discard(path: Path) -> PackedDataset | None:
    """Open a cache entry; if it is damaged, delete it and return None.

    An entry is judged and renamed while nobody else writes to the folder above, so what another process has built again stays. What the
    system does not read now stays too. Raises DataError for an entry that is not read, or that is damaged and cannot be replaced.
    """
    if found := _if_whole(path):
        return found
    discarded = _temporary_name(path)
    try:
        with locked(path.parent / LOCK, wait=True):
            if found := _if_whole(path):
                return found
            with suppress(FileNotFoundError):  # Another process discarded it, and has not built it again yet.
                os.rename(path, discarded)
    except NoLocksError as error:
        raise _no_locks(path, error) from error
    except OSError as error:
        raise DataError(
            f"the damaged cache entry {path} cannot be replaced: {error.strerror or error}; delete it, or choose another cache folder "
            "(DCRNN_FAST_CACHE)"
        ) from error
    shutil.rmtree(discarded, ignore_errors=True)
    return None


def _if_whole(path: Path) -> PackedDataset | None:
    try:
        return open_packed(path)
    except UnreadableError:
        raise
    except DataError:
        return None


def _no_locks(path: Path, error: NoLocksError) -> DataError:
    return DataError(
        f"packed data cannot be written to {path}: {error.strerror}; choose a cache folder on a local disk (DCRNN_FAST_CACHE); Windows "
        "has no such locks"
    )


def _temporary_name(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete the temporary folders that killed processes left for the cache entries in `folder`, or for its packed folder `name`.

    If a process writes packed data to `folder` now, the next call does it. Other names are somebody else's.
    """
    temporary = _TEMPORARY if name is None else re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.tmp")
    leftovers = [path for path in folder.glob(".*.tmp") if temporary.fullmatch(path.name)]
    if not leftovers:
        return
    with suppress(OSError), locked(folder / LOCK) as nobody_writes:  # a process that may only read the folder leaves them to its owner
        for leftover in leftovers if nobody_writes else ():
            shutil.rmtree(leftover, ignore_errors=True)
