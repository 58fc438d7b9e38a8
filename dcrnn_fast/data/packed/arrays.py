"""The packed format: a folder with meta.json and, for each split, .npy files that are memory-mapped on open.

    meta.json
    train.ids.npy     int32   [N, F]    column f in [0, num_embeddings of field f)
    train.dense.npy   float32 [N, Nd]   present when there are dense columns
    train.labels.npy  float32 [N, T]    0, 1, or NaN for unknown
    train.weight.npy  float32 [N]       present when the schema names a weight
    train.group.npy   int64   [N]       present when the schema names a group
    schema.yaml                         the schema that `prepare` read the rows by

meta.json holds the SHA-256 of every array file, and a digest of itself. A folder is written under a temporary name, some rows at a time.
That of a data set in parts holds meta.json alone, which names the parts.
Needs NumPy and the standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from ...errors import DataError, one_line, shown
from ...support.files import path_of, regular_file, sync, write_text
from .folders import writing_packed
from .meta import DTYPES, META, SCHEMA, PackedMeta, UnreadableError, read_meta, unreadable
from .shards import joined, sharded

Progress = Callable[[str, int, "int | None"], None]
"""Called with what is being done, how much of it is done, and how much there is, or None if that is not known."""


def no_progress(what: str, done: int, total: int | None) -> None:
    """Show none."""


@dataclass(frozen=True)
class PackedSplit:
    """The memory-mapped arrays of one split; the table in the module's docstring gives shapes and dtypes."""

    name: str
    ids: npt.NDArray[np.int32]
    dense: npt.NDArray[np.float32] | None
    labels: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32] | None
    group: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PackedDataset:
    """An opened packed folder, as `open_packed` and `prepare` return it.

    >>> meta = PackedMeta("shop", ("click",), False, "independent", {"city": 3}, (), None, False, {"train": 1}, {}, {}, {}, 1)
    >>> split = PackedSplit("train", ids=np.array([[2]]), dense=None, labels=np.array([[1.0]]), weight=None, group=None)
    >>> data = PackedDataset(Path("shop"), meta, {"train": split})
    >>> data.meta.tasks, data.split("train").ids.tolist()
    (('click',), [[2]])
    """

    path: Path
    meta: PackedMeta
    splits: Mapping[str, PackedSplit]

    def split(self, name: str) -> PackedSplit:
        """The split "train", "valid" or "test". Raises DataError for another name."""
        if not isinstance(name, str) or name not in self.splits:
            raise DataError(f"data set {self.meta.name!r} has no split {shown(name)}; it has {', '.join(self.splits)}")
        return self.splits[name]


