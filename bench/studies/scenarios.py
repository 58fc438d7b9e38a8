"""What do scenarios buy? ``make study NAME=scenarios`` compares three ways to serve several: one model for all rows, one model with a trunk
for each scenario (``model.scenario``), and one model a scenario.

Two kinds of data. census-income (of 70% of its train rows every third; the others are the validation rows) has ``citizenship`` as the
scenario: five values, of which the largest has 89% of the rows. In tables drawn from a known model, five channels differ a little (their
effects have a cosine of 0.8) or much (0.2). Each seed takes other rows and other weights.

All settings are the default configuration but for the keys that they name and for the learning rate, 0.003 as it was by default then. Early
stopping keeps the weights with the lowest log loss on the validation rows, which are also those that are scored. A model a scenario trains
and stops by the rows of its scenario, for as many steps as the one model: its epochs and its patience are longer. No test row takes part.

Scores are of all validation rows, of those of rare scenarios (less than 5% of the train rows each), and of each scenario. A last score
reads the rows of rare scenarios as unknown (id 0 in the column), as it would a new value.
"""

from __future__ import annotations

import math
import statistics
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dcrnn_fast.data import PackedDataset, PackedSplit, prepare
from dcrnn_fast.training import load_config, load_model
from dcrnn_fast.training.evaluate.metrics import task_metrics
from dcrnn_fast.training.evaluate.predict import finite_predictions

from ..quality.data_sets import rows_of, thin_census, write_table
from .study import Content, Rows, Study, Table, beside, defaults, grouped, seeds_of, trained

DATA = {"census-income": "citizenship", "drawn, cosine 0.8": "channel", "drawn, cosine 0.2": "channel"}
"""The data sets, each with the field whose values are its scenarios."""
VALID, RARE = 0.3, 0.05
BASE = {"optimiser.lr": 0.003}
TRUNK = {"model.sharing": "trunk"}
ONE, EACH = "one model", "a model a scenario"
SETTINGS: dict[str, dict[str, Any]] = {
    ONE: TRUNK,
    "one model, share_ratio 0.75": TRUNK | {"model.share_ratio": 0.75},
    "scenario trunks": TRUNK | {"model.scenario": None},
    EACH: TRUNK,
}
"""The keys of each setting. ``model.scenario`` becomes the data set's field."""
COMPARED = ("all rows", "rare scenarios", "rare, as unknown")
SHARES = (0.55, 0.25, 0.15, 0.03, 0.02)
"""Of the rows, that the channels of a drawn table have."""
FIELDS, VALUES = 8, 12


def write_scenarios(seed: int, folder: Path, *, cosine: float, rows: int = 50_000) -> str:
    """Impressions of five channels with clicks and consumes; every other seed draws another table.

    The logit of a click and that of a consume after a click each add up an effect of every field's value. Each channel has effects of its
    own. Those of two channels have an expected cosine of ``cosine`` in [0, 1]: at 1 the channels do not differ. Returns the schema.
    """
    rng = np.random.default_rng([seed, 17])
    channel = rng.choice(len(SHARES), rows, p=SHARES)
    values = rng.integers(0, VALUES, (FIELDS, rows))
    events = []
    for base in (-1.0, -0.5):
        common, own = rng.normal(0, 0.5, (FIELDS, VALUES)), rng.normal(0, 0.5, (len(SHARES), FIELDS, VALUES))
        effects = np.sqrt(cosine) * common + np.sqrt(1 - cosine) * own
        logit = base + sum(effects[channel, field, values[field]] for field in range(FIELDS))
        events.append(rng.random(rows) < 1 / (1 + np.exp(-logit)))
    click, consume = events[0], events[0] & events[1]
    table = zip(channel, *values, click.astype(int), consume.astype(int), strict=True)
    columns = ["channel", *(f"field_{field}" for field in range(FIELDS))]
    name = f"drawn-{cosine:g}-{seed}"
    return write_table(folder, name, columns, ("click", "consume"), table, valid=0.3, test=0.01, group=None)


def load(data: str, seed: int, folder: Path) -> PackedDataset:
    """A data set with the rows of a seed. The validation rows stand for the test rows."""
    if data == "census-income":
        dataset = thin_census(prepare(data, seed=seed, valid_fraction=VALID))
    else:
        dataset = prepare(write_scenarios(seed, folder, cosine=float(data.split(" ")[-1])), cache_dir=folder / "cache")
    return replace(dataset, splits=dict(dataset.splits) | {"test": replace(dataset.split("valid"), name="test")})


def as_many_steps(rows: int, all_rows: int) -> dict[str, float]:
    """The keys with which a run on some of the rows takes as many steps as one on all of them, and is as patient."""
    usual = load_config(None, {"data": "each of them"})
    of_all, of_some = (math.ceil(count / usual.optimiser.rows_a_step(count)) for count in (all_rows, rows))
    longer = of_all / of_some
    return {
        "optimiser.epochs": round(usual.optimiser.epochs_of(of_all) * longer),
        "early_stopping.patience": round(usual.early_stopping.patience * longer),
        "early_stopping.ema_half_life": usual.early_stopping.ema_half_life * longer,
    }


