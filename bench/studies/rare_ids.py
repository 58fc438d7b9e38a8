"""What do rare ids gain from the first-order term, from `min_count: 1` and from `oov_dropout: auto`? ``make study NAME=rare_ids``.

As in the ablation, every setting is the default configuration but for the keys that it names, no test row takes part, and a default should
have the lowest log loss over the constant's, averaged over tasks, seeds and data sets.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..quality.data_sets import thin_census
from .ablation import DEFAULT, scores, study_of
from .study import packed, trained

FORMER = "min_count 5, OOV dropout 1, no first-order term"
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "no first-order term": {"model.first_order": False},
    "min_count 5": {"min_count": 5},
    "OOV dropout 1": {"oov_dropout": 1.0},
    FORMER: {"min_count": 5, "oov_dropout": 1.0, "model.first_order": False},
    "first_order_lr 0.05": {"optimiser.first_order_lr": 0.05},
    "first_order_lr 0.2": {"optimiser.first_order_lr": 0.2},
    "first_order_weight_decay 0.1": {"optimiser.first_order_weight_decay": 0.1},
    "sparse embeddings": {"model.embedding": "sparse"},
}
DATA = ("census-income", "hillstrom", "movielens-100k", "id-log", "id-log, new items")


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows, by task."""
    keys = dict(SETTINGS[setting])
    dataset = thin_census(packed(data, seed, options, folder, min_count=keys.pop("min_count", 1)))
    found = trained(dataset, seed, keys, folder)
    return {"oov_dropout": found["train"]["oov_dropout"], **scores(found, dataset.meta.tasks)}


STUDY = study_of("rare_ids", run, SETTINGS, quick="no first-order term", data=DATA)
