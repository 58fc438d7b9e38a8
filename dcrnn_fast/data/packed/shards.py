"""A packed data set in parts: a folder with a meta.json that names other packed folders, whose rows follow one another.

The arrays of a part are mapped when they are first read. Needs NumPy and the standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from .meta import DTYPES, META, PackedMeta

Array = npt.NDArray[Any]
OWN = {"name", "rows", "checksums", "digest"}
"""What each part of a data set has for itself."""


class ShardedArray:
    """An array whose rows lie in several, each opened when it is first read. It is read as an array is; what is read is a copy."""

    def __init__(self, parts: Sequence[Callable[[], Array]], rows: Sequence[int], row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._open, self._parts = list(parts), dict[int, Array]()
        self._ends = np.array(list(accumulate(rows, initial=0)), np.int64)
        self.shape, self.ndim, self.dtype = (int(self._ends[-1]), *row_shape), 1 + len(row_shape), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        """As of an array, by rows or by rows and columns: a slice, a number, or an array of numbers or truths."""
        rows, columns = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop), columns)
            rows = np.arange(start, stop, min(max(step, -len(self) - 1), len(self) + 1))  # int64 holds no step of 2**63
        if isinstance(rows, (int, np.integer)):
            row = range(len(self))[rows]  # which refuses one that is not there
            return self._between(row, row + 1, columns)[0]
        rows = np.asarray(rows)
        if rows.ndim != 1 or rows.dtype.kind not in "biu" or (rows.dtype == bool and len(rows) != len(self)):
            raise IndexError(f"rows are {rows.dtype} {list(rows.shape)}, expected a slice, a number, numbers [R] or truths [{len(self)}]")
        rows = np.flatnonzero(rows) if rows.dtype == bool else np.where(rows < 0, rows + len(self), rows)
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        of_part = np.searchsorted(self._ends, rows, side="right") - 1
        for part in np.unique(of_part).tolist():
            here = of_part == part
            found[here] = self._part(part)[rows[here] - self._ends[part]]
        every = (slice(None), *columns)
        return found[every]

    def _between(self, start: int, stop: int, columns: tuple[Any, ...]) -> Array:
        pieces = []
        for part in range(int(np.searchsorted(self._ends, start, side="right")) - 1, int(np.searchsorted(self._ends, stop))):
            begin = int(self._ends[part])
            here = (slice(max(start - begin, 0), stop - begin), *columns)
            pieces.append(self._part(part)[here])
        every = (slice(None), *columns)
        return np.concatenate(pieces) if pieces else np.empty((0, *self.shape[1:]), self.dtype)[every]

    def _part(self, number: int) -> Array:
        if number not in self._parts:
            self._parts[number] = self._open[number]()
        return self._parts[number]


def joined(parts: Iterable[tuple[str, PackedMeta, str]]) -> PackedMeta:
    """The meta.json of a folder in parts, of their paths from it, their meta.json and its checksum, in the order of their rows.

    Raises DataError for no part, one that comes twice or is in parts itself, and for parts that differ in more than their rows.
    """
    first, first_path, shards, checksums = None, "", dict[str, dict[str, int]](), dict[str, str]()
    for path, meta, checksum in parts:
        if path in shards:
            raise DataError(f"{path} is given twice, expected each part once")
        if meta.shards:
            raise DataError(f"{path} is in parts itself: name these, {', '.join(list(meta.shards)[:3])} and so on")
        if first is None:
            first, first_path = meta, path
        differ = [name for name in vars(first) if name not in OWN and getattr(meta, name) != getattr(first, name)]
        if differ or list(meta.fields) != list(first.fields):
            raise DataError(
                f"{path} and {first_path} differ in {(differ or ['the order of fields'])[0]}: the parts of a data set have one schema and "
                "one encoding, which `prepare` takes as `encoding`"
            )
        shards[path] = meta.rows
        checksums |= {os.path.join(path, name): value for name, value in (meta.checksums | {META: checksum}).items()}
    if first is None:
        raise DataError("no packed folder is given, expected at least one")
    rows = {split: sum(of_part[split] for of_part in shards.values()) for split in first.rows}
    whole = replace(first, rows=rows, checksums=checksums, shards=shards)
    return replace(whole, digest=whole.computed_digest())


def sharded(meta: PackedMeta, split: str, kind: str, open_part: Callable[..., Array]) -> ShardedArray:
    """An array of a folder in parts. ``open_part(path, split, kind, rows)`` opens that of a part."""
    rows = [of_part[split] for of_part in meta.shards.values()]
    parts = [partial(open_part, path, split, kind, count) for path, count in zip(meta.shards, rows, strict=True)]
    return ShardedArray(parts, rows, meta.arrays(split)[kind][1:], np.dtype(DTYPES[kind]))
