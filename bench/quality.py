"""Quality against baselines on the embedded data: ``make quality`` trains every variant with every seed and writes results/quality.json.

All variants have the same configuration (the default one but for ``BEFORE``), data, split and early stopping; only what names the
variant differs. The configuration was chosen on census-income's validation rows for rows sharing, so the other variants had no tuning of
their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dcrnn_fast.data import PackedDataset, prepare
from dcrnn_fast.training import RunConfig, load_config, train

from . import machine, results

DATA = ("census-income", "hillstrom")
VARIANTS = {
    "DCRNN, rows sharing 0.5": {},
    "DCRNN, trunk sharing 0.5": {"model.sharing": "trunk"},
    "hard sharing (1.0)": {"model.share_ratio": 1.0},
    "no sharing (0.0)": {"model.share_ratio": 0.0},
    "no gate (cross cell)": {"model.cell": "cross"},
}
BEFORE = {"model.embedding_init_std": 8**-0.5, "early_stopping.monitor": "auc"}
"""What the defaults were when the committed results were measured. Remove it to measure today's."""
SINGLE = "single-task models"


class Run(NamedTuple):
    """One variant trained under one seed, and its metrics on the test rows."""

    variant: str
    parameters: int
    metrics: dict[str, dict[str, Any]]


def one_task(dataset: PackedDataset, task: int) -> PackedDataset:
    """The same rows and features with one label."""
    meta = dataclasses.replace(dataset.meta, tasks=dataset.meta.tasks[task : task + 1], funnel=False, relation="independent")
    splits = {name: dataclasses.replace(split, labels=split.labels[:, task : task + 1]) for name, split in dataset.splits.items()}
    return dataclasses.replace(dataset, meta=meta, splits=splits)


def runs(data: str, seed: int, folder: Path) -> Iterator[Run]:
    """Every variant under one seed."""

    def configure(overrides: dict[str, object]) -> RunConfig:
        return load_config(None, {"data": data, "seed": seed, **BEFORE, **overrides})

    base = configure({})
    dataset = prepare(data, seed=base.split_seed, valid_fraction=base.valid_fraction)
    for number, (variant, overrides) in enumerate(VARIANTS.items()):
        result = train(configure(overrides), folder / f"{data}-{seed}-{number}", dataset=dataset)
        yield Run(variant, result["model"]["parameters"], result["test"])
    parameters, metrics = 0, {}
    for task, name in enumerate(dataset.meta.tasks):
        result = train(base, folder / f"{data}-{seed}-single-{name}", dataset=one_task(dataset, task))
        parameters += result["model"]["parameters"]
        metrics[name] = result["test"][name]
    yield Run(SINGLE, parameters, metrics)


def summarise(data: str, collected: list[Run]) -> Iterator[dict[str, object]]:
    """One row a variant and task: mean and sample standard deviation over the seeds."""
    for variant in [*VARIANTS, SINGLE]:
        of_variant = [run for run in collected if run.variant == variant]
        for task in of_variant[0].metrics:
            values = {key: [run.metrics[task][key] for run in of_variant] for key in ("auc", "log_loss", "calibration")}
            row: dict[str, object] = {"data": data, "model": variant, "task": task}
            row |= {"parameters": of_variant[0].parameters, "seeds": len(of_variant)}
            for key, numbers in values.items():
                row[key] = statistics.fmean(numbers)
                row[f"{key}_std"] = statistics.stdev(numbers) if len(numbers) > 1 else None
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="*", default=DATA, choices=DATA)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for data in arguments.data:
            collected = []
            for seed in range(arguments.seeds):
                for run in runs(data, seed, Path(folder)):
                    collected.append(run)
                    aucs = ", ".join(f"{task} {entry['auc']:.5f}" for task, entry in run.metrics.items())
                    print(f"{data}, seed {seed}, {run.variant}: {aucs}", flush=True)
            rows += summarise(data, collected)
    for row in rows:
        spread = "" if row["auc_std"] is None else f" +- {row['auc_std']:.5f}"
        print(f"{row['data']}, {row['model']}, {row['task']}: AUC {row['auc']:.5f}{spread}, log loss {row['log_loss']:.5f}")
    configuration = load_config(None, {"data": "each of them", **BEFORE}).to_dict()
    path = results.COMMITTED / "quality.json"
    results.write(path, {"machine": machine.description(), "configuration": configuration, "rows": rows})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
