"""Which standard deviation should the embeddings start with? ``make study NAME=embedding_start`` trains and compares.

It trains the former default configuration (``ablation.FORMER``) with every standard deviation and seed, on the embedded sets and on two
tables of mostly ids, and scores the kept weights on the *validation* rows. No test row takes part. The rule, set before the first run: of
each run take the log loss of every task over the constant's (the base rate of the train rows, predicted for every row) and average over
the tasks; the default is the standard deviation with the lowest mean over the data sets and seeds.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcrnn_fast.training import Report
from dcrnn_fast.training.config import StoppingConfig

from ..quality.data_sets import thin_census
from .ablation import FORMER
from .study import Content, Row, Rows, Study, Table, defaults, grouped, packed, seeds_of, trained

DEVIATIONS = (8**-0.5, 0.1, 0.05, 0.03, 0.02, 0.01, 0.003, 0.0)


class Epochs(Report):
    """Collects the validation metrics of every epoch."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def evaluation(self, record: Mapping[str, Any], **_: Any) -> None:
        if record["step"]:
            self.records.append(record["valid"])


def run(data: str, deviation: float, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """Of every epoch the means over the tasks (a funnel's conditional is no task) on the validation rows."""
    dataset, report, epochs = thin_census(packed(data, seed, options, folder)), Epochs(), []
    valid = trained(dataset, seed, {"model.embedding_init_std": deviation, **FORMER}, folder, report)["valid"]
    for record in report.records:
        over_constant = [record[task]["log_loss"] / valid[task]["constant_log_loss"] for task in dataset.meta.tasks]
        means = {name: statistics.fmean(record[task][name] for task in dataset.meta.tasks) for name in ("auc", "log_loss")}
        epochs.append(means | {"relative_log_loss": statistics.fmean(over_constant), "worst_task": max(over_constant)})
    return {"epochs": epochs}


def best_epoch(row: Row, monitor: str) -> dict[str, float]:
    """The epoch that early stopping keeps."""
    better = max if monitor == "auc" else min
    return better(row["epochs"], key=lambda epoch: epoch[monitor])


def means(rows: Rows, monitor: str, name: str) -> dict[str, dict[float, float]]:
    """By data set, one number of the kept epochs for each standard deviation: its mean over the seeds."""
    found: dict[str, dict[float, float]] = {}
    for (data, deviation), same in grouped(rows, "data", "std").items():
        found.setdefault(data, {})[deviation] = statistics.fmean(best_epoch(row, monitor)[name] for row in same)
    return found


def tables(content: Content) -> list[Table]:
    """A line for each standard deviation: log loss over the constant's (AUC) by data set; their mean; how often a run ends above the
    constant. The rows hold every epoch, so they answer for either monitor.
    """
    rows, monitor, lines = content["rows"], StoppingConfig().monitor, []
    auc, log_loss = (means(rows, monitor, name) for name in ("auc", "relative_log_loss"))
    for deviation, same in grouped(rows, "std").items():
        cells = [f"{log_loss[data][deviation]:.4f} ({auc[data][deviation]:.4f})" for data in log_loss]
        above = [sum(best_epoch(row, kept)["worst_task"] >= 1 for row in same) for kept in ("log_loss", "auc")]
        mean = statistics.fmean(found[deviation] for found in log_loss.values())
        lines.append([f"{deviation:.3g}", *cells, f"{mean:.4f}", *(f"{count} of {len(same)}" for count in above)])
    header = ["`embedding_init_std`", *log_loss, "mean of the sets", "above the constant, `log_loss`", "above the constant, `auc`"]
    return [(header, lines)]


def note(content: Content) -> str:
    return (
        f"Log loss over the constant's, mean of the tasks (in brackets: mean AUC) on validation rows, mean of {seeds_of(content)} seeds "
        f"(census-income: half as many); weights kept by `early_stopping.monitor: {StoppingConfig().monitor}`. The last two columns "
        "count the runs in which a task's log loss is not below the constant's, with either monitor."
    )


def told(row: Row) -> str:
    return "AUC and relative log loss by epoch " + ", ".join(
        f"{epoch['auc']:.4f} {epoch['relative_log_loss']:.4f}" for epoch in row["epochs"]
    )


STUDY = Study(
    "embedding_start",
    run,
    told,
    tables,
    note,
    data=("id-log", "id-log, min_count 1", "movielens-100k", "hillstrom", "census-income"),
    settings=DEVIATIONS,
    seeds=6,
    columns=("data", "std", "seed"),
    fits=lambda data, deviation, seed, options: data != "census-income" or seed < -(-options.seeds // 2),
    about=lambda options: defaults(FORMER),
    quick={"seeds": 1, "data": ["id-log"], "settings": [0.05, 0.0]},
)
