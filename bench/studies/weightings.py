"""Does another weighting of the tasks' losses help? ``make study NAME=weightings`` trains with fixed and uncertainty weights, DWA and FAMO.

Each of seven networks of medium size takes the setting that ``make quality`` chose for it on a data set, and changes the weighting alone:
nothing is tuned again around it. It trains by the protocol of bench/quality/ with other seeds, of census-income on every third train row,
and its validation rows are scored; no test row takes part. DWA and FAMO are torchjd's.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Collection, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from dcrnn_fast.training.device import deterministic

from .. import results
from ..quality.data_sets import NAMES as DATA
from ..quality.data_sets import load, thin_census, without_test
from ..quality.models import MODELS
from ..quality.protocol import Protocol, fit, score
from ..quality.weighting import NAMES as WEIGHTINGS
from .study import Content, Rows, Study, Table, seeds_of, standard_error

FOLDER = Path("runs/weightings")
SIZE = "medium"
NETWORKS = ("dcrnn", "dcnv2", "shared-bottom", "mmoe", "ple", "aitm", "esmm")
TITLES = {"fixed": "fixed", "uncertainty": "uncertainty", "dwa": "DWA", "famo": "FAMO"}


def chosen() -> dict[tuple[str, str], dict[str, Any]]:
    """The chosen setting of every network with one loss for all tasks, by data set and model."""
    rows = [row for row in results.read("quality.json")["chosen"] if row["size"] == SIZE]
    return {(row["data"], row["model"]): row["setting"] for row in rows if not MODELS[row["model"]].one_task_each}


def start(options: Namespace) -> None:
    """Encode every data set once, not in every worker."""
    for data in options.data:
        load(data, FOLDER, movielens=options.movielens)


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores on the validation rows. ``setting`` is "model, weighting"."""
    model, weighting = setting.split(", ")
    dataset = thin_census(without_test(load(data, FOLDER, movielens=options.movielens)))
    with deterministic(1):
        keys = chosen()[data, model] | {"weighting": weighting}
        fitted = fit(model, dataset, keys, seed=seed, size=SIZE, protocol=Protocol())
    return {"valid": score(fitted, dataset)}


def minus_fixed(rows: Rows, data: str, models: Collection[str], weighting: str) -> list[float]:
    """By seed, the AUC with a weighting minus that with fixed weights, mean over the models; no seed where training diverged."""
    by_seed: dict[int, list[float]] = {}
    aucs = {(*row["setting"].split(", "), row["seed"]): row["valid"]["auc"] for row in rows if row["data"] == data}
    for (model, name, seed), auc in aucs.items():
        if name == weighting and model in models:
            fixed = aucs[model, "fixed", seed]
            by_seed.setdefault(seed, []).extend([] if auc is None or fixed is None else [auc - fixed])
    return [statistics.fmean(differences) for differences in by_seed.values() if differences]


def cell(differences: Sequence[float]) -> str:
    """The mean, and its standard error in brackets."""
    if len(differences) < 2:
        return "not measured"
    return f"{statistics.fmean(differences):+.4f} ({standard_error(differences):.4f})"


def networks(rows: Rows) -> set[str]:
    return {row["setting"].split(", ")[0] for row in rows}


def tables(content: Content) -> list[Table]:
    """A line for each weighting but the fixed one, of all networks and of DCRNN: AUC minus that of fixed weights on each data set."""
    rows, lines = content["rows"], []
    for weighting, (title, models) in product(WEIGHTINGS[1:], (("all networks", networks(rows)), ("DCRNN", {"dcrnn"}))):
        lines.append([f"{TITLES[weighting]}, {title}", *(cell(minus_fixed(rows, data, models, weighting)) for data in DATA)])
    return [(["AUC minus that of fixed weights", *DATA], lines)]


def note(content: Content) -> str:
    return (
        f"Mean AUC of the tasks on validation rows, mean of {seeds_of(content)} seeds and of {len(networks(content['rows']))} networks "
        "(ESMM on funnels alone) of medium size, with the settings of the comparison; in brackets: the standard error over the seeds."
    )


STUDY = Study(
    "weightings",
    run,
    lambda row: f"AUC {row['valid']['auc'] or 0:.4f}, log loss {row['valid']['log_loss'] or 0:.4f}",
    tables,
    note,
    data=DATA,
    settings=tuple(f"{model}, {weighting}" for model in NETWORKS for weighting in WEIGHTINGS),
    about=lambda options: {"configuration": {"size": SIZE, "settings": "those of quality.json"}},
    first_seed=100,
    fits=lambda data, setting, seed, options: (data, setting.split(", ")[0]) in chosen(),
    start=start,
    quick={"seeds": 1, "data": ["hillstrom"], "settings": ["dcrnn, fixed", "dcrnn, famo"]},
)
