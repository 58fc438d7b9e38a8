"""The edges between which the numeric embeddings are linear, learnt from the train rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...data.build.apply import bucket_edges

MOST_ROWS = 1_000_000
"""Of more rows, evenly spaced ones are taken."""


def dense_edges(dense: npt.NDArray[np.float32], bins: int) -> list[Tensor]:
    """For each dense column of ``dense`` [R, N] the rising edges of at most ``bins`` bins, as float32.

    They are those of :func:`dcrnn_fast.data.codes.quantiles`, by quantiles with frequent values kept apart, between the smallest and the
    largest value. A column of one value gets one bin above it.
    """
    rows = dense[:: -(-len(dense) // MOST_ROWS)]
    return [torch.from_numpy(_edges(rows[:, column].astype(np.float64), bins)) for column in range(dense.shape[1])]


def _edges(values: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.float32]:
    ends = [values.min(), values.max()] if values.min() < values.max() else [values[0], values[0] + 1]
    for buckets in range(bins, 1, -1):
        edges = np.unique(np.concatenate([ends, bucket_edges(values, buckets)]).astype(np.float32))
        if len(edges) <= bins + 1:  # a frequent value can split a bucket in two
            return edges
    return np.unique(np.array(ends, dtype=np.float32))
