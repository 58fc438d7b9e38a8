from pathlib import Path

import pyarrow as pa
import pytest

from dcrnn_fast.data import PackedDataset, prepare
from tests.data.event_logs import Log
from tests.tables import TableFolder

HOUR, WEEKDAY, DAY = ({"name": part, "column": "time", "as": part} for part in ("hour", "weekday", "day"))
CROSS = {"name": "city_x_device", "cross": ["city", "device"]}
SHARED = {"column": "last_item", "same_ids_as": "item"}
GENRES = {"column": "genres", "max_values": 3, "separator": "|"}
LISTS = [["a", "b"], [], ["b", "c", "a", "b"], None, ["b"], ["d", "a"]]
CLICKS = [0, 1, 0, 1, 1, 0]


@pytest.fixture
def table(tmp_path: Path) -> TableFolder:
    """A shop with a category, a number and a label."""
    table = TableFolder(
        tmp_path,
        files={"train": "train.csv", "test": "test.csv"},
        categorical=["city"],
        numeric=[{"column": "price", "buckets": 4, "dense": "standardise"}],
        min_count=1,
    )
    train = [("a", 1, 0), ("b", 2, 1), ("a", 3, 0), ("c", 4, 1), ("a", 5, 0), ("b", 6, 1), ("a", 7, 0), ("b", 8, 1)]
    return table.write("train.csv", "city,price,click", train).write("test.csv", "city,price,click", [("a", 2, 1), ("d", 9, 0)])


@pytest.fixture
def items(table):
    """A log of items and the item before. The last_item of a first row is missing."""
    rows = [("", "p", 0), ("p", "q", 1), ("q", "p", 0), ("", "r", 1), ("r", "q", 0), ("q", "q", 1)]
    for name in ("train.csv", "test.csv"):
        table.write(name, "last_item,item,click", rows)
    table.schema |= {"categorical": [SHARED, "item"], "numeric": []}
    return table


@pytest.fixture
def films(table):
    """Films with genres. ``films.fill(genres, ...)`` writes the train and test file, as Parquet or CSV."""
    table.schema |= {"categorical": [GENRES], "numeric": [], "files": {"train": "films.parquet", "test": "films.parquet"}}

    def fill(cells, **columns):
        rows = pa.table({"genres": cells, **columns, "click": (CLICKS * len(cells))[: len(cells)]})
        return table.parquet("films.parquet", rows)

    table.fill = fill
    return fill(LISTS)


@pytest.fixture
def visits(table):
    """A table with times, and its schema with derived columns."""
    rows = ["a,x,2024-05-31T23:59:00,0", "a,y,2024-06-01T00:10:00,1", "b,x,,0", "a,x,2024-06-02T23:00:00,1"]
    for name in ("train.csv", "test.csv"):
        table.write(name, "city,device,time,click", rows)
    table.schema |= {
        "derived": [HOUR, WEEKDAY, CROSS],
        "categorical": ["hour", {"column": "city_x_device", "min_count": 2}],
        "numeric": [{"column": "weekday", "buckets": 7, "dense": "standardise"}],
    }
    return table


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two test rows of a user of their own; a test writes the train rows."""
    return Log(tmp_path).fill([("tester", "a", 1, 0), ("tester", "b", 2, 1)], "test.parquet")


@pytest.fixture(scope="session")
def census() -> PackedDataset:
    return prepare("census-income")


@pytest.fixture(scope="session")
def hillstrom() -> PackedDataset:
    return prepare("hillstrom")
