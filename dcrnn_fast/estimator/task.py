"""One event of a funnel as a binary classifier that obeys all of scikit-learn's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from ..data.encoder.memory import arrow_table, as_columns, column_names
from ..errors import ConfigError, DataError
from ..support.checks import label_columns
from .arguments import only_eval_set
from .classifier import FunnelClassifier


class FunnelTaskClassifier(ClassifierMixin, FunnelClassifier):
    """A binary classifier for one event of a :class:`dcrnn_fast.FunnelClassifier`: for searches, calibration, pipelines and the like.

    Args:
        task: the event to predict; None: the last of ``tasks``.
        tasks: as in :class:`dcrnn_fast.FunnelClassifier`. The model learns all of them. Their labels are columns of ``X``; those of
            ``task`` can be ``y``. An ``X`` without column names, such as an array, has one task.
        time, group, weight, funnel, categorical, numeric, histories, train_only, config, random_state, verbose: as there.

    Attributes of a fitted model: ``classes_`` has the two labels; ``predict_proba`` returns their probabilities [N, 2].

    Example::

        order = FunnelClassifier(tasks=["click", "order"]).task("order")
        cross_val_score(order, frame, frame["order"], scoring="neg_log_loss")
    """

    task: Any
    classes_: Any
    _tasks: list[str]
    _names: list[str]

    def __init__(
        self,
        task: str | None = None,
        *,
        tasks: Sequence[str] = ("label",),
        time: str | None = None,
        group: str | None = None,
        weight: str | None = None,
        funnel: bool | None = None,
        categorical: Sequence[Any] | None = None,
        numeric: Sequence[Any] | None = None,
        histories: Sequence[Any] | None = None,
        train_only: Sequence[Any] | None = None,
        config: Mapping[str, Any] | None = None,
        random_state: Any = 0,
        verbose: bool = True,
    ) -> None:
        super().__init__(
            tasks, time=time, group=group, weight=weight, funnel=funnel, categorical=categorical, numeric=numeric, histories=histories,
            train_only=train_only, config=config, random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.task = task

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, eval_set: Any = None, init: Any = None) -> FunnelTaskClassifier:
        """Train as :meth:`dcrnn_fast.FunnelClassifier.fit` does.

        Args:
            X: a table, or an array.
            y: labels [N] of ``task``, of two classes; None: its column of ``X``.
            sample_weight: a weight >= 0 for each row.
            eval_set: a table with the labels, or ``[(table, y)]``; of the same classes.
            init: as there.

        Raises:
            ValueError: as scikit-learn's classifiers do.
            DataError: as there.
        """
        X, tasks = _by_name(X), label_columns("tasks", self.tasks)
        name = tasks[-1] if self.task is None else self.task
        if name not in tasks:
            raise DataError(f"task={name!r}: expected one of {', '.join(tasks)}")
        is_named = _is_named(X)
        if y is None and not is_named:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        if is_named:
            names = self._features(X, tasks, reset=True)
        else:
            X, y = validate_data(self, X, y, dtype="numeric", ensure_all_finite="allow-nan", ensure_min_samples=2)
            names, tasks = [f"x{place}" for place in range(X.shape[1])], [name]
        given = self._column(X, name) if y is None else column_or_1d(y, warn=True)
        check_classification_targets(given)
        self.classes_, labels = np.unique(given, return_inverse=True)
        if type_of_target(given, input_name="y") != "binary" or len(self.classes_) > 2:
            raise ValueError(f"Only binary classification is supported. The type of the target is {type_of_target(given)}.")
        if len(self.classes_) < 2:
            raise ValueError(f"y has the one class {self.classes_[0]}, expected two; a classifier cannot learn from one class alone")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, given)
            if not (sample_weight > 0).any():
                raise ValueError("sample_weight: every weight is zero, expected at least two rows with a weight above it")
            if len(np.unique(labels[sample_weight > 0])) < 2:
                raise ValueError("sample_weight: the rows with a weight above zero are of one class, expected two")
        self._tasks, self._names = tasks, names
        eval_set = only_eval_set(eval_set)
        table, of_table = eval_set if isinstance(eval_set, tuple) else (eval_set, None)
        eval_set = self._labelled(table) if of_table is None else self._table(_by_name(table), self._codes(column_or_1d(of_table)))
        shown, self.tasks = self.tasks, tasks
        try:
            super().fit(self._table(X, labels), None, sample_weight, eval_set=eval_set, init=init)
        finally:
            self.tasks = shown
        del self.feature_names_in_
        if is_named and all(isinstance(one, str) for one in names):
            self.feature_names_in_ = np.array(names, dtype=object)
        return self

    def predict_proba(self, X: Any) -> Any:
        """The probabilities [N, 2] of both classes."""
        check_is_fitted(self, "classes_")
        if _is_named(X := _by_name(X)):
            self._features(X, self._tasks, reset=False)
        else:
            X = validate_data(self, X, dtype="numeric", ensure_all_finite="allow-nan", reset=False)
        p = self._scores(self._table(X, None))[self._score].astype(np.float64)
        return np.stack([1 - p, p], axis=1)

    def predict(self, X: Any) -> Any:
        """The more likely class of each row."""
        likelier = (self.predict_proba(X)[:, 1] > 0.5).astype(int)
        return self.classes_[likelier]

    def calibrate(self, X: Any, *, method: str = "platt") -> FunnelTaskClassifier:
        """As :meth:`dcrnn_fast.FunnelClassifier.calibrate` does; the labels of the task are of its two classes."""
        super().calibrate(self._labelled(X), method=method)
        return self

    def evaluate(self, X: Any, *, k: int = 10) -> dict[str, dict[str, Any]]:
        """As :meth:`dcrnn_fast.FunnelClassifier.evaluate` does; the labels of the task are of its two classes."""
        return super().evaluate(self._labelled(X), k=k)

    @classmethod
    def load(cls, path: str | Path, **_: Any) -> FunnelTaskClassifier:
        """Raises ConfigError: a run does not keep the classes."""
        raise ConfigError(f"{path}: a run does not keep a task's classes; pickle the classifier, or take FunnelClassifier.load")

    @property
    def feature_importances_(self) -> Any:
        """For each column, how much the task's AUC falls when it is shuffled among the validation rows."""
        return self._importances(self._score)

    @property
    def _name(self) -> str:
        return str(self._tasks[-1] if self.task is None else self.task)

    @property
    def _score(self) -> str:
        """The name of the task's probability: that of its column, or Add_to_cart of the column Add to cart."""
        return next(str(one["name"]) for one in self.schema_["tasks"] if one["column"] == self._name)

    def _features(self, X: Any, tasks: list[str], *, reset: bool) -> list[str]:
        """The names of a table's features, which scikit-learn remembers, or compares with those that it remembers."""
        names = [column for column in (X if isinstance(X, Mapping) else X.columns) if column not in tasks]
        if not isinstance(X, Mapping):
            validate_data(self, X[names], skip_check_array=True, reset=reset)
        return names

    def _column(self, X: Any, name: str) -> Any:
        table = arrow_table(X, "X", {name})
        if name not in table.column_names:
            raise DataError(f"has no column {name!r}, the labels of the task; give y, or the column", table="X")
        return table.column(name).to_numpy()

    def _labelled(self, X: Any) -> Any:
        """A table of labelled rows, or None, with 0 and 1 in place of the task's classes."""
        check_is_fitted(self, "classes_")
        X = _by_name(X)
        if self.classes_.tolist() == [0, 1] or self._name not in column_names(X):
            return X
        return self._table(X, self._codes(self._column(X, self._name)))

    def _codes(self, labels: Any) -> Any:
        """The place of each label [N] in ``classes_``, NaN where it is missing."""
        codes, given = {label: code for code, label in enumerate(self.classes_.tolist())}, labels.tolist()
        if strange := [label for label in given if label is not None and label == label and label not in codes]:
            classes = " and ".join(map(repr, codes))
            raise ValueError(f"the labels of {self._name} hold {strange[0]!r}, expected the classes {classes}")
        return np.array([codes.get(label, np.nan) for label in given])

    def _table(self, X: Any, labels: Any) -> Any:
        """X as a table, with these labels 0 and 1 of the task unless they are None."""
        if isinstance(X, np.ndarray):
            X = {name: X[:, place] for place, name in enumerate(self._names)}
        if labels is None:
            return X
        if isinstance(X, Mapping):
            return {**X, self._name: labels}
        table = arrow_table(X, "X")
        table = table.drop_columns(self._name) if self._name in table.column_names else table
        if len(labels) != len(table):
            raise ValueError(f"y has {len(labels):,} labels, and the table {len(table):,} rows; give a label for each row")
        return table.append_column(self._name, pa.array(labels))


def _by_name(X: Any) -> Any:
    """Rows in Arrow, mappings, and a LazyFrame by their columns' names; others as they are. Raises DataError for a path."""
    if isinstance(X, (str, Path)):
        raise DataError(f"is the path {str(X)!r}, expected a table; read it first", table="X")
    X = as_columns(X)
    return dict(zip(X.column_names, X.columns, strict=True)) if hasattr(X, "column_names") else X


def _is_named(X: Any) -> bool:
    """Whether it is a table whose columns have names."""
    columns = X if isinstance(X, Mapping) else getattr(X, "columns", ())
    return len(columns) > 0 and all(isinstance(column, str) for column in columns)
