"""Out-of-vocabulary dropout: in training, an id is now and then read as id 0, so that the embedding of unseen ids is learnt too."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...data import PackedDataset
from ...data.inspect.oov_dropout import categorical_columns, dropped, id_counts, oov_strengths


class OOVDropout:
    """Reads an id that the train rows hold ``n`` times as out of vocabulary with probability ``strength / (strength + n)``.

    This is the word dropout of Kiperwasser and Goldberg (2016), section 4. An id that is seen once is replaced often, one that is seen a
    thousand times hardly ever; each id adds about ``strength`` reads of the out-of-vocabulary row to an epoch. What fields that share
    their embeddings hold counts together. Bucketed and hashed fields, whose id 0 means missing, are left as they are.

    ``"auto"`` gives each field the strength with which training reads as many of its cells as unseen as the validation rows hold, but at
    least 1: a model is trained as it will be asked. In a split by time most users or items may be new; in a random split few are.

    Args:
        dataset: its train rows give the counts, and its validation rows the part that is unseen.
        strength: at least 0, of each field; or "auto".
        device: where the ids will be.

    ``strengths`` has the strength of each categorical field; of a field with several values, that of all its columns.
    """

    def __init__(self, dataset: PackedDataset, strength: float | Literal["auto"], device: torch.device) -> None:
        meta, (_, alike) = dataset.meta, id_counts(dataset.split("train"), dataset.meta)
        columns = categorical_columns(meta)
        self.strengths = oov_strengths(dataset) if strength == "auto" else dict.fromkeys(columns, float(strength))
        probability = [np.zeros(size) for size in meta.fields.values()]
        for field, positions in columns.items():
            for column in positions:
                probability[column][1:] = dropped(self.strengths[field], alike[column][1:])
        self.probability = torch.from_numpy(np.concatenate([*probability, np.zeros(0)]).astype(np.float32)).to(device)
        self.offsets = torch.tensor(np.cumsum([0, *meta.fields.values()])[:-1], dtype=torch.int64, device=device)

    def __call__(self, ids: Tensor) -> Tensor:
        """``ids`` int64 [B, F]; an id that this step reads as out of vocabulary becomes 0."""
        drop = torch.rand(ids.shape, device=ids.device) < self.probability[ids + self.offsets]
        return ids.masked_fill(drop, 0)

    def in_words(self) -> str:
        """The fields whose strength is above 1, for a person; empty if none is."""
        strong = [f"{field} {strength:.3g}" for field, strength in self.strengths.items() if strength > 1]
        return f"OOV dropout is above 1 where validation rows hold many ids that no train row has: {', '.join(strong)}" if strong else ""
