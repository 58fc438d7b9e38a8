"""Of each categorical field, how many cells the validation rows hold that no train row has, and the OOV dropout that prepares for them.

Needs NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...support.model_inputs import table_rows
from ..packed.arrays import PackedDataset, PackedSplit
from ..packed.meta import OOV, PackedMeta
from .oov import BLOCK_ROWS

MOST = 0.95
"""The largest part of a field's cells that training is let read as unseen."""

Counts = npt.NDArray[np.int64]


def categorical_columns(meta: PackedMeta) -> dict[str, list[int]]:
    """The fields whose ids are categories, with the positions of their columns."""
    pool_of = {column: name for name, pool in meta.pooled.items() for column in pool["columns"]}
    found: dict[str, list[int]] = {}
    for position, column in enumerate(meta.fields):
        if meta.vocabulary.get(column, [])[:1] == [OOV]:
            found.setdefault(pool_of.get(column, column), []).append(position)
    return found


def id_counts(train: PackedSplit, meta: PackedMeta) -> tuple[list[Counts], list[Counts]]:
    """By column, how often the train rows hold each id in it, and in all columns that share its embeddings."""
    sizes = list(meta.fields.values())
    own = [np.bincount(train.ids[:, column], minlength=size)[:size] for column, size in enumerate(sizes)]
    rows, starts = table_rows(list(meta.fields), sizes, meta.shared)
    together = np.zeros(rows, dtype=np.int64)
    for start, counts in zip(starts, own, strict=True):
        together[start : start + len(counts)] += counts
    return own, [together[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def oov_strengths(data: PackedDataset) -> dict[str, float]:
    """By categorical field, the strength with which OOV dropout reads as many train cells as unseen as the validation rows hold.

    OOV dropout reads an id that the train rows hold ``n`` times as unseen with probability ``strength / (strength + n)``. The strength is
    at least 1, and at most such that 95% of the cells are read as unseen.
    """
    own, alike = id_counts(data.split("train"), data.meta)
    found = {}
    for field, columns in categorical_columns(data.meta).items():
        unseen = 0 if field in data.meta.pooled else int(own[columns[0]][0])
        counts = [np.concatenate([counts[column][1:] for column in columns]) for counts in (own, alike)]
        found[field] = solve(counts[0], counts[1], unseen, unseen_part(data.split("valid"), columns))
    return found


def dropped(strength: float, counts: Counts) -> npt.NDArray[np.float64]:
    """The probability with which an id that occurs so often is read as unseen."""
    return strength / np.maximum(strength + counts, 1e-30)


def solve(own: Counts, alike: Counts, unseen: int, wanted: float) -> float:
    """The least strength of at least 1 with which training reads the part ``wanted`` of a field's cells as unseen.

    ``own`` has how often the field holds each id, ``alike`` how often all fields that share its embeddings do, and ``unseen`` how many of
    its cells are out of vocabulary anyway.

    >>> round(solve(np.array([10, 1, 1]), np.array([10, 1, 1]), 0, 0.5), 2)
    7.36
    >>> solve(np.array([10, 1, 1]), np.array([10, 1, 1]), 0, 0.01)
    1.0
    """
    wanted = min(wanted, MOST) * (int(own.sum()) + unseen)
    low, high = 1.0, 1.0
    if not own.sum():
        return low

    def read(strength: float) -> float:
        return unseen + float((own * dropped(strength, alike)).sum())

    while read(high) < wanted and high < 1e9:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if read(middle) < wanted else (low, middle)
    return high


def unseen_part(split: PackedSplit, columns: Sequence[int]) -> float:
    """The part of a field's cells in a split that is out of vocabulary.

    A field with several values holds no value and an unseen one as id 0 alike. There the cells before a row's last known value count: none
    of them is empty.
    """
    unseen = cells = 0
    for start in range(0, len(split), BLOCK_ROWS):
        block = np.asarray(split.ids[start : start + BLOCK_ROWS])[:, columns]
        if len(columns) == 1:
            counted = np.ones(block.shape, dtype=bool)
        else:
            known_later = np.logical_or.accumulate(block[:, :0:-1] != 0, axis=1)[:, ::-1]
            block, counted = block[:, :-1], known_later
        unseen += int(np.count_nonzero((block == 0) & counted))
        cells += int(np.count_nonzero(counted))
    return unseen / cells if cells else 0.0
