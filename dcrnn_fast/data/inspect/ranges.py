"""The range of a dense column's values in the train rows: by it, whoever scores notices prices in cents. Needs NumPy only."""

from __future__ import annotations

import numpy as np

from ..packed.arrays import PackedSplit
from ..packed.meta import PackedMeta

ROWS = 100_000
"""Rows, spread evenly over all, that are asked."""


def dense_ranges(split: PackedSplit, meta: PackedMeta) -> dict[str, list[float]]:
    """By dense column, the 1% and the 99% quantile of its values, scaled as a model reads them.

    A missing value is the mean, which is 0: zeros do not count, unless there is nothing else.

    >>> meta = PackedMeta("shop", ("click",), False, "independent", {}, ("price",), None, False, {"train": 4}, {}, {}, {}, 1)
    >>> dense = np.array([[0.0], [-1.0], [0.5], [2.0]], np.float32)
    >>> dense_ranges(PackedSplit("train", np.zeros((4, 0), np.int32), dense, np.zeros((4, 1), np.float32), None, None), meta)
    {'price': [-1.0, 2.0]}
    """
    if split.dense is None or not len(split):
        return {}
    asked = np.array(split.dense[:: -(-len(split) // ROWS)])
    found = {}
    for name, column in zip(meta.dense, asked.T, strict=True):
        values = column[column != 0] if column.any() else column
        found[name] = [float(np.quantile(values, 0.01, method="lower")), float(np.quantile(values, 0.99, method="higher"))]
    return found
