"""A data set in memory whose labels follow from two of its three fields, and settings that train on it in a fraction of a second."""

from pathlib import Path

import numpy as np
import pytest

from bench.quality.models import LIBRARY, MODELS, defaults
from bench.quality.protocol import Protocol
from dcrnn_fast.data import PackedDataset, PackedMeta, PackedSplit

FIELDS = {"colour": 9, "shape": 5, "size": 6}
PROTOCOL = Protocol(batch_size=64, evaluations=2, warmup_steps=4, max_rounds=20, finalists=2)


def toy(rows=600, seed=0, dense=1):
    """click depends on colour and shape; buy, a part of the clicks, on shape. A few labels are unknown."""
    rng = np.random.default_rng(seed)
    splits = {}
    for name, count in (("train", rows), ("valid", rows // 2), ("test", rows // 2)):
        ids = np.stack([rng.integers(0, size, count) for size in FIELDS.values()], axis=1).astype(np.int32)
        click = rng.random(count) < 1 / (1 + np.exp(-(ids[:, 0] - 4.0) * (ids[:, 1] - 2.0)))
        buy = click & (rng.random(count) < 1 / (1 + np.exp(-2.0 * (ids[:, 1] - 2.0))))
        labels = np.stack([click, buy], axis=1).astype(np.float32)
        labels[rng.random(count) < 0.05, 1] = np.nan
        values = rng.normal(size=(count, dense)).astype(np.float32) if dense else None
        splits[name] = PackedSplit(name, ids, values, labels, None, rng.integers(0, 20, count))
    vocabulary = {"colour": ["a"] * 9, "shape": ["b"] * 5, "size": [0.5, 1.5, 2.5, 3.5]}
    meta = PackedMeta(
        name="toy", tasks=("click", "buy"), funnel=True, relation="chain", fields=dict(FIELDS), dense=("price",)[:dense], group="user",
        has_weight=False, rows={name: len(split) for name, split in splits.items()}, vocabulary=vocabulary, scaling={}, checksums={},
        format_version=1, digest="toy",
    )  # fmt: skip
    return PackedDataset(Path("toy"), meta, splits)


def log_of_ids(rows=8000, items=300, seed=0):
    """click depends on the item alone, and ids say nothing by their order. More items than HistGradientBoosting takes as categories."""
    rng = np.random.default_rng(seed)
    rate = 1 / (1 + np.exp(-rng.normal(0, 2, items)))
    splits = {}
    for name, count in (("train", rows), ("valid", rows // 2), ("test", rows // 2)):
        ids = np.stack([rng.integers(0, items, count), rng.integers(0, 4, count)], axis=1).astype(np.int32)
        labels = (rng.random(count) < rate[ids[:, 0]]).astype(np.float32)[:, None]
        splits[name] = PackedSplit(name, ids, None, labels, None, None)
    meta = PackedMeta(
        name="log", tasks=("click",), funnel=False, relation="independent", fields={"item": items, "device": 4}, dense=(), group=None,
        has_weight=False, rows={name: len(split) for name, split in splits.items()}, scaling={}, checksums={}, format_version=1,
        vocabulary={"item": ["a"] * items, "device": ["b"] * 4}, digest="log",
    )  # fmt: skip
    return PackedDataset(Path("log"), meta, splits)


def setting_of(model, **changes):
    """The model's defaults, with a high learning rate and more epochs, or as given."""
    space = MODELS[model].space
    return defaults(space) | {key: value for key, value in ({"lr": 0.02, "epochs": 6} | changes).items() if key in space}


def needs_package(name):
    if name in ("lightgbm", "catboost"):
        pytest.importorskip(name)
    if name in LIBRARY:
        pytest.importorskip("torch_rechub")
