"""scikit-learn's HistGradientBoostingClassifier, one for each task.

A field of at most 255 categories is categorical to it; of larger fields and of bucketed numbers it sees the ids as ordered numbers, without
any use of the labels. Dense columns stay as they are. Its rounds end as the networks' steps do, by the log loss of the validation rows, and
the best round is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from dcrnn_fast.data import PackedDataset, PackedMeta, PackedSplit

from .networks import Setting

CATEGORIES = 255
ROUNDS, PATIENCE = 500, 20


def columns(split: PackedSplit) -> np.ndarray:
    """The features [N, F + Nd] in float32."""
    ids = np.asarray(split.ids, dtype=np.float32)
    return ids if split.dense is None else np.concatenate([ids, split.dense], axis=1)


def categorical(meta: PackedMeta) -> list[bool]:
    """Which columns hold categories, not numbers."""

    def is_category(field: str) -> bool:
        texts = meta.vocabulary[field]
        return meta.fields[field] <= CATEGORIES and not (texts and isinstance(texts[0], float))

    return [*map(is_category, meta.fields), *[False] * len(meta.dense)]


class Trees:
    """The fitted classifiers of all tasks. ``rounds`` has the number of trees of each."""

    def __init__(self, dataset: PackedDataset, setting: Setting, seed: int, rounds: int = ROUNDS) -> None:
        begin, (train, valid) = time.perf_counter(), (dataset.split(name) for name in ("train", "valid"))
        x_train, x_valid = columns(train), columns(valid)
        self.models: list[HistGradientBoostingClassifier] = []
        self.rounds: list[int] = []
        for task in range(len(dataset.meta.tasks)):
            known, checked = (~np.isnan(split.labels[:, task]) for split in (train, valid))
            y_train, y_valid = train.labels[known, task], valid.labels[checked, task]
            options: dict[str, Any] = {**setting, "categorical_features": categorical(dataset.meta), "random_state": seed}
            with threadpool_limits(1):
                model = HistGradientBoostingClassifier(max_iter=rounds, early_stopping=True, n_iter_no_change=PATIENCE, tol=0.0, **options)
                model.fit(x_train[known], y_train, X_val=x_valid[checked], y_val=y_valid)
                best = max(1, int(np.argmax(model.validation_score_)))  # the score before the first round is there too
                if best < model.n_iter_:  # the same first rounds: of a fit, each follows from those before it
                    model = HistGradientBoostingClassifier(max_iter=best, early_stopping=False, **options)
                    model.fit(x_train[known], y_train)
            self.models.append(model)
            self.rounds.append(best)
        self.seconds = time.perf_counter() - begin

    def logits(self, split: PackedSplit) -> np.ndarray:
        """[N, T]."""
        return self.on(columns(split))

    def on(self, x: np.ndarray) -> np.ndarray:
        """The logits [N, T] of features [N, F + Nd]."""
        return np.stack([model.decision_function(x) for model in self.models], axis=1)

    def caller(self, split: PackedSplit, rows: int) -> Callable[[], object]:
        """Predicts the first ``rows`` rows of a split."""
        x = columns(split)[:rows]
        return lambda: self.on(x)
