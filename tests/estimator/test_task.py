"""One task of a funnel is a classifier by scikit-learn's rules: its own checks pass, and what takes a classifier takes it."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from dcrnn_fast import FunnelTaskClassifier, Ranker
from dcrnn_fast.errors import ConfigError, DataError

from .conftest import QUICK, quick

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:dcrnn_fast")  # of small tables

FEW_EPOCHS = QUICK | {"optimiser.epochs": 4, "optimiser.batch_size": 32}
FAILS = {
    "check_sample_weight_equivalence_on_dense_data": "rows of weight 0 may be drawn for validation, and tell where a number's bins lie"
}
"""The checks that do not hold, and why."""


@parametrize_with_checks([FunnelTaskClassifier(config=FEW_EPOCHS, verbose=False)], expected_failed_checks=lambda _: FAILS)
def test_scikit_learns_checks_pass_but_for_named_ones(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def order():
    """The task of a funnel whose other labels are columns."""
    return quick(group="user_id").task("order")


def test_a_task_has_the_parameters_of_its_funnel(order):
    assert (order.task, order.tasks, order.group, order.config) == ("order", ["click", "order"], "user_id", QUICK)


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc", "average_precision", "accuracy"])
def test_cross_validation_takes_scikit_learns_scores(order, frame, scoring):
    found = cross_val_score(order, frame, frame["order"], scoring=scoring, cv=2)
    assert np.isfinite(found).all()


def test_it_predicts_as_its_funnel_does(order, frame):
    order.fit(frame)
    funnel = quick(group="user_id").fit(frame)
    np.testing.assert_array_equal(order.predict_proba(frame)[:, 1], funnel.predict_proba(frame)["order"].to_numpy(np.float64))
    assert order.classes_.tolist() == [0, 1]
    assert order.predict(frame).tolist() == (order.predict_proba(frame)[:, 1] > 0.5).astype(int).tolist()


def test_labels_may_be_two_texts_and_stand_beside_the_table(order, frame):
    named = np.where(frame["order"] == 1, "yes", "no")
    order.fit(frame.drop(columns="order"), named)
    assert order.classes_.tolist() == ["no", "yes"]
    assert set(order.predict(frame)) <= {"no", "yes"}
    assert list(order.feature_names_in_) == ["ts", "user_id", "item_id", "price", "city"]
    assert order.score(frame, named) > 0.5


def test_searches_calibration_pipelines_and_importance_take_it(order, frame):
    y = frame["order"]
    search = GridSearchCV(order, {"config__model.steps": [1, 2]}, scoring="roc_auc", cv=2, error_score="raise").fit(frame, y)
    assert search.best_estimator_.config == QUICK | {"model.steps": search.best_params_["config__model.steps"]}
    p = CalibratedClassifierCV(order, cv=2).fit(frame, y).predict_proba(frame)[:, 1]
    assert p.mean() == pytest.approx(y.mean(), rel=0.2)
    doubled = make_pipeline(FunctionTransformer(lambda rows: rows.assign(double=2 * rows["price"])), order).fit(frame, y)
    assert doubled.predict_proba(frame[:3]).shape == (3, 2)
    found = permutation_importance(order.fit(frame, y), frame, y, n_repeats=1, scoring="roc_auc", random_state=0)
    assert len(found.importances_mean) == frame.shape[1]


def test_validation_rows_may_be_a_tuple_as_other_libraries_take_them(order, frame):
    rows, kept = frame[:2500], frame[2500:]
    fits = [order.fit(rows, rows["order"], eval_set=given).predict_proba(kept) for given in ([(kept, kept["order"])], kept)]
    np.testing.assert_array_equal(*fits)


def test_a_columns_importance_is_that_of_the_task(order, frame):
    order.fit(frame)
    found = dict(zip(order.feature_names_in_, order.feature_importances_, strict=True))
    assert found["ts"] == 0
    assert max(found, key=found.get) in {"item_id", "price", "user_id"}


def test_a_saved_task_is_a_run(order, frame, tmp_path):
    run = order.fit(frame).save(tmp_path / "run")
    np.testing.assert_array_equal(Ranker.load(run).predict(frame)["order"], order.predict_proba(frame)[:, 1].astype(np.float32))


def test_a_column_whose_name_no_task_can_have_is_a_task_too(order, frame):
    rows = frame.drop(columns="order")
    expected = order.fit(frame).predict_proba(rows)
    order.set_params(task="Add to cart", tasks=["click", "Add to cart"]).fit(rows.assign(**{"Add to cart": frame["order"]}))
    np.testing.assert_array_equal(order.predict_proba(rows), expected)
    assert np.any(order.feature_importances_)


def test_a_table_of_labelled_rows_has_the_classes_of_fit(frame):
    """The class that counts is the last one by sorting, "no"."""
    worded = frame[["item_id", "price"]].assign(order=np.where(frame["order"] == 1, "Yes", "no"))
    classifier = quick(tasks=["order"]).task("order").fit(worded, eval_set=worded)
    negatives = int((frame["order"] == 0).sum())
    assert classifier.metrics_["order"]["positives"] == classifier.evaluate(worded)["order"]["positives"] == negatives
    share = classifier.calibrate(worded).predict_proba(worded)[:, 1].mean()
    assert share == pytest.approx(negatives / len(frame), abs=0.02)


@pytest.mark.parametrize("form", [pa.Table.from_pandas, lambda rows: rows.to_dict("records")], ids=["Arrow", "rows"])
def test_tables_in_every_form_keep_the_names_of_their_columns(form, frame):
    rows = frame[["item_id", "price", "order"]]
    classifier = quick(tasks=["order"]).task("order").fit(form(rows))
    assert list(classifier.ranker_.columns) == ["item_id", "price"]
    np.testing.assert_array_equal(classifier.predict_proba(form(rows)), classifier.predict_proba(rows))


REFUSED = {
    "validation labels of another class": (lambda one, X, y: one.fit(X, y, eval_set=[(X, y - 1)]), ValueError, "order hold -1, expected"),
    "too few labels": (lambda one, X, y: one.fit(X, y[:-1]), ValueError, "y has 2,999 labels, and the table 3,000 rows"),
    "a path": (lambda one, X, y: one.fit("rows.parquet"), DataError, "X is the path 'rows.parquet', expected a table"),
    "a run": (lambda one, X, y: type(one).load("run"), ConfigError, "run does not keep a task's classes; pickle the classifier"),
}


@pytest.mark.parametrize(("asks", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_what_a_task_cannot_take_is_named(asks, error, said, frame):
    with pytest.raises(error, match=said):
        asks(quick(tasks=["order"]).task("order"), frame[["item_id", "price"]], frame["order"])
