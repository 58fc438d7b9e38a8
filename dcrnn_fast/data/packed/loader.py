"""Batches from a packed split, in an order that depends on (seed, epoch) alone, so that training can resume at any batch.

A block is `block_rows` consecutive rows. An epoch permutes the blocks, reads `window_blocks` of them at a time into memory (a window),
and permutes the rows of each window. Needs NumPy and PyTorch only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import DataError, shown
from ...support.checks import check_count, check_flag
from .arrays import PackedSplit

if TYPE_CHECKING:
    import torch


class Batch(NamedTuple):
    """The tensors of some rows; see :class:`BlockLoader` for an example.

    `ids` [B, F] int64; `dense` [B, Nd] float32 or None; `labels` [B, T] float32, NaN where unknown; `weight` [B] float32 or None.
    """

    ids: torch.Tensor
    dense: torch.Tensor | None
    labels: torch.Tensor
    weight: torch.Tensor | None


class BlockLoader:
    """Batches of a split; the last one may be short. `len(loader)` is the number of batches in an epoch.

    It holds about two windows in memory, of `block_rows * window_blocks` rows each. Rows mix only inside a window: use small blocks and a
    large window for a split that is sorted by time or user.

    With `shards` above 1, several processes read one order together: `batch_size` counts the rows of all, and the process `shard`, in
    [0, shards), gets its part of every batch. The parts in the order of their shards are the batch. Their sizes differ by one row at most,
    so a part of a batch with fewer rows than shards may be empty. See :func:`part_of`.

    Raises DataError for an empty split, ValueError for a size below 1, a negative seed or a shard outside its range, and TypeError for an
    argument of another type.

    >>> split = PackedSplit("train", np.array([[1, 0], [2, 3], [0, 1]]), None, np.array([[0.0], [1.0], [0.0]]), None, None)
    >>> loader = BlockLoader(split, batch_size=2)
    >>> len(loader), [batch.ids.tolist() for batch in loader.batches(epoch=0)]
    (2, [[[1, 0], [2, 3]], [[0, 1]]])
    >>> [batch.ids.tolist() for batch in BlockLoader(split, batch_size=2, shards=2, shard=1).batches()]
    [[[2, 3]], [[0, 1]]]
    """

    def __init__(
        self,
        split: PackedSplit,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        block_rows: int = 4096,
        window_blocks: int = 64,
        shards: int = 1,
        shard: int = 0,
    ) -> None:
        if not isinstance(split, PackedSplit):
            raise DataError(f"split is {shown(split)}, expected a PackedSplit, such as prepare(...).split('train')")
        sizes = {"batch_size": batch_size, "block_rows": block_rows, "window_blocks": window_blocks, "shards": shards}
        for name, value in sizes.items():
            check_count(name, value)
        check_count("seed", seed, minimum=0)
        check_count("shard", shard, minimum=0, maximum=shards - 1)
        check_flag("shuffle", shuffle)
        if len(split) == 0:
            raise DataError(f"split {split.name!r} is empty; a loader needs at least one row (for valid: a valid_fraction above 0)")
        self.split, self._columns = split, (split.ids, split.dense, split.labels, split.weight)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.block_rows = min(block_rows, len(split))
        self.window_blocks = window_blocks
        self.shards, self.shard = shards, shard

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `start` on. Reading starts at the window that holds batch `start`.

        Raises ValueError for a negative epoch or a start outside [0, len(self)].
        """
        check_count("epoch", epoch, minimum=0)
        check_count("start", start, minimum=0, maximum=len(self))
        return self._generate(epoch, start)

    def no_rows(self) -> Batch:
        """A batch of the split's columns without a row."""
        return _batch([None if column is None else np.empty((0, *column.shape[1:]), column.dtype) for column in self._columns])

    def _generate(self, epoch: int, start: int) -> Iterator[Batch]:
        windows = self._windows(epoch)
        ends = np.cumsum([int((window[:, 1] - window[:, 0]).sum()) for window in windows])
        row = min(start * self.batch_size, len(self.split))
        number, begins = int(np.searchsorted(ends, row, side="right")), [0, *ends.tolist()]
        held, at = list[Any](), int(np.count_nonzero(self._own(begins[number], row)))
        for batch in range(start, len(self)):
            part = part_of(min(self.batch_size, len(self.split) - batch * self.batch_size), self.shards, self.shard)
            stop = at + part.stop - part.start
            while not held or stop > len(held[0]):
                more = self._read(windows[number], epoch, number, begins[number])
                if held:
                    more = [None if b is None else np.concatenate([a[at:], b]) for a, b in zip(held, more, strict=True)]
                    at, stop = 0, stop - at
                held, number = more, number + 1
            yield _batch([None if a is None else a[at:stop] for a in held])
            at = stop

    def _windows(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """The [begin, end) rows of the blocks of each window, in reading order."""
        begins = np.arange(0, len(self.split), self.block_rows, dtype=np.int64)
        if self.shuffle:
            begins = np.random.default_rng([self.seed, epoch]).permutation(begins)
        blocks = np.stack([begins, np.minimum(begins + self.block_rows, len(self.split))], axis=1)
        return [blocks[i : i + self.window_blocks] for i in range(0, len(blocks), self.window_blocks)]

    def _read(self, window: npt.NDArray[np.int64], epoch: int, number: int, begin: int) -> list[Any]:
        """This shard's rows of a window, which starts at row `begin` of the order."""
        rows = int((window[:, 1] - window[:, 0]).sum())
        own = self._own(begin, begin + rows)
        places = np.where(own, np.cumsum(own) - 1, -1)
        if self.shuffle:
            places = places[np.random.default_rng([self.seed, epoch, number + 1]).permutation(rows)]
        return [None if column is None else _gather(column, window, places) for column in self._columns]

    def _own(self, begin: int, end: int) -> npt.NDArray[np.bool_]:
        """Which of these rows of the order belong to this shard, by :func:`part_of`."""
        batch, within = np.divmod(np.arange(begin, end), self.batch_size)
        size = np.minimum(self.batch_size, len(self.split) - batch * self.batch_size)
        return (within >= size * self.shard // self.shards) & (within < size * (self.shard + 1) // self.shards)


def part_of(rows: int, shards: int, shard: int) -> slice:
    """The rows of `range(rows)` that belong to one of `shards` parts, which are as equal as can be and follow one another."""
    return slice(rows * shard // shards, rows * (shard + 1) // shards)


def _gather(column: npt.NDArray[Any], window: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Copy each row of a window that has a place to that place; `places` has one for each row, in the order of the split."""
    out = np.empty((int((places >= 0).sum()), *column.shape[1:]), dtype=column.dtype)
    at = 0
    for begin, end in window:
        place = places[at : at + int(end - begin)]
        own = np.flatnonzero(place >= 0)
        out[place[own]] = column[begin:end][own]
        at += int(end - begin)
    return out


def _batch(arrays: list[Any]) -> Batch:
    import torch  # here: what encodes tables imports this package, and PyTorch takes a second

    ids, dense, labels, weight = arrays
    return Batch(
        # NumPy widens in the calling thread; PyTorch would use its thread pool and compete with the training step.
        torch.from_numpy(ids.astype(np.int64)),
        None if dense is None else torch.from_numpy(dense),
        torch.from_numpy(labels),
        None if weight is None else torch.from_numpy(weight),
    )
