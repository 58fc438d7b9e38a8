"""Does P(consume | click) hold for rows that nobody clicks? ``make study NAME=selection_bias`` trains with each ``loss.cvr`` on logs that
know it.

In three logs drawn from known models, rows that are clicked often consume otherwise than the rest. A model sees the consumes of clicked
rows alone. Its P(consume | click) on the test rows is scored against whether each of them would consume, clicked or not.

"clicked rows" is the naive way: an independent task that learns from clicked rows alone. The models are the default configuration, and on
one log a small one, which cannot learn it all.
Each seed draws another log.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dcrnn_fast.data import PackedDataset, PackedSplit, prepare
from dcrnn_fast.training import load_model
from dcrnn_fast.training.evaluate.metrics import binary_metrics
from dcrnn_fast.training.evaluate.predict import finite_predictions

from ..quality.data_sets import write_table
from .study import Content, Study, Table, beside, defaults, grouped, seeds_of, trained

BASE, NAIVE = "entire_space", "clicked rows"
SETTINGS: dict[str, dict[str, Any]] = {
    BASE: {},
    NAIVE: {"model.relation": "independent"},
    "ipw": {"loss.cvr": "ipw"},
    "dr": {"loss.cvr": "dr"},
}
KINDS = ("one taste", "other rules", "hidden taste")
"""What ties clicks to consumes. One taste, which the fields tell, raises both. Or the rows below the median click rate consume by effects
of their own. Or a taste raises both that no field tells."""
SMALL = {"model.embedding_dim": 1, "model.steps": 1, "model.cell": "cross", "model.tower_dims": [], "model.dense_bins": 0}
DATA: dict[str, tuple[str, dict[str, Any]]] = {kind: (kind, {}) for kind in KINDS} | {
    "other rules, small model": ("other rules", SMALL),
}
"""By name the kind of log, and the keys of all its models. The small model cannot learn the other rules beside the rules."""
PARTS = {"clicked": "clicked rows", "click": "P(click)", "consume": "P(consume)"}
"""What else is scored: P(consume | click) of the clicked rows, as the log shows it, and both events of all rows."""
KEYS = {"auc": "AUC", "log_loss": "log loss", "calibration": "calibration"}
FIELDS, VALUES = 6, 10
TEST, VALID = 0.4, 0.15


class Impressions(NamedTuple):
    """Values of the fields [F, N]; by row P(click), P(consume after a click), the click, and whether the row would consume if clicked."""

    values: np.ndarray
    propensity: np.ndarray
    conversion: np.ndarray
    click: np.ndarray
    would_consume: np.ndarray


def draw(kind: str, seed: int, rows: int = 50_000) -> Impressions:
    """Impressions of one of :data:`KINDS`; every other seed draws other effects and rows."""
    rng = np.random.default_rng([seed, 23])
    values = rng.integers(0, VALUES, (FIELDS, rows))

    def effect(scale: float) -> np.ndarray:
        effects = rng.normal(0, scale, (FIELDS, VALUES))
        return sum(effects[field, values[field]] for field in range(FIELDS))  # type: ignore[return-value]

    taste, own_of_click, own_of_consume, other = effect(0.5), effect(0.2), effect(0.2), effect(0.5)
    hidden = rng.normal(0, 1.2, rows)
    common = hidden if kind == "hidden taste" else taste
    click_logit = -2.2 + common + own_of_click
    consume_logit = -0.8 + common + own_of_consume
    if kind == "other rules":
        rare = click_logit < np.median(click_logit)
        consume_logit = np.where(rare, -0.8 + other, consume_logit)
    propensity, conversion = (1 / (1 + np.exp(-logit)) for logit in (click_logit, consume_logit))
    click, would_consume = rng.random(rows) < propensity, rng.random(rows) < conversion
    return Impressions(values, propensity, conversion, click, would_consume)


def write_log(drawn: Impressions, folder: Path) -> str:
    """The log: fields, clicks, and consumes of clicked rows. The last rows are the test rows. Returns the schema."""
    consume = drawn.click & drawn.would_consume
    table = zip(*drawn.values, drawn.click.astype(int), consume.astype(int), strict=True)
    columns = [f"field_{field}" for field in range(FIELDS)]
    return write_table(folder, "impressions", columns, ("click", "consume"), table, valid=VALID, test=TEST, group=None)


def held_out_rows(drawn: Impressions) -> Impressions:
    """The test rows of :func:`write_log`."""
    start = round(drawn.click.size * (1 - TEST))
    return Impressions(*(part[..., start:] for part in drawn))


def hide_consumes(dataset: PackedDataset) -> PackedDataset:
    """The data set with unknown consumes in the rows without a click."""

    def hidden(split: PackedSplit) -> PackedSplit:
        labels = np.array(split.labels)
        labels[labels[:, 0] == 0, 1] = np.nan
        return replace(split, labels=labels)

    return replace(dataset, splits={name: hidden(split) for name, split in dataset.splits.items()})


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the test rows, and those of the true probabilities."""
    kind, keys = DATA[data]
    drawn = draw(kind, seed)
    dataset = prepare(write_log(drawn, folder), cache_dir=folder / "cache")
    trained(hide_consumes(dataset) if setting == NAIVE else dataset, seed, {**keys, **SETTINGS[setting]}, folder)
    network = load_model(folder / "run" / "model.safetensors")[0]
    predicted = finite_predictions(network, dataset.split("test"), dataset.meta, torch.device("cpu"))
    held_out = held_out_rows(drawn)
    assert (np.asarray(dataset.split("test").labels)[:, 0] == held_out.click).all(), "rows in another order"
    would, click = held_out.would_consume.astype(np.float32), held_out.click
    found = predicted["consume" if setting == NAIVE else "consume_given_click"]
    consume = predicted["click"] * found if setting == NAIVE else predicted["consume"]
    return {
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


def tables(content: Content) -> list[Table]:
    """A line for each log and setting: the scores of P(consume | click), and the log losses of the events. In brackets: the difference from
    the entire space, log by log.
    """
    by_case, lines = grouped(content["rows"], "data", "setting"), []
    columns = [*(("all", key) for key in KEYS), *((part, "log_loss") for part in PARTS)]
    for data in dict.fromkeys(row["data"] for row in content["rows"]):
        for setting in (name for name in SETTINGS if (data, name) in by_case):
            cells = ([[row["scores"][part][key] for row in by_case[data, way]] for way in (setting, BASE)] for part, key in columns)
            lines.append([f"{data}: {setting}", *(beside(*cell) for cell in cells)])
        truth = [statistics.fmean(row["scores"]["truth"][key] for row in by_case[data, BASE]) for key in KEYS]
        lines.append([f"{data}: the true probabilities", *(f"{value:.4f}" for value in truth), *("-" for _ in PARTS)])
    titles = [*(f"all rows: {title}" for title in KEYS.values()), *(f"{title}: log loss" for title in PARTS.values())]
    return [(["log and setting", *titles], lines)]


def note(content: Content) -> str:
    return (
        f"Test rows, mean of {seeds_of(content)} logs each; in brackets the difference from `entire_space` and its standard error. All "
        "rows: P(consume | click) against whether each would be consumed after a click; clicked rows: the same of those alone. P(click), "
        "P(consume): against the events of the log."
    )


STUDY = Study(
    "selection_bias",
    run,
    lambda row: f"log loss of all rows {row['scores']['all']['log_loss']:.4f}",
    tables,
    note,
    data=tuple(DATA),
    settings=tuple(SETTINGS),
    seeds=5,
    about=lambda options: defaults(),
    quick={"seeds": 1, "data": ["one taste"], "settings": [BASE, NAIVE]},
)
