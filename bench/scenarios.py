"""What do scenarios buy? ``make scenarios`` compares three ways to serve several: one model for all rows, one model with a trunk for each
scenario (``model.scenario``), and one model a scenario.

Two kinds of data. census-income (of 70% of its train rows every third; the others are the validation rows) has ``citizenship`` as the
scenario: five values, of which the largest has 89% of the rows. In tables drawn from a known model (bench/scenario_data.py), five channels
differ a little (their effects have a cosine of 0.8) or much (0.2). Each seed takes other rows and other weights.

All settings are the default configuration but for the keys that they name and for the learning rate, 0.003 as it was by default then. Early
stopping keeps the weights with the lowest log loss on the validation rows, which are also those that are scored. A model a scenario trains
and stops by the rows of its scenario, for as many steps as the one model: its epochs and its patience are longer. No test row takes part.

Scores are of all validation rows, of those of rare scenarios (less than 5% of the train rows each), and of each scenario. A last score
reads the rows of rare scenarios as unknown (id 0 in the column), as it would a new value. Runs that are in the results are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dcrnn_fast.data import PackedDataset, PackedSplit, prepare
from dcrnn_fast.training import load_config, load_model, train
from dcrnn_fast.training.evaluate.metrics import task_metrics
from dcrnn_fast.training.evaluate.predict import predict_split

from . import results
from .quality.tables import ARRAYS, thinned
from .scenario_data import write_scenarios

PATH = results.COMMITTED / "scenarios.json"
DATA = {"census-income": "citizenship", "drawn, cosine 0.8": "channel", "drawn, cosine 0.2": "channel"}
"""The data sets, each with the field whose values are its scenarios."""
THINNED, VALID, RARE = 3, 0.3, 0.05
BASE = {"optimiser.lr": 0.003}
TRUNK = {"model.sharing": "trunk"}
ONE, EACH = "one model", "a model a scenario"
SETTINGS: dict[str, dict[str, Any]] = {
    ONE: TRUNK,
    "one model, share_ratio 0.75": TRUNK | {"model.share_ratio": 0.75},
    "scenario trunks": TRUNK | {"model.scenario": None},
    "scenario trunks, scenario_ratio 0.1": TRUNK | {"model.scenario": None, "model.scenario_ratio": 0.1},
    EACH: TRUNK,
}
"""The keys of each setting. ``model.scenario`` becomes the data set's field."""
COMPARED = ("all rows", "rare scenarios", "rare, as unknown")


def chosen(split: PackedSplit, rows: np.ndarray) -> PackedSplit:
    """The rows of a split for which a mask is true."""
    return replace(split, **{name: None if (values := getattr(split, name)) is None else np.asarray(values)[rows] for name in ARRAYS})


def scenarios_of(split: PackedSplit, column: int) -> np.ndarray:
    """Each row's scenario."""
    return np.asarray(split.ids[:, column])


def trained(dataset: PackedDataset, config: Mapping[str, Any], folder: Path) -> tuple[torch.nn.Module, int]:
    """A model trained on the data set's train rows, and its number of parameters. The validation rows stand for the test rows."""
    dataset = replace(dataset, splits=dict(dataset.splits) | {"test": replace(dataset.split("valid"), name="test")})
    found = train(load_config(None, config), folder, dataset=dataset)
    return load_model(folder / "model.safetensors")[0], found["model"]["parameters"]


def as_many_steps(rows: int, of_all: int) -> dict[str, int]:
    """The keys with which a run on some of the rows takes as many steps as one on all of them, and is as patient."""
    defaults = load_config(None, {"data": "each of them"})
    batch, epochs = defaults.optimiser.batch_size, defaults.optimiser.epochs
    longer = math.ceil(of_all / batch) / math.ceil(rows / batch)
    return {"optimiser.epochs": round(epochs * longer), "early_stopping.patience": round(defaults.early_stopping.patience * longer)}


def predictions(models: Mapping[int | None, torch.nn.Module], split: PackedSplit, column: int) -> dict[str, np.ndarray]:
    """Each task's probabilities [rows]. A model a scenario predicts the rows of its scenario; those of no model stay NaN."""
    if None in models:
        return predict_split(models[None], split, torch.device("cpu"))
    found: dict[str, np.ndarray] = {}
    for scenario, model in models.items():
        rows = scenarios_of(split, column) == scenario
        for name, values in predict_split(model, chosen(split, rows), torch.device("cpu")).items():
            found.setdefault(name, np.full(len(split), np.nan, np.float32))[rows] = values
    return found


def scores(predicted: Mapping[str, np.ndarray], split: PackedSplit, rows: np.ndarray, dataset: PackedDataset) -> dict[str, Any]:
    """Rows, positives, AUC and log loss of each task over some rows."""
    of_rows = {name: values[rows] for name, values in predicted.items()}
    found = task_metrics(of_rows, np.asarray(split.labels)[rows], dataset.meta.tasks, funnel=dataset.meta.funnel, group=None)
    return {task: {key: found[task][key] for key in ("rows", "positives", "auc", "log_loss")} for task in dataset.meta.tasks}


