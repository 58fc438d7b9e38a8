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

import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..files import sync
from ..locks import locked

FORMAT_VERSION = 1
LOCK = ".lock"
DTYPES = {"ids": "int32", "dense": "float32", "labels": "float32", "weight": "float32", "group": "int64"}


@dataclass(frozen=True)
class PackedMeta:
    """What a packed data set holds.

    `fields` maps each id column, in order, to its number of ids. `vocabulary[field]` holds the text of each id for a categorical field, and
    the rising bucket edges for a numeric one. `scaling[column]` is {"treatment", "mean", "std"} of a dense column. `digest` identifies
    the content: it covers every other entry, and through `checksums` every array.

    >>> meta = PackedMeta(
    ...     name="shop", tasks=("click",), funnel=False, relation="independent", fields={"city": 3}, dense=(), group=None,
    ...     has_weight=False, rows={"train": 8}, vocabulary={"city": ["<oov>", "a", "b"]}, scaling={}, checksums={}, format_version=1,
    ... )
    >>> meta.arrays("train")
    {'ids': (8, 1), 'labels': (8, 1)}
    """

    name: str
    tasks: tuple[str, ...]
    funnel: bool
    relation: str
    fields: dict[str, int]
    dense: tuple[str, ...]
    group: str | None
    has_weight: bool
    rows: dict[str, int]
    vocabulary: dict[str, list[str] | list[float]]
    scaling: dict[str, dict[str, Any]]
    checksums: dict[str, str]
    format_version: int
    digest: str = ""

    def computed_digest(self) -> str:
        """The digest of this content."""
        content = dataclasses.asdict(self)
        del content["digest"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def arrays(self, split: str) -> dict[str, tuple[int, ...]]:
        """The shape that each kind of array must have in `split`."""
        rows = self.rows[split]
        shapes: dict[str, tuple[int, ...]] = {"ids": (rows, len(self.fields)), "labels": (rows, len(self.tasks))}
        if self.dense:
            shapes["dense"] = (rows, len(self.dense))
        if self.has_weight:
            shapes["weight"] = (rows,)
        if self.group is not None:
            shapes["group"] = (rows,)
        return shapes


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
        if name not in self.splits:
            raise DataError(f"data set {self.meta.name!r} has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]


def write_packed(path: Path, meta: PackedMeta, splits: Mapping[str, Mapping[str, npt.NDArray[Any]]]) -> None:
    """Write a packed folder under a temporary name and rename it to `path`; if another process was faster, its folder stays.

    Meanwhile it shares the lock of the folder above, so that `remove_leftovers` spares what is being written. `splits` maps a split to its
    arrays by kind ("ids", "dense", ...). `meta.checksums` and `meta.digest` are filled in here.
    Raises DataError if the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent / LOCK, shared=True, wait=True), _temporary_folder(path) as beside:
            checksums = {}
            for split, arrays in splits.items():
                for kind, array in arrays.items():
                    file = beside / f"{split}.{kind}.npy"
                    np.save(file, np.ascontiguousarray(array, dtype=DTYPES[kind]), allow_pickle=False)
                    sync(file)
                    checksums[file.name] = file_sha256(file)
            meta = dataclasses.replace(meta, checksums=checksums)
            meta = dataclasses.replace(meta, digest=meta.computed_digest())
            text = json.dumps(dataclasses.asdict(meta), indent=1, ensure_ascii=False)
            (beside / "meta.json").write_text(text, encoding="utf-8")
            sync(beside / "meta.json")
            try:
                os.rename(beside, path)
            except OSError:
                if not (path / "meta.json").is_file():
                    raise
    except OSError as error:
        raise DataError(
            f"packed data cannot be written to {path}: {error}; free space, or choose another cache folder (DCRNN_FAST_CACHE)"
        ) from error


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    beside = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    beside.mkdir()
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary folders of killed processes, unless a process writes packed data to `folder` now: the next call does it then."""
    leftovers = list(folder.glob(".*.tmp"))
    if not leftovers:
        return
    with suppress(OSError), locked(folder / LOCK) as nobody_writes:  # whoever may only read the folder leaves them to its owner
        for leftover in leftovers if nobody_writes else ():
            shutil.rmtree(leftover, ignore_errors=True)


def open_packed(path: str | Path, *, verify: bool = False) -> PackedDataset:
    """Open a packed folder; the arrays are memory-mapped.

    Checks every array's length, dtype and shape against meta.json, and meta.json against its own digest. `verify=True` also reads every
    byte and checks the checksums. Raises DataError that names the file.
    """
    folder = Path(path)
    meta = _read_meta(folder / "meta.json")
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
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                hasher.update(chunk)
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror or error}; check its permissions and its disk, or name another file"
        ) from error
    return hasher.hexdigest()


def _read_meta(file: Path) -> PackedMeta:
    remedy = f"delete {file.parent} and prepare the data again"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{file.parent} is no packed data set: it has no meta.json") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}; {remedy}") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{file} has format_version {version!r}, expected {FORMAT_VERSION}; {remedy}")
    try:
        meta = PackedMeta(**{**content, "tasks": tuple(content["tasks"]), "dense": tuple(content["dense"])})
    except (TypeError, KeyError) as error:
        raise DataError(f"{file} lacks an entry or has an unknown one ({error}); {remedy}") from error
    if meta.digest != meta.computed_digest():
        raise DataError(f"{file} does not match its own digest: it was changed after it was written; {remedy}")
    return meta


def _map(file: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    remedy = f"delete {file.parent} and prepare the data again"
    try:
        # An empty array cannot be memory-mapped.
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r" if shape[0] else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be opened (missing or truncated): {error}; {remedy}") from error
    if str(array.dtype) != dtype or array.shape != shape:
        raise DataError(f"{file} holds {array.dtype} {list(array.shape)}, but meta.json states {dtype} {list(shape)}; {remedy}")
    return array
