"""Where does partial sharing win? ``make synthetic`` trains on tasks whose relation is known (:mod:`bench.synthetic_data`).

Every model of the quality harness that is named in ``MODELS`` trains by its protocol and with the setting of its trial 0, but for what
``Study`` says: smaller batches, and a learning rate chosen for each model by the validation log loss on draws that are not used again. Test
AUC is measured on fresh rows for each cosine of the tasks and, at two cosines, for three shares of train rows whose second label is known.
After training we also look into DCRNN's gate. Runs that are in the results are not run again. Costs by the number of tasks come from models
with random weights; ``--times SECONDS`` measures times too, which needs an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dcrnn_fast import DCRNN
from dcrnn_fast.data import PackedDataset

from . import interleave, machine, results
from .quality import models as harness
from .quality import speed
from .quality.networks import SIZES
from .quality.protocol import Fitted, Protocol, fit, metrics
from .quality.spaces import defaults
from .synthetic_data import SIGNAL, TASKS, Rows, draw
from .synthetic_gate import gates
from .synthetic_report import FIGURE, figure, summary

PATH = results.COMMITTED / "synthetic_tasks.json"
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "single-task": ("single-task", {"rank": None}),
    "dcrnn-none": ("dcrnn-full", {"share_ratio": 0.0}),
    "dcrnn-rows": ("dcrnn-full", {}),
    "dcrnn-trunk": ("dcrnn-trunk", {"rank": None}),
    "dcrnn-hard": ("dcrnn-hard", {"rank": None}),
    "mmoe": ("mmoe", {}),
    "ple": ("ple", {}),
}
"""The harness's name of each model, and what differs from its trial 0."""
LINEAR, BEST = "linear", "best possible"
"""Not models of the harness: logistic regression for each task, and the score from which the labels were drawn."""
SIZE = "small"
TUNED_AT = (0.5, 1.0)
FIRST_TUNING_SEED = 1000


@dataclass(frozen=True)
class Study:
    """What is trained, and how. ``few`` are pairs of a cosine and the share of train rows whose second label is known."""

    cosines: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    few: tuple[tuple[float, float], ...] = ((0.5, 0.1), (0.5, 0.02), (1.0, 0.1), (1.0, 0.02))
    seeds: int = 10
    tuning_seeds: int = 3
    lrs: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 2e-2)
    rows: Rows = dataclasses.field(default_factory=Rows)
    epochs: int = 12
    dense_bins: int = 8
    batch_size: int = 128
    evaluations: int = 2
    warmup_steps: int = 20
    tasks: tuple[int, ...] = (1, 2, 4, 8)
    """Their numbers for which the costs are told."""

    def protocol(self) -> Protocol:
        return Protocol(batch_size=self.batch_size, evaluations=self.evaluations, warmup_steps=self.warmup_steps)

    def conditions(self) -> list[tuple[float, float]]:
        """Pairs of the cosine and the known share."""
        return [*((cosine, 1.0) for cosine in self.cosines), *self.few]


QUICK = Study(cosines=(0.5,), few=(), seeds=1, tuning_seeds=1, lrs=(1e-2,), rows=Rows(256, 64, 64), epochs=1, tasks=(1, 2))
"""Does it run? For the test suite."""


class Case(NamedTuple):
    """A run. The seed decides the draw, the weights and the order of the rows. ``lr`` is None for what does not train by the protocol."""

    model: str
    cosine: float
    known: float
    seed: int
    lr: float | None


def setting(model: str, study: Study, lr: float) -> dict[str, Any]:
    """The model's setting of trial 0 in this study."""
    name, changes = MODELS[model]
    return defaults(harness.MODELS[name].space) | {"epochs": study.epochs, "dense_bins": study.dense_bins, "lr": lr} | changes


def run(case: Case, study: Study) -> dict[str, Any]:
    """Train once; the validation log loss and, but for a tuning seed, each task's test AUC and the gate's values."""
    drawn = draw(case.cosine, case.seed, known=case.known, rows=study.rows)
    if case.lr is None:
        logits = drawn.scores["test"] if case.model == BEST else linear(drawn.dataset)
        return case._asdict() | {"auc": _auc(drawn.dataset, logits)}
    fitted = fit(
        MODELS[case.model][0], drawn.dataset, setting(case.model, study, case.lr), seed=case.seed, size=SIZE, protocol=study.protocol()
    )
    row = case._asdict() | {"log_loss": min(loss for _, loss in fitted.history), "parameters": fitted.parameters}
    if case.seed < FIRST_TUNING_SEED:
        row |= {"auc": _auc(drawn.dataset, fitted.logits(drawn.dataset.split("test")))}
        if all(isinstance(network, DCRNN) for network in fitted.networks):
            row |= {"gate": _gate(fitted, drawn.dataset)}
    return row


def _auc(dataset: PackedDataset, logits: np.ndarray) -> dict[str, float]:
    return {task: found["auc"] for task, found in metrics(dataset, "test", logits).items()}


def linear(dataset: PackedDataset) -> np.ndarray:
    """The logits [N, 2] of a logistic regression for each task on the test rows."""
    from sklearn.linear_model import LogisticRegression

    train, test, columns = dataset.split("train"), dataset.split("test"), []
    for task in range(len(dataset.meta.tasks)):
        known = ~np.isnan(train.labels[:, task])
        fitted = LogisticRegression(max_iter=1000).fit(train.dense[known], train.labels[known, task])
        columns.append(fitted.decision_function(test.dense))
    return np.stack(columns, axis=1)


