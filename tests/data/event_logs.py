"""Tables of events with a history in their schema, what the packed data says of it, and a slow oracle that says what each row may see."""

import numpy as np
import pyarrow as pa

from tests.tables import TableFolder

HISTORY = {"name": "last_items", "of": "item", "by": "user", "time": "time", "last": 3}
CLICKED = {**HISTORY, "where": "click"}


class Log(TableFolder):
    """A table of events in Parquet files, with a history in its schema."""

    def __init__(self, folder):
        super().__init__(
            folder,
            name="log",
            files={"train": "train.parquet", "test": "test.parquet"},
            categorical=["item"],
            histories=[HISTORY],
            tasks=[{"name": "click", "column": "clicked"}],
            min_count=1,
        )

    def fill(self, rows, file="train.parquet"):
        """Write rows of (user, item, time, clicked); a user or an item may be None."""
        columns = zip(*rows, strict=True) if rows else ([] for _ in range(4))
        kinds = {"user": pa.string(), "item": pa.string(), "time": None, "clicked": pa.int8()}
        arrays = [pa.array(list(column), kind) for column, kind in zip(columns, kinds.values(), strict=True)]
        return self.parquet(file, pa.table(arrays, names=list(kinds)))

    def with_history(self, **changes):
        return self.prepare(histories=[HISTORY | changes])


def drawn(seed, rows=150, users=4, items=6, moments=12):
    """Rows with many ties in time, of a few users and items of which some are missing."""
    draw = np.random.default_rng(seed)

    def names(letter, count):
        return [None if draw.random() < 0.1 else f"{letter}{number}" for number in draw.integers(0, count, rows)]

    columns = names("u", users), names("i", items), draw.integers(0, moments, rows).tolist(), draw.integers(0, 2, rows).tolist()
    return list(zip(*columns, strict=True))


def split_log(log, changes, rows=300):
    """Write a file of all rows. Returns the changes of the schema that read it, with a history of clicks, and `changes`."""
    draw = np.random.default_rng(0)
    users, items = ([f"{letter}{number}" for number in draw.integers(0, count, rows)] for letter, count in (("u", 20), ("i", 10)))
    log.fill(list(zip(users, items, range(rows), draw.integers(0, 2, rows).tolist(), strict=True)), "all.parquet")
    return {"files": {"all": "all.parquet"}, "histories": [CLICKED]} | changes


def histories_of(data, split="train", name="last_items"):
    """The items that the ids say, of every row; an item that is out of vocabulary is <oov>."""
    columns = [position for position, column in enumerate(data.meta.fields) if column in data.meta.pooled[name]["columns"]]
    vocabulary = np.array([*data.meta.vocabulary["item"], None], object)
    return [[vocabulary[i] for i in row if i] for row in np.asarray(data.split(split).ids)[:, columns]]


def oracle(rows, *, last, lag=0, clicked=False):
    """The items that each row may see, the most recent first: its user's earlier ones; of one time, the later row is more recent."""
    seen = []
    for user, _, time, _ in rows:
        past = [
            (row[2], number, row[1])
            for number, row in enumerate(rows)
            if user is not None and row[0] == user and row[1] is not None and row[2] + lag < time and (row[3] or not clicked)
        ]
        seen.append([item for *_, item in sorted(past, reverse=True)[:last]])
    return seen
