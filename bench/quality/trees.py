"""Gradient-boosted trees by three libraries, and logistic regression: one classifier for each task.

What each does with categories stands in boosters.py and logistic.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from dcrnn_fast.data import PackedDataset, PackedMeta, PackedSplit

from .boosters import Booster, CatBoost, Histogram, LightGBM, Rows
from .logistic import Logistic
from .networks import Setting

KINDS: dict[str, Callable[..., Booster]] = {"trees": Histogram, "lightgbm": LightGBM, "catboost": CatBoost, "logistic": Logistic}
"""By the model's name."""
ROUNDS = 500


def columns(split: PackedSplit) -> np.ndarray:
    """The features [N, F + Nd] in float32. Of a field with several values, each is a column; bucketed numbers are the buckets' numbers."""
    ids = np.asarray(split.ids, dtype=np.float32)
    return ids if split.dense is None else np.concatenate([ids, split.dense], axis=1)


def categories(meta: PackedMeta) -> list[int]:
    """How many categories each column holds; 0 where it holds numbers. Id 0, out of vocabulary, is a category like any other."""

    def count(field: str) -> int:
        texts = meta.vocabulary[field]
        return 0 if texts and isinstance(texts[0], float) else meta.fields[field]

    return [*map(count, meta.fields), *[0] * len(meta.dense)]


class Trees:
    """The fitted classifiers of all tasks, by the library of the model ``name``. ``rounds`` has the number of trees of each.

    Each predicts its task's event over all rows. With ``conditional`` in the setting, those of a funnel predict it where the event before
    it happened, and their probabilities are multiplied.
    """

    def __init__(self, name: str, dataset: PackedDataset, setting: Setting, seed: int, rounds: int = ROUNDS) -> None:
        begin, sizes = time.perf_counter(), categories(dataset.meta)
        train, valid = dataset.split("train"), dataset.split("valid")
        x_train, x_valid = columns(train), columns(valid)
        self.conditional = dataset.meta.funnel and setting.get("conditional", False)
        self.models: list[Booster] = []
        for task in range(len(dataset.meta.tasks)):
            known, checked = (self.rows(split, task) for split in (train, valid))
            rows = Rows(x_train[known], train.labels[known, task]), Rows(x_valid[checked], valid.labels[checked, task])
            self.models.append(KINDS[name](sizes, setting, seed, rounds, *rows))
        self.rounds = [model.rounds for model in self.models]
        self.seconds = time.perf_counter() - begin

    def rows(self, split: PackedSplit, task: int) -> np.ndarray:
        """Which rows a task's classifier reads."""
        known = ~np.isnan(split.labels[:, task])
        return known & (split.labels[:, task - 1] == 1) if self.conditional and task else known

    def logits(self, split: PackedSplit) -> np.ndarray:
        """[N, T]."""
        return self.on(columns(split))

    def on(self, x: np.ndarray, threads: int = 1) -> np.ndarray:
        """The logits [N, T] of features [N, F + Nd]."""
        logits = np.stack([model.logits(x, threads) for model in self.models], axis=1)
        if not self.conditional:
            return logits
        joint = np.cumsum(-np.logaddexp(0, -logits), axis=1)
        return joint - np.log(-np.expm1(joint))

    def caller(self, split: PackedSplit, rows: int) -> Callable[[], object]:
        """Predicts the first ``rows`` rows of a split with as many threads as PyTorch takes."""
        x, threads = columns(split)[:rows], torch.get_num_threads()
        return lambda: self.on(x, threads)
