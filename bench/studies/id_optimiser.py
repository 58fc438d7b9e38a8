"""What are row-wise Adagrad with a prior and four evaluations an epoch worth? ``make study NAME=id_optimiser`` trains with and without.

As in the ablation, every setting is the default configuration but for the keys that it names, and no test row takes part. The data sets are
those of the study of rare ids.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..quality.data_sets import thin_census
from .ablation import DEFAULT, scores, study_of
from .study import packed, trained

ONCE: dict[str, Any] = {"early_stopping.every_steps": 10**9, "early_stopping.patience": 2}
"""At the end of the epoch alone."""
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "AdamW, one evaluation an epoch": {"model.embedding": "dense", **ONCE},
    "AdamW": {"model.embedding": "dense"},
    "one evaluation an epoch": ONCE,
    "embedding_prior 0": {"optimiser.embedding_prior": 0.0},
}


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows, by task."""
    dataset = thin_census(packed(data, seed, options, folder, min_count=1))
    return scores(trained(dataset, seed, SETTINGS[setting], folder), dataset.meta.tasks)


DATA = ("census-income", "hillstrom", "movielens-100k", "id-log", "id-log, new items")
STUDY = study_of("id_optimiser", run, SETTINGS, quick="AdamW", data=DATA)
