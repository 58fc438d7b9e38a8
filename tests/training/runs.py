"""What tests of runs share: what a run says, how it is stopped, what must not differ, and the features of which each has a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load, save

from dcrnn_fast.training import Report, train
from dcrnn_fast.training.config import RunConfig
from tests.tables import TableFolder
from tests.training.tiny import files_below, tiny_config, write_table


class Notes(Report):
    """Keeps the lines that a run says."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


class StoppedError(Exception):
    pass


def each_step(call, report=None):
    """A report that calls with the number of steps done, after every step."""
    report = report or Report()
    report.step = lambda *, step, **_: call(step)
    return report


def stop_at(step, report=None):
    def callback(now):
        if now == step:
            raise StoppedError

    return each_step(callback, report)


def interrupted(config, folder, step):
    """Start a run and stop it after a step."""
    with pytest.raises(StoppedError):
        train(config, folder, report=stop_at(step))


def outcome(folder):
    """What must not differ by one bit: best weights, all tensors of the last checkpoints, the curves' numbers, results but for times."""
    files = files_below(folder)
    kept = {name: data for name, data in files.items() if name.endswith((".safetensors", ".svg", ".yaml"))}
    kept |= {name: save(load(data)) for name, data in kept.items() if name.startswith("checkpoints/")}  # without the state, which has times
    metrics = json.loads(files["metrics.json"])
    del metrics["train"]["seconds"], metrics["train"]["rows_per_second"], metrics["digest"]
    return kept | {"metrics.json": metrics}


HOUR = {"name": "hour", "column": "time", "as": "hour"}
LAST_ITEM = {"column": "last_item", "same_ids_as": "item"}
TAGS = {"column": "tags", "max_values": 3, "separator": "|", "pooling": "sum"}
SEEN = {"column": "seen", "max_values": 4, "same_ids_as": "item"}
LAST_CLICKED = {"name": "last_clicked", "of": "item", "by": "user", "time": "time", "last": 4, "where": "click"}
SHARED, SEVERAL, HISTORIES = "shared and derived fields", "fields of several values", "computed histories"
FIELDS = {
    SHARED: {"derived": [HOUR], "categorical": [LAST_ITEM, "hour", "item"]},
    SEVERAL: {"categorical": [TAGS, SEEN, "item"]},
    HISTORIES: {"categorical": ["item"], "histories": [LAST_CLICKED], "files": {"all": "log.parquet"},
                           "split": {"time": "time", "valid": 0.15, "test": 0.15}},
}  # fmt: skip
"""What a schema of the log says of its fields."""


def write_log(folder, fields, *, seed=0, start=1717200000, rename=None, **changes):
    """Write 700 rows of items with their time, the item before, a list of items, the same as text, and a user; returns the schema's path.

    A click means that the item is one of those seen. ``rename`` gives one item another name. ``changes`` replace keys of the schema.
    """
    rng = np.random.default_rng(seed)

    def name(item):
        return f"i{item}" if f"i{item}" != rename else "novel"

    items = rng.integers(0, 8, 701)
    seen = [[*map(name, rng.integers(0, 8, length))] for length in rng.integers(0, 5, 700)]
    rows = {
        "last_item": [*map(name, items[:-1])],
        "item": [*map(name, items[1:])],
        "time": (start + 977 * np.arange(700)).tolist(),
        "seen": pa.array(seen, pa.list_(pa.string())),
        "tags": ["|".join(list_[:3]) for list_ in seen],
        "user": [f"u{number}" for number in rng.integers(0, 12, 700)],
        "click": [int(name(item) in list_) for (_, item), list_ in zip(pairwise(items), seen, strict=True)],
    }
    schema = {"files": {"all": "log.parquet", "test_fraction": 0.3}} | FIELDS[fields] | changes
    return TableFolder(folder, name="log", **schema).parquet("log.parquet", rows).save()


UNCERTAINTY = "uncertainty weights, clipped gradients, propensities"
BFLOAT16 = "bfloat16, dropped ids, evaluations within an epoch"
SPARSE = "sparse embedding"
SCENARIOS = "scenarios, dense bins, negative rate"
TRANSFER = "transfer, trunk, row weights"
INDEPENDENT = "independent tasks, low rank, untied"
FUNNEL: dict[str, dict[str, Any]] = {
    UNCERTAINTY: {"loss__weighting": "uncertainty", "optimiser__clip_norm": 0.5, "loss__cvr": "ipw"},
    BFLOAT16: {
        "precision": "bfloat16", "oov_dropout": 20.0, "early_stopping__every_steps": 3, "early_stopping__patience": 9,
        "optimiser__embedding_lr": 0.005,
    },
    SPARSE: {
        "model__embedding": "sparse", "model__first_order": True, "optimiser__clip_norm": 0.5,
        "optimiser__embedding_weight_decay": 0.1, "oov_dropout": 20.0,
        "optimiser__epochs": 3,
    },
    SCENARIOS: {
        "model__sharing": "trunk", "model__scenario": "shape", "model__dense_bins": 4,
        "model__steps": 1, "negative_rate": 0.5, "optimiser__epochs": 4,
    },
    TRANSFER: {"model__relation": "transfer", "model__sharing": "trunk", "model__steps": 2, "loss__sample_weight": True},
    INDEPENDENT: {"model__relation": "independent", "model__rank": 3, "model__tied": False},
}  # fmt: skip
"""By features, the settings of a run on the tiny funnel."""
FEATURES = [*FUNNEL, *FIELDS]


def config_of(feature, schema, **changes):
    """Two epochs, which are 16 steps of the funnel and 8 of the log."""
    return tiny_config(schema, **{"optimiser__epochs": 2} | FUNNEL.get(feature, {}) | changes)


@dataclass
class Run:
    """A finished run with some features. Do not write into its folder."""

    feature: str
    schema: Path
    folder: Path
    config: RunConfig = field(init=False)
    notes: list[str] = field(init=False)

    def __post_init__(self):
        self.config = config_of(self.feature, self.schema)
        train(self.config, self.folder, report=(notes := Notes()))
        self.notes = notes.lines


def runs_in(folder):
    """The run of a feature, which is trained when it is first asked for."""
    found = {}

    def run_of(feature):
        if feature not in found:
            place = folder / str(len(found))
            schema = write_table(place) if feature in FUNNEL else write_log(place, feature)
            found[feature] = Run(feature, schema, place / "run")
        return found[feature]

    return run_of
