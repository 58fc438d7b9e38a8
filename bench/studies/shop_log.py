"""A shop's log of 30 days, drawn for studies: impressions with clicks, carts and orders. New users and items come each day.

The logit of each event, given the one before it, adds up effects of the user, item, category, hour and device, six taste factors of user
and item, the user's sensitivity to the price, and for a click the position on the page. `draw_log` gives the log, of which
`packed` makes data sets split by days, with vocabularies that grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dcrnn_fast.data import PackedDataset, PackedMeta, PackedSplit

from ..id_tables import long_tail

TASKS = ("click", "cart", "order")
RATES = (0.08, 0.15, 0.30)
"""Of each task, given the one before it."""
DAYS, FACTORS, POSITIONS = 30, 6, 20
OOV = "<oov>"


@dataclass(frozen=True)
class Scope:
    """How much is drawn, and how."""

    rows: int = 300_000
    users: int = 40_000
    items: int = 8_000
    categories: int = 100
    taste: float = 1.0
    """The standard deviation that the taste factors add to a logit. 0: the log is additive, and all users are as sensitive to the price."""
    price: float = 0.3
    """What a standard deviation of the price's logarithm takes from a logit, in the mean of the users."""
    drift: float = 0.0
    """The standard deviation of a day's step of each item's effect; those of the tastes and of the base rate follow from it."""
    lifetime: int = DAYS
    """For how many days an item is shown; news are for a few."""
    title: bool = False
    """Whether there is a column one-to-one with the item."""
    session: bool = False
    """Whether there is a column of a user's day, which is nearly unique and has no effect."""


@dataclass(frozen=True)
class Log:
    """The rows in order of time: raw ids by field, prices, and labels [N, T]."""

    name: str
    tasks: tuple[str, ...]
    ids: dict[str, np.ndarray]
    price: np.ndarray | None
    labels: np.ndarray
    day: np.ndarray


def draw_log(seed: int, scope: Scope) -> Log:
    """The log before it is encoded and split."""
    rng, tasks = np.random.default_rng([seed, 61]), len(TASKS)
    day = np.sort(rng.integers(0, DAYS, scope.rows))
    ids = {"user": rng.choice(scope.users, scope.rows, p=long_tail(rng, scope.users)), "item": _shown(rng, day, scope)}
    category, log_price = rng.integers(0, scope.categories, scope.items), 3 + 0.8 * rng.normal(size=scope.items)
    ids["category"] = category[ids["item"]]
    sizes = {"hour": 24, "device": 4, "position": POSITIONS}
    ids |= {name: rng.integers(0, size, scope.rows) for name, size in sizes.items()}
    price = log_price[ids["item"]] + 0.1 * rng.normal(size=scope.rows)
    sizes |= {"user": scope.users, "item": scope.items, "category": scope.categories}
    deviations = {"user": 0.6, "item": 0.6, "category": 0.4, "hour": 0.2, "device": 0.2}
    logits = sum(deviation * _alike(rng, sizes[name])[ids[name]] for name, deviation in deviations.items())
    logits[:, 0] -= 0.5 * np.log1p(ids["position"])
    sensitivity = scope.price * (1 + scope.taste * rng.normal(size=scope.users))
    logits -= (sensitivity[ids["user"]] * (price - 3) / 0.8)[:, None]
    logits += _tastes_and_drift(rng, ids, day, scope)
    labels, happened = np.zeros((scope.rows, tasks), np.float32), np.ones(scope.rows)
    for task, rate in enumerate(RATES):
        given = _sigmoid(logits[:, task] + _intercept(logits[happened > 0, task], rate))
        happened = happened * (rng.random(scope.rows) < given)
        labels[:, task] = happened
    if scope.title:
        ids["title"] = rng.permutation(scope.items)[ids["item"]]
    if scope.session:
        ids["session"] = day * scope.users + ids["user"]
    return Log(f"shop-log {seed} {scope}", TASKS, ids, np.exp(price), labels, day)


