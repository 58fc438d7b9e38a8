"""How should a draft read a number? ``make study NAME=numbers`` reads each as a dense column, as the field of its buckets, or as both.

By the draft's rule a column is dense. It is in buckets too only if cells are missing, which bucket 0 says. The trainer's first-order term
is one of ids, with those of buckets; that of dense columns stays at zero. In "as before" all numbers have both forms and the term.

Two sets are embedded ones, three are drawn: "60 numbers", four of which decide on a click; "2,500 rows", of 20 such numbers; and "heavy
tails", a log of users and items with 20 numbers, some of them often 0 or missing. As in the ablation, every setting is the default
configuration but for what it names, no test row takes part, and early stopping keeps the weights that are scored. LightGBM and
logistic regression have the defaults of their search spaces, read the same validation rows, and get both forms.
"""

from __future__ import annotations

from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dcrnn_fast.data import PackedDataset, prepare
from dcrnn_fast.data.catalog import EMBEDDED
from dcrnn_fast.training.device import deterministic
from dcrnn_fast.training.loop import trainer

from ..quality import models as harness
from ..quality.data_sets import long_tail, thin_census
from ..quality.protocol import Protocol, fit, metrics
from ..quality.spaces import defaults
from ..quality.work import ONE_SIZE
from .ablation import DEFAULT, scores, study_of
from .study import trained

BUCKETS = 32
WIDE = {"60 numbers": (60, 50_000), "2,500 rows": (20, 5_000)}
"""By drawn set of normal numbers: how many there are, and rows."""
HEAVY = "heavy tails"
DATA = ("census-income", "hillstrom", *WIDE, HEAVY)
BEFORE, TREES, LINEAR = "as before", "LightGBM", "logistic regression"
LIBRARIES = {TREES: "lightgbm", "CatBoost": "catboost", LINEAR: "logistic"}
"""By setting, the model of the comparison."""
OF_NUMBERS, NO_TERM = "first-order term of dense columns too", "no first-order term"
BOTH = ("buckets", "dense")
FORMS = {
    DEFAULT: (), "buckets as well": BOTH, "buckets alone": BOTH[:1], OF_NUMBERS: (), BEFORE: BOTH, NO_TERM: (),
    "buckets as well, no first-order term": BOTH, TREES: BOTH, LINEAR: BOTH,
}  # fmt: skip
"""By setting, the forms that every number has; none: by the draft's rule."""


def numbers(rng: np.random.Generator, count: int, rows: int) -> dict[str, Any]:
    """Normal numbers, four of which decide on a click, and a device that does not."""
    x = rng.normal(size=(rows, count))
    logits = 1.2 * x[:, 0] - (x[:, 1] > 1) + 0.8 * x[:, 2] * x[:, 3] - 2
    columns = {f"number_{at}": x[:, at] for at in range(count)}
    return columns | {"device": rng.integers(0, 3, rows), "click": clicks(rng, logits)}


def heavy_tails(rng: np.random.Generator, rows: int = 50_000) -> dict[str, Any]:
    """A log of users and items. Of its 20 numbers each second one is 0 in half of the rows, each fourth one is missing in a fifth."""
    sizes = {"user": 3_000, "item": 1_000}
    ids = {name: rng.choice(size, rows, p=long_tail(rng, size)) for name, size in sizes.items()}
    logits = -3 + sum(0.5 * rng.normal(size=size)[ids[name]] for name, size in sizes.items())
    x, found = np.exp(1.5 * rng.normal(size=(rows, 20))), {}
    for at in range(20):
        if at % 2:
            x[rng.random(rows) < 0.5, at] = 0
        absent = rng.random(rows) < (0.2 if at % 4 == 0 else 0)
        logits += (0.3 * np.log1p(x[:, at]) if at < 6 else 0) + 0.8 * absent * (at == 0)
        found[f"number_{at}"] = pa.array(x[:, at], mask=absent)
    logits += 0.5 * np.log1p(x[:, 2]) * (x[:, 3] > 1) - 0.6 * (x[:, 5] > 2)
    return {**ids, **found, "click": clicks(rng, logits)}


def clicks(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    return (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.int8)


def schema_of(data: str, seed: int, folder: Path) -> dict[str, Any]:
    """The schema of a set, whose Parquet file it writes if the set is drawn."""
    if data not in WIDE and data != HEAVY:
        schema = yaml.safe_load((EMBEDDED / f"{data}.yaml").read_text(encoding="utf-8"))
        return schema | {"files": schema["files"] | {"all": str(EMBEDDED / f"{data}.parquet")}}
    rng = np.random.default_rng([seed, DATA.index(data)])
    table = pa.table(heavy_tails(rng) if data == HEAVY else numbers(rng, *WIDE[data]))
    pq.write_table(table, folder / "rows.parquet")
    names = [name for name in table.column_names if name.startswith("number")]
    return {
        "name": "drawn",
        "files": {"all": str(folder / "rows.parquet"), "test_fraction": 0.4},
        "tasks": [{"name": "click", "column": "click"}],
        "categorical": [{"column": name} for name in table.column_names if name not in names and name != "click"],
        "numeric": [{"column": name, "dense": "standardise"} for name in names],
    }


def read_as(data: str, setting: str, seed: int, folder: Path) -> PackedDataset:
    """The set, each of whose numbers has the forms of a setting."""
    schema, forms = schema_of(data, seed, folder), FORMS[setting]
    rows = pq.read_table(schema["files"]["all"])
    for column in schema["numeric"]:
        own = forms or (BOTH if rows.column(column["column"]).null_count else BOTH[1:])
        column.pop("buckets", None)
        if "buckets" in own:
            column["buckets"] = BUCKETS
        if "dense" not in own:
            column.pop("dense", None)
    path = folder / "numbers.yaml"
    path.write_text(yaml.safe_dump(schema | {"name": data.replace(" ", "-").replace(",", "")}), encoding="utf-8")
    return thin_census(prepare(str(path), cache_dir=folder / "cache"))


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows."""
    dataset = read_as(data, setting, seed, folder)
    if setting not in LIBRARIES:
        keys = {"model.first_order": False} if NO_TERM in setting else {}
        too = mock.patch.object(trainer, "first_order_of_ids_alone") if setting in (OF_NUMBERS, BEFORE) else nullcontext()
        with too:
            return scores(trained(dataset, seed, keys, folder), dataset.meta.tasks)
    return of_library(dataset, setting, seed)


def of_library(dataset: PackedDataset, setting: str, seed: int) -> dict[str, Any]:
    """The scores of a library's model with the defaults of its search space; trees stop by the validation rows, which also choose L2."""
    name = LIBRARIES[setting]
    with deterministic(1):
        fitted = fit(name, dataset, defaults(harness.MODELS[name].space), seed=seed, size=ONE_SIZE, protocol=Protocol())
    found = {"train": {"best_step": fitted.history[-1][0]}, "valid": metrics(dataset, "valid", fitted.logits(dataset.split("valid")))}
    return scores(found, dataset.meta.tasks)


STUDY = study_of("numbers", run, dict.fromkeys(FORMS), quick=BEFORE, data=DATA)
