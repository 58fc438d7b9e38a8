"""What does each default buy? ``make study NAME=ablation`` trains today's defaults and each of them changed, on validation rows.

Every setting is the default configuration but for the keys that it names; early stopping keeps the weights that are scored. The data sets
are the embedded ones (of census-income every third train row), census-income with its numbers as dense columns alone, and two tables of
mostly ids: MovieLens-100K, split by time, and a log drawn from a known model, another one for each seed. No test row takes part.

A default should have the lowest log loss over the *constant's* (the base rate of the train rows, predicted for every row), averaged over
tasks, seeds and data sets, and must never be above the constant.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml

from dcrnn_fast.data.catalog import EMBEDDED

from ..quality.data_sets import thin_census
from .study import Content, Row, Rows, Study, Table, defaults, grouped, packed, seeds_of, standard_error, trained

DEFAULT = "the defaults"
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "no first-order term": {"model.first_order": False},
    "AdamW for embeddings": {"model.embedding": "dense"},
    "one evaluation an epoch": {"early_stopping.every_steps": 10**9, "early_stopping.patience": 2},
    "no OOV dropout": {"oov_dropout": 0.0},
    "full cell": {"model.rank": None},
    "no gate": {"model.cell": "cross"},
    "hard sharing": {"model.share_ratio": 1.0},
    "no sharing": {"model.share_ratio": 0.0},
    "trunk sharing": {"model.sharing": "trunk"},
    "relation independent": {"model.relation": "independent"},
    "relation transfer": {"model.relation": "transfer"},
    "one projection of the dense columns": {"model.dense_bins": 0},
    "embeddings start at 0.35": {"model.embedding_init_std": 0.35},
}
DENSE = "census-income, dense"
DATA = ("census-income", DENSE, "hillstrom", "movielens-100k", "id-log")


def dense_schema(folder: Path) -> str:
    """The schema of census-income without buckets."""
    schema = yaml.safe_load((EMBEDDED / "census-income.yaml").read_text(encoding="utf-8"))
    schema |= {"name": "census-income-dense", "files": schema["files"] | {"all": str(EMBEDDED / "census-income.parquet")}}
    schema["numeric"] = [{key: value for key, value in column.items() if key != "buckets"} for column in schema["numeric"]]
    path = folder / "census-income-dense.yaml"
    path.write_text(yaml.safe_dump(schema), encoding="utf-8")
    return str(path)


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The step that a run kept, and its metrics of each task on the validation rows, without those of conditionals."""
    dataset = thin_census(packed(dense_schema(folder) if data == DENSE else data, seed, options, folder))
    found = trained(dataset, seed, SETTINGS[setting], folder)
    keys = ("auc", "log_loss", "constant_log_loss", "calibration")
    valid = {task: {key: found["valid"][task][key] for key in keys} for task in dataset.meta.tasks}
    return {"parameters": found["model"]["parameters"], "best_step": found["train"]["best_step"], "valid": valid}


def told(row: Row) -> str:
    return f"AUC {auc(row):.4f}, log loss over the constant's {', '.join(f'{value:.4f}' for value in over_constant(row))}"


def over_constant(row: Row) -> list[float]:
    """Each task's log loss over the constant's."""
    return [scores["log_loss"] / scores["constant_log_loss"] for scores in row["valid"].values()]


def auc(row: Row) -> float:
    """The mean of the tasks."""
    return statistics.fmean(scores["auc"] for scores in row["valid"].values())


def means_of_the_sets(rows: Rows) -> dict[tuple[str, int], float]:
    """By setting and seed, the mean over the data sets of log loss over the constant's; only where every data set was run."""
    every = grouped(rows, "setting", "seed")
    return {
        case: statistics.fmean(statistics.fmean(over_constant(row)) for row in some)
        for case, some in every.items()
        if len(some) == len(DATA)
    }


def tables(content: Content) -> list[Table]:
    """A line for each setting: of each data set log loss over the constant's (AUC), means over the seeds; the mean of the sets; how far
    that is above the defaults', with the standard error of the difference over the seeds; runs above 1.
    """
    by_setting, means, lines = grouped(content["rows"], "setting"), means_of_the_sets(content["rows"]), []
    for setting in (name for name in SETTINGS if name in by_setting):
        by_data = grouped(by_setting[setting], "data")
        losses = {data: statistics.fmean(statistics.fmean(over_constant(row)) for row in found) for data, found in by_data.items()}
        cells = ["not measured"] * len(DATA)
        for at, data in enumerate(DATA):
            if data in by_data:
                cells[at] = f"{losses[data]:.4f} ({statistics.fmean(map(auc, by_data[data])):.4f})"
        mean = f"{statistics.fmean(losses.values()):.4f}" if len(losses) == len(DATA) else "not measured"
        apart = [value - means[DEFAULT, seed] for (name, seed), value in means.items() if name == setting and (DEFAULT, seed) in means]
        error = f" ± {standard_error(apart):.4f}" if len(apart) > 1 else ""
        difference = f"{statistics.fmean(apart):+.4f}{error}" if apart and setting != DEFAULT else ""
        above = [max(over_constant(row)) >= 1 for row in by_setting[setting]]
        lines.append([setting, *cells, mean, difference, f"{sum(above)} of {len(above)}"])
    return [(["setting", *DATA, "mean of the sets", "above the defaults", "runs above the constant"], lines)]


def note(content: Content) -> str:
    return (
        f"Log loss over the constant's, mean of the tasks (in brackets: mean AUC) on validation rows, mean of {seeds_of(content)} seeds. "
        "± is the standard error over the seeds. A run is above the constant if the log loss of any task is."
    )


STUDY = Study(
    "ablation",
    run,
    told,
    tables,
    note,
    data=DATA,
    settings=tuple(SETTINGS),
    about=lambda options: defaults(),
    quick={"seeds": 1, "data": ["hillstrom"], "settings": [DEFAULT, "no gate"]},
)