def packed(log: Log, parts: Mapping[str, range], before: PackedMeta | None = None) -> PackedDataset:
    """The rows of consecutive days as splits. The train rows' ids get numbers, and their prices the scaling.

    With ``before``, the meta of an earlier such data set, its numbers and its scaling stay, and new ids of the train rows follow them.
    """
    rows = {name: slice(*np.searchsorted(log.day, (days.start, days.stop))) for name, days in parts.items()}
    known = {name: _known(values[rows["train"]], before and before.vocabulary[name]) for name, values in log.ids.items()}
    encoded = np.stack([_numbers(values, known[name]) for name, values in log.ids.items()], axis=1)
    dense, scaling = _scaled(log.price, rows["train"], before)
    splits = {
        name: PackedSplit(name, encoded[part], None if dense is None else dense[part], log.labels[part], None, None)
        for name, part in rows.items()
    }
    meta = PackedMeta(
        name=log.name.partition(" ")[0], tasks=log.tasks, funnel=True, relation="chain",
        fields={name: len(ids) + 1 for name, ids in known.items()},
        dense=tuple(scaling), group=None, has_weight=False, rows={name: len(split) for name, split in splits.items()},
        vocabulary={name: [OOV, *map(str, ids.tolist())] for name, ids in known.items()}, scaling=scaling, checksums={},
        format_version=1, digest=f"{log.name} {dict(parts)} {before.digest if before else ''}",
    )  # fmt: skip
    return PackedDataset(Path(meta.name), meta, splits)


def _scaled(price: np.ndarray | None, train: slice, before: PackedMeta | None) -> tuple[np.ndarray | None, dict[str, Any]]:
    """The prices as a dense column, and its scaling: that of before, or of the train rows."""
    if price is None:
        return None, {}
    treated = np.log1p(price)
    own = {"treatment": "log1p", "mean": float(treated[train].mean()), "std": float(treated[train].std())}
    scale = before.scaling["price"] if before else own
    return ((treated - scale["mean"]) / scale["std"]).astype(np.float32)[:, None], {"price": scale}


def _shown(rng: np.random.Generator, day: np.ndarray, scope: Scope) -> np.ndarray:
    """The item of each row. Of items that stay, half are there on the first day; as many new ones come each day."""
    items, there_first = scope.items, scope.items * min(1, scope.lifetime / DAYS) / 2
    old = np.zeros(round(there_first))
    weight, first = long_tail(rng, items), rng.permutation(np.r_[old, rng.integers(1, DAYS, items - len(old))])
    found = []
    for now, count in enumerate(np.bincount(day, minlength=DAYS)):
        there = np.flatnonzero((first <= now) & (now < first + scope.lifetime))
        found.append(rng.choice(there, count, p=weight[there] / weight[there].sum()))
    return np.concatenate(found)


def _tastes_and_drift(rng: np.random.Generator, ids: dict[str, np.ndarray], day: np.ndarray, scope: Scope) -> np.ndarray:
    """What user and item add together to the logits [N, 3], and with a drift what the days add to the items and to all rows."""
    users, items = _alike(rng, scope.users, FACTORS), rng.normal(size=(scope.items, FACTORS))
    item, base, found = np.zeros(scope.items), np.zeros(len(TASKS)), []
    for now in range(DAYS):
        rows = day == now
        taste = (users[ids["user"][rows]] * items[ids["item"][rows], :, None]).sum(axis=1) / np.sqrt(FACTORS)
        found.append(scope.taste * taste + item[ids["item"][rows], None] + base)
        if scope.drift:
            item += scope.drift * rng.normal(size=scope.items)
            items += scope.drift * rng.normal(size=items.shape)
            base += 0.5 * scope.drift * rng.normal(size=len(TASKS))
    return np.concatenate(found)


def _alike(rng: np.random.Generator, *shape: int, shared: float = 0.6) -> np.ndarray:
    """Standard normal values [*shape, 3]; any two tasks' have the correlation ``shared``."""
    return np.sqrt(shared) * rng.normal(size=(*shape, 1)) + np.sqrt(1 - shared) * rng.normal(size=(*shape, len(TASKS)))


def _intercept(logits: np.ndarray, rate: float) -> float:
    """What the logits lack to have this mean probability."""
    low, high = -30.0, 30.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if _sigmoid(logits + middle).mean() > rate else (middle, high)
    return low


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _known(values: np.ndarray, before: list[str] | list[float] | None) -> np.ndarray:
    """The raw id of each number from 1 on: those of before, then the new ones."""
    old = np.array((before or [OOV])[1:], dtype=np.int64)
    return np.concatenate([old, np.setdiff1d(values, old)])


def _numbers(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The number of each raw id; 0 for an unknown one."""
    order = np.argsort(known)
    at = np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)
    return np.where(known[order[at]] == values, order[at] + 1, 0).astype(np.int32)
