"""Which standard deviation should the embeddings start with? ``python -m bench.embedding_start`` trains and compares.

It trains the former default configuration (``ablation.FORMER``) with every standard deviation and seed, on the embedded sets and on two
tables of mostly ids, and scores the kept weights on the *validation* rows. No test row takes part. The rule, set before the first run: of
each run take the log loss of every task over the constant's (the base rate of the train rows, predicted for every row) and average over
the tasks; the default is the standard deviation with the lowest mean over the data sets and seeds.

MovieLens-100K is not part of this package: ``pip download recbole --no-deps`` fetches a wheel that holds it; pass its path as --movielens.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dcrnn_fast.data import known_data_sets, prepare
from dcrnn_fast.training import Report, load_config, train

from . import machine, results
from .ablation import FORMER
from .id_heavy_data import write_log, write_movielens
from .quality.tables import thinned

DEVIATIONS = (8**-0.5, 0.1, 0.05, 0.03, 0.02, 0.01, 0.003, 0.0)
THINNED = {"census-income": 3}
"""Sets so large that the study takes every n-th train row alone."""
PATH = results.COMMITTED / "embedding_start.json"


class Epochs(Report):
    """Collects the validation metrics of every epoch."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def evaluation(self, record: Mapping[str, Any], **of_the_run: Any) -> None:
        if record["step"]:
            self.records.append(record["valid"])


def run(data: str, schema: str, deviation: float, seed: int, folder: Path) -> dict[str, Any]:
    """Train once; of every epoch the means over the tasks (a funnel's conditional is no task) on the validation rows."""
    config = load_config(None, {"data": schema, "seed": seed, "model.embedding_init_std": deviation, **FORMER})
    cache = None if schema in known_data_sets() else folder.parent / "cache"
    dataset = prepare(schema, cache_dir=cache, seed=config.split_seed, valid_fraction=config.valid_fraction)
    report, rows = Epochs(), thinned(dataset.split("train"), THINNED.get(data, 1))
    dataset = dataclasses.replace(dataset, splits=dict(dataset.splits) | {"train": rows})
    valid = train(config, folder, dataset=dataset, report=report)["valid"]
    epochs = []
    for record in report.records:
        of_constant = [record[task]["log_loss"] / valid[task]["constant_log_loss"] for task in dataset.meta.tasks]
        means = {name: statistics.fmean(record[task][name] for task in dataset.meta.tasks) for name in ("auc", "log_loss")}
        epochs.append(means | {"relative_log_loss": statistics.fmean(of_constant), "worst_task": max(of_constant)})
    return {"data": data, "std": deviation, "seed": seed, "epochs": epochs}


def best_epoch(row: Mapping[str, Any], monitor: str) -> dict[str, float]:
    """The epoch that early stopping keeps."""
    better = max if monitor == "auc" else min
    return better(row["epochs"], key=lambda epoch: epoch[monitor])


def summarise(rows: Iterable[Mapping[str, Any]], monitor: str, name: str) -> dict[str, dict[float, float]]:
    """Of each data set, and of their mean, one number of the kept epochs for each standard deviation: its mean over the seeds."""
    seeds: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        seeds.setdefault(row["data"], {}).setdefault(row["std"], []).append(best_epoch(row, monitor)[name])
    means = {data: {std: statistics.fmean(values) for std, values in of_data.items()} for data, of_data in seeds.items()}
    tried = next(iter(means.values()))
    return means | {"mean": {std: statistics.fmean(of_data[std] for of_data in means.values()) for std in tried}}


def tables(movielens: Path | None, seeds: int, folder: Path) -> dict[str, list[str]]:
    """The schema of each data set, for each seed. MovieLens-100K is left out, with a message, if its file is absent."""
    sets = {
        "id-log": [write_log(seed, folder) for seed in range(seeds)],
        "id-log, min_count 1": [write_log(seed, folder, min_count=1) for seed in range(seeds)],
    }
    if movielens and movielens.is_file():
        sets["movielens-100k"] = [write_movielens(movielens, folder)] * seeds
    else:
        print(f"without MovieLens-100K: --movielens {movielens} is no file; give the RecBole wheel", flush=True)
    return sets | {"hillstrom": ["hillstrom"] * seeds, "census-income": ["census-income"] * -(-seeds // 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=Path, help="the RecBole wheel; without it, MovieLens-100K is left out")
    parser.add_argument("--seeds", type=int, default=6, help="seeds of each data set; the large census-income gets half as many")
    parser.add_argument("--data", nargs="*", help="only these data sets; the rows of the others stay as they are")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = tables(arguments.movielens, arguments.seeds, folder)
        chosen = arguments.data or list(sets)
        rows = [row for row in results.rows_of_this_machine(PATH) if row["data"] not in chosen]
        for data in chosen:
            for seed, schema in enumerate(sets[data]):
                for deviation in DEVIATIONS:
                    row = run(data, schema, deviation, seed, folder / f"run-{len(rows)}")
                    rows.append(row)
                    shown = ", ".join(f"{epoch['auc']:.4f} {epoch['relative_log_loss']:.4f}" for epoch in row["epochs"])
                    print(f"{data}, seed {seed}, std {deviation:.3f}: AUC and relative log loss by epoch {shown}", flush=True)
    configuration = load_config(None, {"data": "each of them", **FORMER}).to_dict()
    results.write(PATH, {"machine": machine.description(), "configuration": configuration, "rows": rows})
    for monitor in ("auc", "log_loss"):
        for data, of_data in summarise(rows, monitor, "relative_log_loss").items():
            numbers = ", ".join(f"std {std:.3f} {value:.4f}" for std, value in of_data.items())
            print(f"early_stopping.monitor {monitor}, relative log loss on {data}: {numbers}")
    print(f"written to {PATH}")


if __name__ == "__main__":
    main()
