"""Which rank is enough? ``make study NAME=rank`` trains the full cell and cells of low rank, and draws AUC against training speed.

Every model has the former default configuration (``FORMER``) but for ``model.rank``, and the same data, split and early stopping
on validation rows. The rank to recommend is chosen on the validation rows: the smallest one whose mean AUC over tasks, seeds and data
sets is not below the full cell's by more than 0.0005. The speeds are of whole training steps (model, loss, backward, AdamW) at the
configuration's batch size on the rows of each data set, all models interleaved in this process: measure them on an idle machine.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dcrnn_fast.support import files

from .. import interleave, machine
from ..drawing import drawn_with
from ..steps import batches_of, default_step
from .study import Content, Study, Table, defaults, grouped, packed, seeds_of, trained

FORMER: dict[str, Any] = {
    "model.rank": None, "model.dense_bins": 0, "oov_dropout": 0.0, "precision": "float32", "optimiser.weight_decay": 0.1,
    "optimiser.epochs": 3, "optimiser.lr": 0.003, "optimiser.batch_size": 512, "early_stopping.ema_half_life": 0.0,
}  # fmt: skip
"""What the defaults were when rank.json was measured."""
RANKS = (8, 16, 32, 64, 128, None)
"""None is the full cell."""


def run(data: str, rank: int | None, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """AUC and log loss of every task (a funnel's conditional is no task) on validation and test rows."""
    dataset = packed(data, seed, options, folder)
    found = trained(dataset, seed, {**FORMER, "model.rank": rank}, folder)
    tasks = dataset.meta.tasks
    scores = {
        split: {task: {name: found[split][task][name] for name in ("auc", "log_loss")} for task in tasks} for split in ("valid", "test")
    }
    return {"parameters": found["model"]["parameters"], **scores}


def speeds(data: str, options: Namespace, folder: Path, batch: int) -> list[dict[str, Any]]:
    """Training rows a second of each rank, and the time of a step over the full cell's: medians over the rounds with quartiles."""
    dataset, rows = packed(data, 0, options, folder), []
    batches = batches_of(dataset, batch)
    steps = {str(rank): default_step(dataset, batches, "float32", {**FORMER, "model.rank": rank}) for rank in RANKS}
    times = interleave.rounds(steps, seconds=options.seconds, minimum=9, stretch=0.02)
    for rank in RANKS:
        figures = interleave.figures({str(rank): times[str(rank)], "full": times["None"]}, [str(rank)])
        ratio = {name: figures[f"{rank}/full{end}"] for name, end in (("ratio", ""), ("low", ", low"), ("high", ", high"))}
        rows.append({"data": data, "rank": rank, "rows_per_second": round(batch / statistics.median(times[str(rank)]))} | ratio)
    return rows


def all_speeds(content: Content, options: Namespace) -> dict[str, Any]:
    """The speeds on every data set."""
    found, batch = [], content["configuration"]["optimiser"]["batch_size"]
    for data in options.data:
        with TemporaryDirectory() as folder:
            found += speeds(data, options, Path(folder), batch)
    return {"speeds": found}


def name_of(rank: int | None) -> str:
    return "full" if rank is None else str(rank)


def mean_auc(rows: list[Any], split: str) -> tuple[float, float]:
    """The mean over tasks and seeds, and the standard deviation over the seeds of the mean over the tasks."""
    aucs = [statistics.fmean(task["auc"] for task in row[split].values()) for row in rows]
    return statistics.fmean(aucs), statistics.stdev(aucs) if len(aucs) > 1 else 0.0


def tables(content: Content) -> list[Table]:
    """A line for each data set and rank."""
    lines, by_case = [], grouped(content["rows"], "data", "rank")
    by_speed = {(row["data"], row["rank"]): row for row in content["speeds"]}
    for case in (case for case in product(dict.fromkeys(data for data, _ in by_case), RANKS) if case in by_case):
        rows, speed, told = by_case[case], by_speed.get(case), ["not measured", "not measured"]
        if speed:
            told = [f"{speed['rows_per_second']:,}", f"{speed['ratio']:.2f} ({speed['low']:.2f}-{speed['high']:.2f})"]
        aucs = ("{:.4f} ± {:.4f}".format(*mean_auc(rows, split)) for split in ("valid", "test"))
        lines.append([case[0], name_of(case[1]), f"{rows[0]['parameters']:,}", *aucs, *told])
    return [(["data", "rank", "parameters", "validation AUC", "test AUC", "rows/s in training", "step over the full cell's"], lines)]


def note(content: Content) -> str:
    return (
        f"AUC: mean of the tasks, mean ± standard deviation over {seeds_of(content)} seeds. Speed: a whole training step at B = "
        f"{content['configuration']['optimiser']['batch_size']}; in the last column medians of the per-round ratios (quartiles)."
    )


@drawn_with()
def draw(content: Content, path: Path) -> None:
    """A panel for each data set: mean test AUC against training rows a second, a point for each rank."""
    from matplotlib import pyplot

    by_case, by_data = grouped(content["rows"], "data", "rank"), {}
    for row in content["speeds"]:
        by_data.setdefault(row["data"], []).append(row)
    figure, axes = pyplot.subplots(1, len(by_data), figsize=(3.6 * len(by_data), 3.2), squeeze=False)
    for panel, (data, speeds) in zip(axes[0], by_data.items(), strict=True):
        for row in speeds:
            if (data, row["rank"]) in by_case:
                speed, (auc, spread) = row["rows_per_second"] / 1000, mean_auc(by_case[data, row["rank"]], "test")
                colour = "#c8553d" if row["rank"] is None else "#1b6ca8"
                panel.errorbar(speed, auc, yerr=spread, fmt="o", color=colour, markersize=5, linewidth=0.8)
                panel.annotate(name_of(row["rank"]), (speed, auc), textcoords="offset points", xytext=(5, 4), fontsize=8)
        panel.set_title(data, fontsize=9)
        panel.set_xlabel("training rows/s, thousand")
        panel.grid(color="#e5e7eb", linewidth=0.6)
    axes[0][0].set_ylabel("mean test AUC (line: std over seeds)")
    figure.suptitle(f"Rank of the cell. {machine.line(content['machine'])}", fontsize=9)
    figure.tight_layout()
    with files.replacing(path) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})


STUDY = Study(
    "rank",
    run,
    lambda row: "test AUC " + ", ".join(f"{task} {found['auc']:.5f}" for task, found in row["test"].items()),
    tables,
    note,
    data=("census-income", "hillstrom", "movielens-100k"),
    settings=RANKS,
    columns=("data", "rank", "seed"),
    about=lambda options: defaults(FORMER),
    finish=all_speeds,
    draw=draw,
    add_options=lambda parser: parser.add_argument("--seconds", type=float, default=20.0, help="how long a data set's speeds are measured"),
    quick={"seeds": 1, "data": ["hillstrom"], "settings": [8, None], "seconds": 0.1},
)