class Models:
    """The models of a setting: one for all rows, or one for each scenario, whose ids stand in a column."""

    def __init__(self, column: int) -> None:
        self.column, self.parameters = column, 0
        self.by_scenario: dict[int | None, torch.nn.Module] = {}

    def scenarios(self, split: PackedSplit) -> np.ndarray:
        """Each row's scenario."""
        return np.asarray(split.ids[:, self.column])

    def train(self, dataset: PackedDataset, scenario: int | None, seed: int, keys: Mapping[str, Any], folder: Path) -> None:
        """Train one model, on the rows of a scenario if there is one."""
        self.meta = dataset.meta
        if scenario is not None:
            splits = {name: rows_of(split, self.scenarios(split) == scenario) for name, split in dataset.splits.items()}
            keys = {**keys, **as_many_steps(len(splits["train"]), len(dataset.split("train")))}
            dataset, folder = replace(dataset, splits=splits), folder / str(scenario)
        self.parameters += trained(dataset, seed, keys, folder)["model"]["parameters"]
        self.by_scenario[scenario] = load_model(folder / "run" / "model.safetensors")[0]

    def predict(self, split: PackedSplit) -> dict[str, np.ndarray]:
        """Each task's probabilities [rows]. A model a scenario predicts the rows of its scenario; those of no model stay NaN."""
        found: dict[str, np.ndarray] = {}
        for scenario, model in self.by_scenario.items():
            rows = np.ones(len(split), bool) if scenario is None else self.scenarios(split) == scenario
            for name, values in finite_predictions(model, rows_of(split, rows), self.meta, torch.device("cpu")).items():
                found.setdefault(name, np.full(len(split), np.nan, np.float32))[rows] = values
        return found


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """Parameters, and the scores on the validation rows by part and task."""
    dataset, keys = load(data, seed, folder), BASE | SETTINGS[setting]
    if "model.scenario" in keys:
        keys["model.scenario"] = DATA[data]
    models = Models(list(dataset.meta.fields).index(DATA[data]))
    valid, of_train = dataset.split("valid"), models.scenarios(dataset.split("train"))
    shares = {int(scenario): float(np.mean(of_train == scenario)) for scenario in np.unique(of_train)}
    for scenario in shares if setting == EACH else [None]:
        models.train(dataset, scenario, seed, keys, folder)
    scenario, predicted = models.scenarios(valid), models.predict(valid)
    rare = np.isin(scenario, [number for number, share in shares.items() if share < RARE])

    def scores(predicted: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
        """Rows, positives, AUC and log loss of each task over some rows."""
        labels = np.asarray(valid.labels)[rows]
        found = task_metrics(
            {name: values[rows] for name, values in predicted.items()}, labels, dataset.meta.tasks, funnel=dataset.meta.funnel, group=None
        )
        return {task: {key: found[task][key] for key in ("rows", "positives", "auc", "log_loss")} for task in dataset.meta.tasks}

    parts = {"all rows": scores(predicted, np.isin(scenario, list(shares))), "rare scenarios": scores(predicted, rare)}
    for number, value in enumerate(dataset.meta.vocabulary[DATA[data]]):
        if number in shares:
            parts[value] = scores(predicted, scenario == number)
    if setting != EACH:
        ids = np.array(valid.ids)
        ids[:, models.column] = 0
        parts["rare, as unknown"] = scores(models.predict(replace(valid, ids=ids)), rare)
    return {"parameters": models.parameters, "rare_share": sum(s for s in shares.values() if s < RARE), "valid": parts}


def mean(rows: Rows, part: str, key: str) -> list[float]:
    """The mean of the tasks of each row."""
    return [statistics.fmean(scores[key] for scores in row["valid"][part].values()) for row in rows if part in row["valid"]]


def tables(content: Content) -> list[Table]:
    """A line for each data set and setting: parameters; AUC and log loss, means of the tasks, of each part of the rows. In brackets: mean
    and standard deviation of the seeds' differences from the one model.
    """
    by_case, lines = grouped(content["rows"], "data", "setting"), []
    columns = [(part, key) for part in COMPARED for key in ("auc", "log_loss")]
    for data, setting in (case for case in product(DATA, SETTINGS) if case in by_case):
        rows, one, cells = by_case[data, setting], by_case.get((data, ONE), []), []
        for column in columns:
            values, others = mean(rows, *column), mean(one, *column)
            cells.append(beside(values, others if len(others) == len(values) else values, statistics.stdev) if values else "-")
        lines.append([data, setting, f"{max(row['parameters'] for row in rows):,}", *cells])
    titles = {"auc": "AUC", "log_loss": "log loss"}
    return [(["data", "setting", "parameters", *(f"{part}: {titles[key]}" for part, key in columns)], lines)]


def note(content: Content) -> str:
    return (
        f"Means of the tasks on validation rows and of {seeds_of(content)} seeds, each with rows of its own; in brackets mean and standard "
        f"deviation of the seeds' differences from the one model. Rare: less than {RARE:.0%} of the train rows."
    )


STUDY = Study(
    "scenarios",
    run,
    lambda row: "AUC " + ", ".join(f"{part} {mean([row], part, 'auc')[0]:.4f}" for part in row["valid"]),
    tables,
    note,
    data=tuple(DATA),
    settings=tuple(SETTINGS),
    about=lambda options: defaults({"valid_fraction": VALID, **BASE}),
    quick={"seeds": 1, "data": ["drawn, cosine 0.2"], "settings": [ONE, "scenario trunks", EACH]},
)
