"""Out-of-vocabulary dropout: in training, a rare id is now and then read as id 0, so that the row of unseen ids is learnt too."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...data import PackedDataset
from ...data.packed.meta import OOV
from ...support.model_inputs import table_rows


class OOVDropout:
    """Reads an id that the train rows hold ``n`` times as out of vocabulary with probability ``alpha / (alpha + n)``.

    This is the word dropout of Kiperwasser and Goldberg (2016), section 4. An id that is seen once is replaced often, one that is seen a
    thousand times hardly ever; each id adds about ``alpha`` reads of the out-of-vocabulary row to an epoch. What fields that share their
    embeddings hold counts together. Bucketed fields, whose id 0 means missing, are left as they are.

    Args:
        dataset: its train rows give the counts.
        alpha: at least 0.
        device: where the ids will be.
    """

    def __init__(self, dataset: PackedDataset, alpha: float, device: torch.device) -> None:
        meta, ids = dataset.meta, dataset.split("train").ids
        rows, offsets = table_rows(list(meta.fields), list(meta.fields.values()), meta.shared)
        counts, categorical = np.zeros(rows), np.zeros(rows, dtype=bool)
        for column, (start, (field, size)) in enumerate(zip(offsets, meta.fields.items(), strict=True)):
            counts[start : start + size] += np.bincount(ids[:, column], minlength=size)[:size]
            categorical[start : start + size] = meta.vocabulary[field][:1] == [OOV]
        probability = np.where(categorical, alpha / (alpha + counts), 0) if alpha else np.zeros(rows)
        self.probability = torch.from_numpy(probability.astype(np.float32)).to(device)
        self.offsets = torch.tensor(offsets, dtype=torch.int64, device=device)

    def __call__(self, ids: Tensor) -> Tensor:
        """``ids`` int64 [B, F]; an id that this step reads as out of vocabulary becomes 0."""
        drop = torch.rand(ids.shape, device=ids.device) < self.probability[ids + self.offsets]
        return ids.masked_fill(drop, 0)
