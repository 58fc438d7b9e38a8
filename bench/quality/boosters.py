"""The libraries of gradient-boosted trees. Each treats categories in its own way, and none sees ids as ordered numbers.

Each gets the features, how many categories each column has (0: numbers), a setting, a seed, and the most rounds. It trains with one thread,
ends once ``PATIENCE`` rounds have passed without a lower log loss of the validation rows, and keeps the best round. ``rounds`` is the
number of trees kept, ``logits(x)`` gives [N].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder
from threadpoolctl import threadpool_limits

from .networks import Setting

PATIENCE = 20
MOST_CATEGORIES = 255
"""That a column of HistGradientBoosting may have."""
FOLDS, ENCODING_SEED = 5, 0
"""By which the labels of train rows become features."""


class Rows(NamedTuple):
    """Features [N, F + Nd] and labels [N] of one task."""

    x: np.ndarray
    y: np.ndarray


class Booster(Protocol):
    """A fitted classifier of one task."""

    rounds: int

    def logits(self, x: np.ndarray, threads: int = 1) -> np.ndarray: ...


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

    def logits(self, x: np.ndarray, threads: int = 1) -> np.ndarray:
        """Takes OpenMP's threads: to change them for a call costs more than the call."""
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

    def logits(self, x: np.ndarray, threads: int = 1) -> np.ndarray:
        return np.asarray(self.model.predict(x, raw_score=True, num_iteration=self.rounds, num_threads=threads))


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

    def logits(self, x: np.ndarray, threads: int = 1) -> np.ndarray:
        return np.asarray(self.model.predict(self.pool(x), prediction_type="RawFormulaVal", thread_count=threads))
