"""Tables of mostly ids that are written for studies and for the comparison of models: a drawn log, and MovieLens-100K."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import yaml

MOVIELENS = "recbole/dataset_example/ml-100k/ml-100k"
"""Where the RecBole wheel holds MovieLens-100K."""


def write_movielens(wheel: Path, folder: Path, *, min_count: int = 5) -> str:
    """MovieLens-100K by time: 70% train, 15% validation, 15% test rows. Returns the schema."""
    columns, tasks, rows = movielens_rows(wheel)
    return write_table(folder, "movielens-100k", columns, tasks, rows, valid=0.15, test=0.15, min_count=min_count)


def movielens_rows(wheel: Path) -> tuple[list[str], tuple[str, ...], list[list[str | int]]]:
    """The columns, the tasks, and the rows of MovieLens-100K in the order of time. A rating of at least 4 is "like", of 5 "love"."""
    with zipfile.ZipFile(wheel) as archive:
        texts = [archive.read(f"{MOVIELENS}.{part}").decode("utf-8") for part in ("inter", "user", "item")]
    ratings, users, items = (list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))[1:] for text in texts)
    ratings.sort(key=lambda row: float(row[3]))  # stable: ratings of the same second stay in the file's order
    of_user = {row[0]: row[1:4] for row in users}
    of_item = {row[0]: [row[2], row[3].split(" ")[0]] for row in items}
    rows = [
        [user, item, *of_user[user], *of_item[item], int(float(rating) >= 4), int(float(rating) >= 5)] for user, item, rating, _ in ratings
    ]
    return ["user_id", "item_id", "age", "gender", "occupation", "year", "genre"], ("like", "love"), rows


def write_log(seed: int, folder: Path, *, min_count: int = 5, rows: int = 40_000, users: int = 6_000, items: int = 4_000) -> str:
    """Impressions with clicks and consumes. Some users and items are frequent, most are rare; every other seed draws another log.

    The logit of a click and that of a consume after a click each add up a bias of the user, of the item, of the hour and of the device,
    and the product of a user's and an item's vector. With ``min_count=1`` every id of the train rows has an embedding, however rare it is.
    Returns the schema.
    """
    rng = np.random.default_rng([seed, 13])
    user, item = (rng.choice(count, rows, p=long_tail(rng, count)) for count in (users, items))
    hour, device = rng.integers(0, 24, rows), rng.integers(0, 4, rows)
    events = []
    for base in (-1.6, -1.2):
        bias = sum(
            rng.normal(0, scale, count)[ids]
            for scale, count, ids in ((0.6, users, user), (0.8, items, item), (0.2, 24, hour), (0.2, 4, device))
        )
        taste = (rng.normal(0, 0.4, (users, 8))[user] * rng.normal(0, 0.6, (items, 8))[item]).sum(axis=1)
        events.append(rng.random(rows) < 1 / (1 + np.exp(-(base + bias + taste))))
    click, consume = events[0], events[0] & events[1]
    table = zip(user, item, hour, device, click.astype(int), consume.astype(int), strict=True)
    columns = ["user_id", "item_id", "hour", "device"]
    return write_table(folder, f"id-log-{seed}-{min_count}", columns, ("click", "consume"), table, valid=0.2, test=0.1, min_count=min_count)


def long_tail(rng: np.random.Generator, count: int) -> np.ndarray:
    """The probability of each id: a few are frequent, most are rare."""
    weight = rng.permutation((np.arange(count) + 10.0) ** -0.9)
    return weight / weight.sum()


def write_table(
    folder: Path, name: str, columns: Sequence[str], tasks: Sequence[str], table: Iterable[Sequence[object]],
    *, valid: float, test: float, min_count: int,
) -> str:  # fmt: skip
    """A CSV whose last rows are the test rows, those before them the validation rows, and its schema. Groups are the first column."""
    rows = list(table)
    ends = round(len(rows) * (1 - test - valid)), round(len(rows) * (1 - test))
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *tasks, "split"])
        writer.writerows([*row, "train" if at < ends[0] else "valid" if at < ends[1] else "test"] for at, row in enumerate(rows))
    schema = {
        "name": name, "files": {"all": f"{name}.csv", "split_column": "split"}, "funnel": True, "relation": "chain",
        "tasks": [{"name": task, "column": task} for task in tasks], "categorical": list(columns), "group": columns[0],
        "min_count": min_count,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(schema), encoding="utf-8")
    return str(path)
