"""What the train rows say of a model before its first step: edges of the numeric embeddings, and dropout of ids."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...data import PackedDataset
from ...data.codes.numbers import bucket_edges
from ...data.inspect.oov import LEAST, categorical_columns, dropped, id_counts, oov_strengths
from ...data.inspect.repeats import NEARLY_UNIQUE, unique_fields

MOST_ROWS = 1_000_000
"""Rows from which edges are learnt at most; of more rows, evenly spaced ones are taken."""


def dense_edges(dense: npt.NDArray[np.float32], bins: int) -> list[Tensor]:
    """For each dense column of ``dense`` [R, N] the rising edges of at most ``bins`` bins, as float32, from the least to the largest value.

    Between them they are those of :func:`dcrnn_fast.data.codes.numbers.bucket_edges`. A column of one value gets one bin above it.
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


class OOVDropout:
    """Reads an id that the train rows hold ``n`` times as out of vocabulary with probability ``strength / (strength + n)``.

    This is the word dropout of Kiperwasser and Goldberg (2016), section 4. What fields that share their embeddings hold counts together,
    and so do the ``reads`` [rows of the table] of earlier runs. Bucketed and hashed fields, whose id 0 means missing, are left as they are.

    With ``"auto"``, training reads as many cells as unseen as the validation rows hold. ``strengths`` has the strength of each categorical
    field; of a field with several values, that of all its columns.
    """

    def __init__(
        self, dataset: PackedDataset, strength: float | Literal["auto"], device: torch.device, reads: Tensor | None = None
    ) -> None:
        meta, rows = dataset.meta, dataset.split("train")
        counts = id_counts(rows, meta, None if reads is None else reads.numpy())
        columns, self.unique = categorical_columns(meta), unique_fields(meta, counts)
        self.strengths = oov_strengths(dataset, counts) if strength == "auto" else dict.fromkeys(columns, float(strength))
        probability = [np.zeros(size) for size in meta.fields.values()]
        for field, positions in columns.items():
            for column in positions:
                probability[column][1:] = dropped(self.strengths[field], counts[1][column][1:])
        self.probability = torch.from_numpy(np.concatenate([*probability, np.zeros(0)]).astype(np.float32)).to(device)
        self.offsets = torch.tensor(np.cumsum([0, *meta.fields.values()])[:-1], dtype=torch.int64, device=device)

    def __call__(self, ids: Tensor) -> Tensor:
        """``ids`` int64 [B, F]; an id that this step reads as out of vocabulary becomes 0."""
        drop = torch.rand(ids.shape, device=ids.device) < self.probability[ids + self.offsets]
        return ids.masked_fill(drop, 0)

    def in_words(self) -> str:
        """The fields whose strength is above the least, for a person; empty if none is."""
        strong = [f"{field} {strength:.3g}" for field, strength in self.strengths.items() if strength > LEAST]
        where = f"OOV dropout is above {LEAST:g} where validation rows hold many ids that no train row has"
        unique = "".join(f"; {field} is {NEARLY_UNIQUE}" for field in self.unique if self.strengths.get(field, 0.0) > LEAST)
        return f"{where}: {', '.join(strong)}{unique}" if strong else ""