def _gate(fitted: Fitted, dataset: PackedDataset) -> dict[str, dict[str, float]]:
    """Means over the networks, the tasks, test rows and units, of the units of signal columns and of noise columns apart."""
    signal = np.array([name.startswith(SIGNAL) for name in dataset.meta.dense])
    split = dataset.split("test")
    ids, dense = torch.from_numpy(split.ids[:2000]).long(), torch.from_numpy(split.dense[:2000])
    found = [gates(network, ids, dense) for network in fitted.networks]
    means: dict[str, dict[str, float]] = {}
    for quantity in found[0]:
        by_column = np.mean([of[quantity].numpy() for of in found], axis=0)
        means[quantity] = {"signal": float(by_column[signal].mean()), "noise": float(by_column[~signal].mean())}
    return means


def chosen(rows: Sequence[Mapping[str, Any]], study: Study) -> dict[str, float]:
    """Of each model the learning rate with the lowest mean validation log loss over the tuning seeds."""
    losses = {
        (model, lr): statistics.fmean(
            row["log_loss"] for row in rows if (row["model"], row["lr"]) == (model, lr) and row["seed"] >= FIRST_TUNING_SEED
        )
        for model in MODELS
        for lr in study.lrs
    }
    return {model: min(study.lrs, key=lambda lr: losses[model, lr]) for model in MODELS}


def growth(study: Study, seconds: float) -> list[dict[str, Any]]:
    """Parameters and FLOPs a row of each model for each number of tasks; if ``seconds``, rows a second with one thread too."""
    drawn, rows = draw(0.5, 0, rows=study.rows).dataset, []
    for count in study.tasks:
        tasks = tuple(f"task {number}" for number in range(count))
        meta = dataclasses.replace(drawn.meta, tasks=tasks)
        labels = {name: np.tile(split.labels[:, :1], count) for name, split in drawn.splits.items()}
        splits = {name: dataclasses.replace(split, labels=labels[name]) for name, split in drawn.splits.items()}
        dataset, of_count = dataclasses.replace(drawn, meta=meta, splits=splits), {}
        training, inference = {}, {}
        for model, (name, _) in MODELS.items():
            build, options = harness.MODELS[name].build, setting(model, study, study.lrs[0])
            assert build is not None
            made = partial(build, meta, options, SIZES[SIZE])
            of_count[model] = {"model": model, "tasks": count, "parameters": sum(p.numel() for p in made().parameters())}
            of_count[model]["flops"] = round(speed.flops(made(), dataset))
            training[model] = speed.training(made(), options, dataset, study.batch_size, low=False)
            inference[model] = speed.inference(made(), dataset, len(splits["test"]), low=False)
        if seconds:
            for column, candidates, batch in (("training", training, study.batch_size), ("inference", inference, len(splits["test"]))):
                for model, times in interleave.rounds(candidates, seconds=seconds, minimum=5, stretch=0.01).items():
                    of_count[model][f"{column}_rows_per_second"] = round(batch / statistics.median(times))
        rows += of_count.values()
    return rows


@contextmanager
def mapping(workers: int) -> Iterator[Any]:
    """``map``, in other processes with one thread each; in this one for 0 workers."""
    if not workers:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool.map


def study_rows(study: Study, path: Path, workers: int) -> dict[str, Any]:
    """Run what is not in the file at ``path`` yet: first the tuning, then the rest. Rows of another study, machine or version are dropped.

    The result so far is written now and then.
    """
    content: dict[str, Any] = {"machine": machine.description(), "study": json.loads(json.dumps(dataclasses.asdict(study)))}
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows = content["rows"] = results.rows_of_this_machine(path) if known.get("study") == content["study"] else []
    done = {Case(*(row[name] for name in Case._fields)) for row in rows}
    tuning = [
        Case(model, *TUNED_AT, FIRST_TUNING_SEED + seed, lr)
        for seed in range(study.tuning_seeds) for model in MODELS for lr in study.lrs
    ]  # fmt: skip
    with mapping(workers) as over:
        for stage in ("tuning", "test"):
            cases = tuning
            if stage == "test":
                content["lr"] = chosen(rows, study)
                rates = content["lr"] | {LINEAR: None, BEST: None}
                draws = [(*condition, seed) for seed in range(study.seeds) for condition in study.conditions()]
                cases = [Case(model, *of, lr) for of in draws for model, lr in rates.items()]
            left = [case for case in cases if case not in done]
            for number, row in enumerate(over(partial(run, study=study), left), start=1):
                rows.append(row)
                told = f"AUC {row['auc'][TASKS[0]]:.4f} {row['auc'][TASKS[1]]:.4f}" if "auc" in row else f"log loss {row['log_loss']:.4f}"
                where = f"cosine {row['cosine']}, known {row['known']}, seed {row['seed']}, lr {row['lr']}"
                print(f"[{stage} {number}/{len(left)}] {row['model']}, {where}: {told}", flush=True)
                if number % 20 == 0 or number == len(left):
                    results.write(path, content)
    return content


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--times", type=float, default=0.0, metavar="SECONDS", help="how long each comparison of times is measured")
    parser.add_argument("--quick", action="store_true", help="each model for an epoch on few rows, in a temporary folder: does it run?")
    arguments = parser.parse_args(argv)
    harness.check([name for name, _ in MODELS.values()])
    with tempfile.TemporaryDirectory() as folder:
        path, study, workers = PATH, Study(), arguments.workers
        if arguments.quick:
            path, study, workers = Path(folder) / PATH.name, QUICK, 0
        content = study_rows(study, path, workers)
        content["growth"] = growth(study, arguments.times)
        results.write(path, content)
        figure(content, path.with_name(FIGURE))
        print(summary(content))


if __name__ == "__main__":
    main()
