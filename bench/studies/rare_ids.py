"""What do rare ids gain from the first-order term and `min_count: 1`, and how strong should OOV dropout be? ``make study NAME=rare_ids``.

"OOV dropout at least 1" and the like are `oov_dropout: auto` with another least strength. As in the ablation, every setting is the default
configuration but for what it names, no test row takes part, and a default should have the lowest log loss over the constant's, averaged
over tasks, seeds and data sets.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any
from unittest import mock

from dcrnn_fast.data.inspect import oov

from ..quality.data_sets import thin_census
from .ablation import DEFAULT, scores, study_of
from .small_tables import LOGS, small
from .study import packed, trained

LEAST = {f"OOV dropout at least {least:g}": least for least in (1.0, 3.0, 30.0, 100.0)}
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    **{setting: {} for setting in LEAST},
    "no OOV dropout": {"oov_dropout": 0.0},
    "no first-order term": {"model.first_order": False},
    "min_count 5": {"min_count": 5},
}
DATA = ("census-income", "hillstrom", "movielens-100k", "id-log", "id-log, new items", "id-log, 14,000 rows")


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows, by task."""
    keys = dict(SETTINGS[setting])
    min_count = keys.pop("min_count", 1)
    dataset = small(data, seed, options, folder, min_count) if data in LOGS else packed(data, seed, options, folder, min_count=min_count)
    with mock.patch.object(oov, "LEAST", LEAST.get(setting, oov.LEAST)):
        found = trained(thin_census(dataset), seed, keys, folder)
    return {"oov_dropout": found["train"]["oov_dropout"], **scores(found, dataset.meta.tasks)}


STUDY = study_of("rare_ids", run, SETTINGS, quick="no first-order term", data=DATA)
