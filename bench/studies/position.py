"""What does a column that is known in training alone buy? ``make study NAME=position`` trains on logs whose relevance is known.

A log has requests of ten items in the order of an earlier ranker. A user clicks an item that is relevant and looked at; the chance to be
looked at is 1 / position. The earlier ranker knew the relevance but for noise; or put items first by a rule that has nothing to do with it,
such as a margin; or knew nothing, "random order". The settings leave the position out, read it as any other column and score as if each
item stood first, or name it under ``train_only``. They are judged on other requests, whose relevance is known, in no order: by NDCG@10, and
by how far the log loss of P(relevant) is above the least.
"""

from __future__ import annotations

from argparse import Namespace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from sklearn.metrics import ndcg_score

from dcrnn_fast import Ranker
from dcrnn_fast.data import prepare

from .study import Content, Study, Table, beside, defaults, grouped, seeds_of, trained

SETTINGS = LEFT_OUT, FEATURE, TRAIN_ONLY = "left out", "any column", "train_only"
ORDERS = BY_RELEVANCE, BY_RULE, AT_RANDOM = "by relevance", "by another rule", "random order"
REQUESTS, JUDGED, SHOWN, ITEMS, KINDS = 8000, 1000, 10, 300, 8


def draw(rng: np.random.Generator, requests: int, order: str, truth: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    """The rows of requests, with the probability that each is relevant."""
    of_item, of_pair, margin = truth
    item, user = rng.integers(0, ITEMS, (requests, SHOWN)), rng.integers(0, KINDS, (requests, 1)).repeat(SHOWN, axis=1)
    logit = of_item[item] + of_pair[user, item % KINDS] - 0.5
    known = {BY_RELEVANCE: logit, BY_RULE: margin[item], AT_RANDOM: 0}
    earlier = rng.normal(size=logit.shape) + known[order]
    position = 1 + np.argsort(np.argsort(-earlier, axis=1), axis=1)
    relevance = 1 / (1 + np.exp(-logit))
    click = rng.random(logit.shape) < relevance / position
    request = np.arange(requests)[:, None].repeat(SHOWN, axis=1)
    rows = {
        "request": request,
        "item": item,
        "kind": item % KINDS,
        "user": user,
        "position": position,
        "click": click,
        "relevance": relevance,
    }
    return {name: values.reshape(-1) for name, values in rows.items()}


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """NDCG@10 and the excess log loss of a run's scores for requests in no order."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=ITEMS), rng.normal(size=(KINDS, KINDS)), rng.normal(size=ITEMS)
    rows = {part: draw(rng, options.requests // share, data, truth) for part, share in (("train", 1), ("valid", 8))}
    for part, columns in rows.items():
        held = {name: pa.array(values.astype(np.int64)) for name, values in columns.items() if name != "relevance"}
        pq.write_table(pa.table(held), folder / f"{part}.parquet")
    schema = {
        "name": "requests",
        "files": {"train": "train.parquet", "valid": "valid.parquet", "test": "valid.parquet"},
        "categorical": ["item", "kind", "user", *(["position"] if setting != LEFT_OUT else [])],
        "tasks": [{"name": "click", "column": "click"}],
        **({"train_only": [{"column": "position", "score_as": 1}]} if setting == TRAIN_ONLY else {}),
    }
    (folder / "requests.yaml").write_text(yaml.safe_dump(schema))
    found = trained(prepare(folder / "requests.yaml", cache_dir=folder / "cache"), seed, {}, folder)
    judged = draw(rng, JUDGED, AT_RANDOM, truth)
    columns = {name: judged[name] for name in ("item", "kind", "user")} | {"position": np.ones(JUDGED * SHOWN, np.int64)}
    p, right = Ranker.load(folder / "run").predict(columns)["click"].astype(np.float64), judged["relevance"]
    loss, least = (-(right * np.log(q) + (1 - right) * np.log1p(-q)).mean() for q in (p.clip(1e-7, 1 - 1e-7), right))
    ndcg = ndcg_score(right.reshape(-1, SHOWN), p.reshape(-1, SHOWN))
    return {"ndcg": float(ndcg), "excess": float(loss - least), "seconds": round(found["train"]["seconds"], 1)}


def tables(content: Content) -> list[Table]:
    """By log and setting; differences from leaving the position out."""
    lines, by_case = [], grouped(content["rows"], "data", "setting")
    for data, setting in product(ORDERS, SETTINGS):
        rows = by_case.get((data, setting), [])
        if not rows:
            continue
        plain = by_case[data, LEFT_OUT]
        cells = [beside([row[name] for row in rows], [row[name] for row in plain]) for name in ("ndcg", "excess")]
        lines.append([f"{data}: {setting}", *cells])
    return [(["earlier order: position is", "NDCG@10 of the relevance", "log loss above the least"], lines)]


def note(content: Content) -> str:
    return f"Means of {seeds_of(content)} logs; in brackets the difference from leaving the position out, with its standard error."


STUDY = Study(
    name="position",
    run=run,
    told=lambda row: f"NDCG@10 {row['ndcg']:.4f}, log loss {row['excess']:+.4f}",
    tables=tables,
    note=note,
    data=ORDERS,
    settings=SETTINGS,
    seeds=5,
    about=lambda options: defaults(),
    add_options=lambda parser: parser.add_argument("--requests", type=int, default=REQUESTS, help="of a log"),
    quick={"seeds": 1, "data": [BY_RELEVANCE], "requests": 400},
)
