"""Gradient-boosted trees by three libraries, and logistic regression: one classifier for each task.

Each treats categories in its own way, and none sees ids as ordered numbers. A classifier gets how many categories each column has (0:
numbers), a setting, a seed, the most rounds, and the train and validation rows. It trains with one thread, ends once ``PATIENCE`` rounds
have passed without a lower log loss of the validation rows, and keeps the best round. ``rounds`` is the number of trees kept, ``logits(x)``
gives [N].
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder
from threadpoolctl import threadpool_limits

from dcrnn_fast.data import PackedDataset, PackedMeta, PackedSplit

from .logistic import Logistic, Rows
from .networks import Setting

ROUNDS, PATIENCE = 500, 20
MOST_CATEGORIES = 255
"""That a column of HistGradientBoosting may have."""
FOLDS, ENCODING_SEED = 5, 0
"""By which the labels of train rows become features."""


class Histogram:
    """scikit-learn's HistGradientBoosting. A column of more categories than it can take becomes the labels' rate in each category.

    The rate that a train row gets is that of other folds, so no row sees its own label; other rows get that of all train rows.
    """

    def __init__(self, sizes: Sequence[int], setting: Setting, seed: int, rounds: int, train: Rows, valid: Rows) -> None:
        self.large = [at for at, size in enumerate(sizes) if size > MOST_CATEGORIES]
        self.encoder = TargetEncoder(target_type="binary").fit(train.x[:, self.large], train.y) if self.large else None
        native = [0 < size <= MOST_CATEGORIES for size in sizes]
        options: dict[str, Any] = {**setting, "categorical_features": native, "random_state": seed}
        with threadpool_limits(1):
            x = self.cross_fitted(train)
            model = HistGradientBoostingClassifier(max_iter=rounds, early_stopping=True, n_iter_no_change=PATIENCE, tol=0.0, **options)
            model.fit(x, train.y, X_val=self.encoded(valid.x), y_val=valid.y)
            self.rounds = max(1, int(np.argmax(model.validation_score_)))  # the score before the first round is there too
            if self.rounds < model.n_iter_:  # the same first rounds: of a fit, each follows from those before it
                model = HistGradientBoostingClassifier(max_iter=self.rounds, early_stopping=False, **options).fit(x, train.y)
        self.model = model

    def cross_fitted(self, train: Rows) -> np.ndarray:
        """The train rows, each with the rates of the folds that it is not in."""
        if self.encoder is None:
            return train.x
        x, folds = train.x.copy(), StratifiedKFold(FOLDS, shuffle=True, random_state=ENCODING_SEED)
        for others, fold in folds.split(train.x, train.y):
            encoder = clone(self.encoder).fit(train.x[others][:, self.large], train.y[others])
            x[np.ix_(fold, self.large)] = encoder.transform(train.x[fold][:, self.large])
        return x

    def encoded(self, x: np.ndarray) -> np.ndarray:
        """Rows that are no train rows, with the rates of all train rows."""
        if self.encoder is None:
            return x
        x, rates = x.copy(), self.encoder.transform(x[:, self.large])
        x[:, self.large] = rates
        return x

    def logits(self, x: np.ndarray) -> np.ndarray:
        return self.model.decision_function(self.encoded(x))


class LightGBM:
    """LightGBM. A split sends some categories left and the others right, found by sorting them by their gradients."""

    def __init__(self, sizes: Sequence[int], setting: Setting, seed: int, rounds: int, train: Rows, valid: Rows) -> None:
        import lightgbm

        always = {"objective": "binary", "metric": "binary_logloss", "num_threads": 1, "seed": seed, "verbosity": -1}
        options = {**setting, **always, "deterministic": True, "force_col_wise": True}
        chosen = [at for at, size in enumerate(sizes) if size]
        data = lightgbm.Dataset(train.x, train.y, categorical_feature=chosen, params=options)
        checked = lightgbm.Dataset(valid.x, valid.y, reference=data, params=options)
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        self.model = lightgbm.train(options, data, rounds, valid_sets=[checked], callbacks=[stop])
        self.rounds = self.model.best_iteration

    def logits(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.predict(x, raw_score=True, num_iteration=self.rounds, num_threads=1))


class CatBoost:
    """CatBoost. Of a category and of combinations of them it takes the labels' rate among the rows before, in a drawn order."""

    def __init__(self, sizes: Sequence[int], setting: Setting, seed: int, rounds: int, train: Rows, valid: Rows) -> None:
        import catboost

        self.is_category = np.array(sizes) > 0
        self.model = catboost.CatBoostClassifier(
            iterations=rounds, loss_function="Logloss", boost_from_average=True, od_type="Iter", od_wait=PATIENCE, use_best_model=True,
            random_seed=seed, thread_count=1, allow_writing_files=False, logging_level="Silent", **setting,
        )  # fmt: skip
        self.model.fit(self.pool(train.x, train.y), eval_set=self.pool(valid.x, valid.y))
        self.rounds = self.model.tree_count_

    def pool(self, x: np.ndarray, y: np.ndarray | None = None) -> Any:
        """The rows as the library takes them: numbers, and texts of the ids."""
        from catboost import FeaturesData, Pool

        numbers, ids = np.ascontiguousarray(x[:, ~self.is_category]), x[:, self.is_category].astype(np.int64)
        texts = ids.astype(bytes).astype(object)
        return Pool(FeaturesData(num_feature_data=numbers if numbers.size else None, cat_feature_data=texts if texts.size else None), y)

    def logits(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.predict(self.pool(x), prediction_type="RawFormulaVal", thread_count=1))


KINDS: dict[str, Callable[..., Any]] = {"trees": Histogram, "lightgbm": LightGBM, "catboost": CatBoost, "logistic": Logistic}
"""By the model's name."""


def columns(split: PackedSplit) -> np.ndarray:
    """The features [N, F + Nd] in float32. Of a field with several values, each is a column; bucketed numbers are the buckets' numbers."""
    ids = np.asarray(split.ids, dtype=np.float32)
    return ids if split.dense is None else np.concatenate([ids, split.dense], axis=1)


def categories(meta: PackedMeta) -> list[int]:
    """How many categories each column holds; 0 where it holds numbers. Id 0, out of vocabulary, is a category like any other."""
    numbers = [bool(texts) and isinstance(texts[0], float) for texts in map(meta.vocabulary.__getitem__, meta.fields)]
    return [0 if number else size for number, size in zip(numbers, meta.fields.values(), strict=True)] + [0] * len(meta.dense)


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
        self.models = []
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
        logits = np.stack([model.logits(columns(split)) for model in self.models], axis=1)
        if not self.conditional:
            return logits
        joint = np.cumsum(-np.logaddexp(0, -logits), axis=1)
        return joint - np.log(-np.expm1(joint))