def load(data: str, seed: int, folder: Path) -> PackedDataset:
    """A data set with the rows of a seed."""
    if data == "census-income":
        dataset = prepare(data, seed=seed, valid_fraction=VALID)
        return replace(dataset, splits=dict(dataset.splits) | {"train": thinned(dataset.split("train"), THINNED)})
    return prepare(write_scenarios(seed, folder, cosine=float(data.split(" ")[-1])), cache_dir=folder / "cache")


def run(data: str, setting: str, seed: int) -> dict[str, Any]:
    """Train once, with one thread; the scores on the validation rows, by part and task."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        return {"data": data, "setting": setting, "seed": seed} | run_on(
            load(data, seed, Path(name)), DATA[data], setting, seed, Path(name)
        )


def run_on(dataset: PackedDataset, field: str, setting: str, seed: int, folder: Path) -> dict[str, Any]:
    """Parameters and scores of a setting on a data set."""
    config = {"data": dataset.meta.name, "seed": seed, "threads": 1, **BASE, **SETTINGS[setting]}
    if "model.scenario" in config:
        config["model.scenario"] = field
    column = list(dataset.meta.fields).index(field)
    valid, of_train = dataset.split("valid"), scenarios_of(dataset.split("train"), column)
    shares = {int(scenario): float(np.mean(of_train == scenario)) for scenario in np.unique(of_train)}
    models: dict[int | None, torch.nn.Module] = {}
    parameters = 0
    for scenario in shares if setting == EACH else [None]:
        splits, budget = dict(dataset.splits), {}
        if scenario is not None:
            splits = {of: chosen(split, scenarios_of(split, column) == scenario) for of, split in splits.items()}
            budget = as_many_steps(len(splits["train"]), len(of_train))
        models[scenario], more = trained(replace(dataset, splits=splits), config | budget, folder / f"run-{scenario}")
        parameters += more
    predicted, scenario = predictions(models, valid, column), scenarios_of(valid, column)
    rare = np.isin(scenario, [number for number, share in shares.items() if share < RARE])
    found = {
        "all rows": scores(predicted, valid, np.isin(scenario, list(shares)), dataset),
        "rare scenarios": scores(predicted, valid, rare, dataset),
    }
    for number, value in enumerate(dataset.meta.vocabulary[field]):
        if number in shares:
            found[value] = scores(predicted, valid, scenario == number, dataset)
    if setting != EACH:
        ids = np.array(valid.ids)
        ids[:, column] = 0
        unknown = predictions(models, replace(valid, ids=ids), column)
        found["rare, as unknown"] = scores(unknown, valid, rare, dataset)
    return {
        "parameters": parameters,
        "rare_share": sum(s for s in shares.values() if s < RARE),
        "valid": found,
    }


def mean(rows: Iterable[Mapping[str, Any]], part: str, key: str) -> list[float]:
    """The mean of the tasks of each row."""
    return [statistics.fmean(scores[key] for scores in row["valid"][part].values()) for row in rows if part in row["valid"]]


def beside(values: list[float], of_one: list[float]) -> str:
    """The mean over the seeds; in brackets mean and standard deviation of each seed's difference from the one model."""
    if not values:
        return "-"
    said = f"{statistics.fmean(values):.4f}"
    differences = [value - other for value, other in zip(values, of_one, strict=False)]
    if not any(differences):
        return said
    deviation = f" ± {statistics.stdev(differences):.4f}" if len(differences) > 1 else ""
    return f"{said} ({statistics.fmean(differences):+.4f}{deviation})"


def table(rows: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each data set and setting: parameters; AUC and log loss, means of the tasks, of each part of the rows."""
    by: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        by.setdefault((row["data"], row["setting"]), []).append(row)
    lines = []
    for data, setting in (case for case in itertools.product(DATA, SETTINGS) if case in by):
        of, of_one = by[data, setting], by.get((data, ONE), [])
        cells = [beside(mean(of, part, key), mean(of_one, part, key)) for part in COMPARED for key in ("auc", "log_loss")]
        lines.append([data, setting, f"{max(row['parameters'] for row in of):,}", *cells])
    return lines


def header() -> list[str]:
    """The columns of :func:`table`."""
    return ["data", "setting", "parameters", *(f"{part}: {key}" for part in COMPARED for key in ("AUC", "log loss"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS), metavar="SETTING")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each")
    arguments = parser.parse_args()
    rows = results.run_missing(
        PATH,
        run,
        [(data, setting, seed) for seed in range(arguments.seeds) for data in DATA for setting in arguments.settings],
        workers=arguments.workers,
        configuration=load_config(None, {"data": "each of them", "valid_fraction": VALID, **BASE}).to_dict(),
        said=lambda row: "AUC " + ", ".join(f"{part} {mean([row], part, 'auc')[0]:.4f}" for part in row["valid"]),
    )
    for line in [header(), *table(rows)]:
        print("  ".join(line))


if __name__ == "__main__":
    main()
