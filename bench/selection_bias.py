"""Does P(consume | click) hold for rows that nobody clicks? ``make selection-bias`` trains with each ``loss.cvr`` on logs that know it.

In three logs drawn from known models (bench/selection_data.py), rows that are clicked often consume otherwise than the rest. A model sees
the consumes of clicked rows alone. Its P(consume | click) on the test rows is scored against whether each of them would consume, clicked or
not.

"clicked rows" is the naive way: an independent task that learns from clicked rows alone. The models are the default configuration, and on
one log a small one, which cannot learn it all.
Each seed draws another log. Runs that are in the results are not run again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dcrnn_fast.data import PackedDataset, PackedSplit, prepare
from dcrnn_fast.training import load_config, load_model, train
from dcrnn_fast.training.evaluate.metrics import binary_metrics
from dcrnn_fast.training.evaluate.predict import predict_split

from . import results
from .selection_data import KINDS, draw, held_out_rows, write_log

PATH = results.COMMITTED / "selection_bias.json"
BASE, NAIVE = "entire_space", "clicked rows"
SETTINGS: dict[str, dict[str, Any]] = {
    BASE: {},
    NAIVE: {"model.relation": "independent"},
    "ipw": {"loss.cvr": "ipw"},
    "dr": {"loss.cvr": "dr"},
    "ipw, cvr_weight 0.1": {"loss.cvr": "ipw", "loss.cvr_weight": 0.1},
    "dr, cvr_weight 0.1": {"loss.cvr": "dr", "loss.cvr_weight": 0.1},
}
SMALL = {"model.embedding_dim": 1, "model.steps": 1, "model.cell": "cross", "model.tower_dims": [], "model.dense_bins": 0}
DATA: dict[str, tuple[str, dict[str, Any]]] = {kind: (kind, {}) for kind in KINDS} | {
    "other rules, small model": ("other rules", SMALL),
}
"""By name the kind of log, and the keys of all its models. The small model cannot learn the other rules beside the rules."""
PARTS = {"clicked": "clicked rows", "click": "P(click)", "consume": "P(consume)"}
"""What else is scored: P(consume | click) of the clicked rows, as the log shows it, and both events of all rows."""
KEYS = {"auc": "AUC", "log_loss": "log loss", "calibration": "calibration"}


def of_clicked_rows(dataset: PackedDataset) -> PackedDataset:
    """The data set with unknown consumes in the rows without a click."""

    def hidden(split: PackedSplit) -> PackedSplit:
        labels = np.array(split.labels)
        labels[labels[:, 0] == 0, 1] = np.nan
        return replace(split, labels=labels)

    return replace(dataset, splits={name: hidden(split) for name, split in dataset.splits.items()})


def run(data: str, setting: str, seed: int) -> dict[str, Any]:
    """Train once, with one thread; the scores of the test rows, and those of the true probabilities."""
    torch.set_num_threads(1)
    kind, model_keys = DATA[data]
    drawn = draw(kind, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = prepare(write_log(drawn, folder), cache_dir=folder / "cache")
        config = {"data": dataset.meta.name, "seed": seed, "threads": 1, **model_keys, **SETTINGS[setting]}
        train(load_config(None, config), folder / "run", dataset=of_clicked_rows(dataset) if setting == NAIVE else dataset)
        network = load_model(folder / "run" / "model.safetensors")[0]
        predicted = predict_split(network, dataset.split("test"), torch.device("cpu"))
        held_out = held_out_rows(drawn)
        assert (np.asarray(dataset.split("test").labels)[:, 0] == held_out.click).all(), "rows in another order"
    would, click = held_out.would_consume.astype(np.float32), held_out.click
    found = predicted["consume" if setting == NAIVE else "consume_given_click"]
    consume = predicted["click"] * found if setting == NAIVE else predicted["consume"]
    return {
        "data": data,
        "setting": setting,
        "seed": seed,
        "click_rate": float(click.mean()),
        "rates": {"clicked": float(would[click].mean()), "all": float(would.mean())},
        "scores": {
            "all": binary_metrics(would, found),
            "clicked": binary_metrics(would[click], found[click]),
            "click": binary_metrics(click.astype(np.float32), predicted["click"]),
            "consume": binary_metrics(click * would, consume),
            "truth": binary_metrics(would, held_out.conversion),
        },
    }


def beside(values: Sequence[float], of_base: Sequence[float]) -> str:
    """The mean over the seeds; in brackets the mean difference from the entire space and its standard error."""
    differences = [value - other for value, other in zip(values, of_base, strict=True)]
    said = f"{statistics.fmean(values):.4f}"
    if len(values) < 2 or not any(differences):
        return said
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return f"{said} ({statistics.fmean(differences):+.4f} ± {error:.4f})"


def table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each log and setting: the scores of P(consume | click), and the log losses of the events."""
    by: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        by.setdefault((row["data"], row["setting"]), []).append(row)
    columns = [*(("all", key) for key in KEYS), *((part, "log_loss") for part in PARTS)]
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        of_base = by[data, BASE]
        for setting in (name for name in SETTINGS if (data, name) in by):
            cells = ([[row["scores"][part][key] for row in of] for of in (by[data, setting], of_base)] for part, key in columns)
            lines.append([f"{data}: {setting}", *(beside(*cell) for cell in cells)])
        truth = [statistics.fmean(row["scores"]["truth"][key] for row in of_base) for key in KEYS]
        lines.append([f"{data}: the true probabilities", *(f"{value:.4f}" for value in truth), *("-" for _ in PARTS)])
    return lines


def header() -> list[str]:
    """The columns of :func:`table`."""
    return ["log and setting", *(f"all rows: {title}" for title in KEYS.values()), *(f"{title}: log loss" for title in PARTS.values())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each")
    arguments = parser.parse_args()
    rows = results.run_missing(
        PATH,
        run,
        [(data, setting, seed) for seed in range(arguments.seeds) for data in DATA for setting in SETTINGS],
        workers=arguments.workers,
        configuration=load_config(None, {"data": "each of them"}).to_dict(),
        said=lambda row: f"log loss of all rows {row['scores']['all']['log_loss']:.4f}",
    )
    for line in [header(), *table(rows)]:
        print("  ".join(line))


if __name__ == "__main__":
    main()
