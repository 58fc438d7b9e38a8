"""The packed format: a folder with meta.json and, for each split, .npy files that are memory-mapped on open.

    meta.json
    train.ids.npy     int32   [N, F]    column f in [0, num_embeddings of field f)
    train.dense.npy   float32 [N, Nd]   present when there are dense columns
    train.labels.npy  float32 [N, T]    0, 1, or NaN for unknown
    train.weight.npy  float32 [N]       present when the schema names a weight
    train.group.npy   int64   [N]       present when the schema names a group

meta.json holds the SHA-256 of every array file, and a digest of itself. Needs NumPy and the standard library only.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from ...errors import DataError, shown
from ...support.files import path_of, regular_file
from .meta import DTYPES, PackedMeta, read_meta, unreadable

META = "meta.json"


@dataclass(frozen=True)
class PackedSplit:
    """The memory-mapped arrays of one split; the table in the module's docstring gives shapes and dtypes.

    >>> split = PackedSplit("train", ids=np.array([[1], [2]]), dense=None, labels=np.array([[0.0], [1.0]]), weight=None, group=None)
    >>> len(split)
    2
    """

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

    Checks every array's length, dtype and shape against meta.json, and meta.json against its own digest; a damaged file never takes more
    memory than its size suggests. `verify=True` also reads every byte and checks the checksums. Raises DataError that names the
    file, and its subclass UnreadableError where the system does not read it.
    """
    folder = path_of("path", path)
    meta = read_meta(folder / "meta.json")
    splits = {}
    for split in meta.rows:
        arrays = {kind: _map(folder / f"{split}.{kind}.npy", DTYPES[kind], shape) for kind, shape in meta.arrays(split).items()}
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


def _map(file: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    remedy = f"delete {file.parent} and prepare the data again"
    try:
        with regular_file(file).open("rb") as stream:
            found, by_columns, found_dtype = _header(stream)
            begin, size = stream.tell(), os.fstat(stream.fileno()).st_size
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{file} cannot be opened (missing or truncated): {reason}; {remedy}") from error
    except OSError as error:
        raise unreadable(file, error) from error
    if found_dtype != np.dtype(dtype) or found != shape:
        raise DataError(f"{file} holds {found_dtype} {list(found)}, but meta.json states {dtype} {list(shape)}; {remedy}")
    bytes_expected = begin + math.prod(shape) * found_dtype.itemsize
    if size != bytes_expected:
        raise DataError(f"{file} cannot be opened (missing or truncated): it has {size} bytes, expected {bytes_expected}; {remedy}")
    if not math.prod(shape):
        return np.empty(shape, dtype)  # An empty array cannot be memory-mapped.
    try:
        return np.memmap(file, found_dtype, mode="r", offset=begin, shape=shape, order="F" if by_columns else "C")
    except OSError as error:
        raise unreadable(file, error) from error


def _header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype of an .npy file. `numpy.load` would also read archives, and reserve whatever memory a header asks for."""
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"it is of .npy version {version}, expected (1, 0)")
    try:
        return read(stream)
    except Exception as error:  # The header is Python text, and NumPy lets through whatever Python's parser raises.
        raise ValueError(f"its header is damaged ({type(error).__name__})") from error