def open_packed(path: str | Path, *, verify: bool = False) -> PackedDataset:
    """Open a packed folder; the arrays are memory-mapped.

    Checks every array's length, dtype and shape against meta.json, and meta.json against its own digest; of a data set in parts the sizes
    of all files, and the rest of a part when it is first read. A damaged file never takes more memory than its size suggests.
    `verify=True` also reads every byte and checks the checksums. Raises DataError that names the file, and its subclass UnreadableError
    where the system does not read it.
    """
    folder = path_of("path", path)
    meta = read_meta(folder / META)
    if meta.shards:
        _check_sizes(folder, meta)
    open_part, splits = _Part(folder, meta), {}
    for split in meta.rows:
        arrays: dict[str, Any] = {
            kind: sharded(meta, split, kind, open_part) if meta.shards else _map(folder / f"{split}.{kind}.npy", DTYPES[kind], shape)
            for kind, shape in meta.arrays(split).items()
        }
        splits[split] = PackedSplit(split, **{kind: arrays.get(kind) for kind in DTYPES})  # type: ignore[arg-type]
    if verify:
        for name, expected in meta.checksums.items():
            found = file_sha256(folder / name)
            if found != expected:
                raise DataError(
                    f"{folder / name} is damaged: sha256 {found}, expected {expected}; delete {folder} and prepare the data again"
                )
    return PackedDataset(folder, meta, splits)


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file, in hex, read in pieces. Raises DataError for a file that cannot be read."""
    hasher = hashlib.sha256()
    try:
        with regular_file(file).open("rb") as stream:
            while chunk := stream.read(1 << 22):
                hasher.update(chunk)
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror or error}; check its permissions and its disk, or name another file"
        ) from error
    return hasher.hexdigest()


class _Part:
    """Opens arrays of the parts of a folder."""

    def __init__(self, folder: Path, meta: PackedMeta) -> None:
        self._folder, self._meta, self._same = folder, meta, set[str]()

    def __call__(self, path: str, split: str, kind: str, rows: int) -> npt.NDArray[Any]:
        part = self._folder / path
        if path not in self._same and file_sha256(part / META) != self._meta.checksums[os.path.join(path, META)]:
            raise DataError(f"{part} is not the part that {self._folder} was made of: it was prepared again; join the folders again")
        self._same.add(path)
        return _map(part / f"{split}.{kind}.npy", DTYPES[kind], (rows, *self._meta.arrays(split)[kind][1:]))


def _check_sizes(folder: Path, meta: PackedMeta) -> None:
    """Raise DataError if the files of the parts are not there, are not read, or are too small for what meta.json says of them."""
    for path, rows in meta.shards.items():
        for split, count in rows.items():
            for kind, shape in meta.arrays(split).items():
                file = folder / path / f"{split}.{kind}.npy"
                least = count * math.prod(shape[1:]) * np.dtype(DTYPES[kind]).itemsize
                try:
                    size = file.stat().st_size if file.is_file() else 0
                except OSError as error:
                    raise unreadable(file, error) from error
                if size <= least:
                    raise DataError(
                        f"{file}, of a part of {folder}, is missing or truncated: it has {size} bytes, expected more than {least}"
                    )


def _map(file: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    remedy = f"delete {file.parent} and prepare the data again"
    try:
        size = regular_file(file).stat().st_size
        if not math.prod(shape):
            return np.empty(shape, dtype)  # an empty array cannot be memory-mapped
        array = npy.open_memmap(file, mode="r")  # `numpy.load` would also read archives
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(f"{file} cannot be opened (missing or truncated): {error.strerror}; {remedy}") from error
    except OSError as error:
        raise unreadable(file, error) from error
    except Exception as error:  # the header is Python text, and NumPy lets through whatever Python's parser raises
        raise DataError(f"{file} cannot be opened (missing or truncated): {one_line(error) or type(error).__name__}; {remedy}") from error
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise DataError(f"{file} holds {array.dtype} {list(array.shape)}, but meta.json states {dtype} {list(shape)}; {remedy}")
    if size != (expected := array.offset + array.nbytes):
        raise DataError(f"{file} cannot be opened (missing or truncated): it has {size} bytes, expected {expected}; {remedy}")
    return array


def join_packed(folders: Sequence[str | Path], output: str | Path) -> PackedDataset:
    """Make one data set of packed folders with the same encoding, whose rows follow one another; nothing is copied.

    `output` becomes a folder with a meta.json that names the parts by their paths from it, so keep them where they are. Raises DataError
    for no folder, one that comes twice or is in parts itself, folders that differ in more than their rows, and an `output` that exists;
    TypeError for `folders` that are one path.
    """
    if isinstance(folders, (str, bytes, os.PathLike)):
        raise TypeError(f"folders={folders!r}: expected a list of paths")
    target = path_of("output", output).resolve()
    if os.path.lexists(target):
        raise DataError(f"{output} exists; delete it, or choose another folder")
    paths = [path_of("folders", folder).resolve() for folder in folders]
    meta = joined((os.path.relpath(path, target), read_meta(path / META), file_sha256(path / META)) for path in paths)
    with writing_packed(target) as beside:
        if (paths[0] / SCHEMA).is_file():
            shutil.copyfile(paths[0] / SCHEMA, beside / SCHEMA)
        write_meta(beside, meta)
    return open_packed(output)


class PackedWriter:
    """Writes the arrays of a packed folder some rows at a time, and meta.json last.

    `meta.checksums` and `meta.digest` are filled in by `finish`.
    """

    def __init__(self, folder: Path, meta: PackedMeta) -> None:
        self._folder, self._meta = folder, meta
        self._arrays = {
            (split, kind): _ArrayWriter(folder / f"{split}.{kind}.npy", DTYPES[kind], shape)
            for split in meta.rows
            for kind, shape in meta.arrays(split).items()
        }

    def append(self, split: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add rows to a split; `arrays` holds them by kind ("ids", "dense", ...)."""
        for kind, array in arrays.items():
            self._arrays[split, kind].append(array)

    def finish(self) -> PackedMeta:
        """Write meta.json, wait until the disk has everything, and return what meta.json holds.

        Every split must have the rows that meta states.
        """
        checksums = {array.file.name: array.finish() for array in self._arrays.values()}
        meta = dataclasses.replace(self._meta, checksums=checksums)
        meta = dataclasses.replace(meta, digest=meta.computed_digest())
        write_meta(self._folder, meta)
        return meta


def write_meta(folder: Path, meta: PackedMeta) -> None:
    """Write meta.json, which a reader finds whole or not at all, and wait until the disk has it."""
    entries = (f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in meta.content().items())
    write_text(folder / META, "{\n" + ",\n".join(entries) + "\n}")  # `indent` would take json's slow encoder


def raw_bytes(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> memoryview:
    """The bytes of an array as `dtype`, row-major."""
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8).data


class _ArrayWriter:
    """An .npy file of known shape that gets its rows piece by piece."""

    def __init__(self, file: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.file, self._dtype, self._left = file, np.dtype(dtype), shape[0]
        header = io.BytesIO()
        npy.write_array_header_1_0(header, {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape})
        file.write_bytes(header.getvalue())
        self._hasher = hashlib.sha256(header.getvalue())

    def append(self, rows: npt.NDArray[Any]) -> None:
        self._left -= len(rows)
        data = raw_bytes(rows, self._dtype)
        with self.file.open("ab") as stream:
            stream.write(data)
        self._hasher.update(data)

    def finish(self) -> str:
        """Wait until the disk has the file, and return its SHA-256."""
        if self._left:
            raise AssertionError(f"{self.file} lacks {self._left} of its rows")
        sync(self.file)
        return self._hasher.hexdigest()


def open_whole(path: Path) -> PackedDataset | None:
    """Open a packed folder; None if it is absent or damaged. Raises UnreadableError for what the system does not read now."""
    try:
        return open_packed(path)
    except UnreadableError:
        raise
    except DataError:
        return None
