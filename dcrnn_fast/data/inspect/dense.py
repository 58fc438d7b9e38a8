"""The dense columns of a split in four numbers, and a warning of a column without values. Needs NumPy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..packed.arrays import PackedSplit
from .oov import BLOCK_ROWS, MIN_ROWS


def dense_moments(split: PackedSplit) -> list[dict[str, float | None]]:
    """The `mean`, `std`, `min` and `max` of each dense column, all None if the split has no rows. Reads blocks of rows.

    >>> split = PackedSplit("train", np.zeros((2, 1)), np.array([[1.0], [3.0]]), np.zeros((2, 1)), None, None)
    >>> dense_moments(split)
    [{'mean': 2.0, 'std': 1.0, 'min': 1.0, 'max': 3.0}]
    """
    if split.dense is None:
        return []
    width = split.dense.shape[1]
    if not len(split):
        return [dict.fromkeys(("mean", "std", "min", "max"))] * width
    sums, squares, low, high = np.zeros(width), np.zeros(width), np.full(width, np.inf), np.full(width, -np.inf)
    for start in range(0, len(split), BLOCK_ROWS):
        block = np.asarray(split.dense[start : start + BLOCK_ROWS], dtype=np.float64)
        sums, squares = sums + block.sum(axis=0), squares + (block * block).sum(axis=0)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    mean = sums / len(split)
    std = np.sqrt(np.maximum(squares / len(split) - mean * mean, 0))
    return [{"mean": float(mean[c]), "std": float(std[c]), "min": float(low[c]), "max": float(high[c])} for c in range(width)]


def empty_columns(dense: Mapping[str, Mapping[str, Mapping[str, float | None]]], split: str, rows: int) -> list[str]:
    """A warning of one line for every dense column that is 0 on all rows of a split, and not in train. `dense` is by column and split.

    A missing value becomes 0, the mean of the train rows; that all values of a filled column lie there is unlikely. Fewer than 20 rows
    give no warning.

    >>> empty_columns({"price": {"train": {"min": -1.0, "max": 2.0}, "test": {"min": 0.0, "max": 1.0}}}, "test", 500)
    []
    """
    empty = [
        column
        for column, by_split in (dense.items() if rows >= MIN_ROWS else ())
        if by_split[split]["min"] == by_split[split]["max"] == 0 and any(by_split.get("train", {}).values())
    ]
    return [
        f"dense column {column!r}: all {split} rows are 0, as a missing value is, and the train rows are not: there the column tells the "
        "model nothing; check that the file fills it, and how it writes missing values"
        for column in empty
    ]
