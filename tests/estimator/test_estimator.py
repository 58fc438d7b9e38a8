"""FunnelClassifier: a table in memory becomes a ranker, by scikit-learn's conventions."""

import copy
import gc
import json
import pickle
import tempfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_validate
from sklearn.utils.estimator_checks import check_estimator

from dcrnn_fast import FunnelClassifier, Ranker
from dcrnn_fast.errors import ConfigError
from dcrnn_fast.training import evaluate, load_config, train, write_report
from tests.event_frames import events

from .conftest import QUICK, TASKS, quick

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:dcrnn_fast")  # of small tables


def test_it_reads_every_column_that_is_no_label_and_no_time(fitted, frame):
    assert sorted(fitted.feature_names_in_) == ["city", "item_id", "price", "user_id"]
    assert (fitted.schema_["funnel"], fitted.schema_["group"]) == (True, "user_id")
    assert "order" not in quick(tasks=["click"]).fit(frame).feature_names_in_


def test_its_probabilities_are_a_frame_of_the_same_kind(fitted, frame):
    class Frame(pd.DataFrame):
        pass

    found = fitted.predict_proba(frame[100:110])
    assert list(found.columns) == ["click", "order", "order_given_click"]
    assert list(found.index) == list(range(100, 110))
    assert ((found > 0) & (found < 1)).all().all()
    assert (found["order"] <= found["click"]).all()
    table = fitted.predict_proba(pa.Table.from_pandas(frame[100:110]))
    assert isinstance(table, pa.Table)
    np.testing.assert_array_equal(table["order"].to_numpy(), found["order"])
    pd.testing.assert_frame_equal(fitted.predict_proba(Frame(frame[100:110])), found)


@pytest.mark.parametrize("kind", [None, "Categorical"])
def test_it_is_fitted_on_a_polars_frame_as_on_a_pandas_one(frame, kind):
    polars = pytest.importorskip("polars")
    rows = polars.from_pandas(frame[:1500])
    rows = rows if kind is None else rows.with_columns(city=polars.col("city").cast(polars.Categorical))
    found = quick(time="ts").fit(rows).predict_proba(rows)
    assert isinstance(found, polars.DataFrame)
    np.testing.assert_array_equal(found["order"].to_numpy(), quick(time="ts").fit(frame[:1500]).predict_proba(frame[:1500])["order"])


def test_a_notebook_shows_its_results_once_it_is_fitted(fitted):
    page = fitted._repr_mimebundle_()["text/html"]
    assert "the run ended, as all epochs are trained" in page
    assert f"<td>order</td><td>{fitted.metrics_['order']['auc']:.4f}</td>" in page
    assert "<caption>" not in quick()._repr_html_()


def test_a_failed_fit_leaves_what_was_fitted_and_no_file(frame, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = quick().fit(frame[:600])
    before = model.predict_proba(frame[:9])
    with pytest.raises(ConfigError):
        model.set_params(tasks=["order"], config={"model.steps": 0}).fit(frame[:600])
    pd.testing.assert_frame_equal(model.predict_proba(frame[:9]), before)
    assert len(model.schema_["tasks"]) == 2
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")], "more than PyTorch's own cache"


def test_a_task_whose_name_is_no_word_is_scored(frame):
    rows = frame[:600].rename(columns={"click": "my click"})
    model = quick(tasks=["my click"]).fit(rows)
    assert 0 <= model.score(rows) <= 1
    assert list(model.predict_proba(rows)) == ["my_click"]


def test_without_its_progress_it_warns_as_python_does(frame, capsys):
    with pytest.warns(UserWarning, match="of the valid rows hold both classes"):
        quick(group="user_id").fit(frame[:600])
    assert capsys.readouterr() == ("", "")


def test_it_learns(frame):
    model = FunnelClassifier(tasks=TASKS, verbose=False).fit(frame)
    assert model.score(events(2000, seed=1)) > 0.6
    assert model.metrics_["click"]["auc"] > 0.6


def through_pickle(one):
    return pickle.loads(pickle.dumps(one))  # noqa: S301 (its own bytes)


@pytest.mark.parametrize("copied", [through_pickle, copy.copy, copy.deepcopy])
def test_a_copy_outlives_what_was_fitted_and_scores_and_saves_as_it_does(copied, frame, tmp_path):
    model = quick(time="ts").fit(frame[:600])
    expected, metrics, schema = model.predict_proba(frame[:50]), model.metrics_, model.schema_
    other = copied(model)
    del model
    gc.collect()
    pd.testing.assert_frame_equal(other.predict_proba(frame[:50]), expected, check_exact=True)
    assert (other.metrics_, other.schema_, other.get_params()["time"]) == (metrics, schema, "ts")
    np.testing.assert_array_equal(Ranker.load(other.save(tmp_path / "run")).predict(frame[:50])["order"], expected["order"])


def test_a_clone_is_not_fitted_and_has_its_parameters_pickled_too(fitted):
    for model in (clone(fitted), through_pickle(clone(fitted))):
        assert model.get_params() == fitted.get_params()
        with pytest.raises(NotFittedError):
            model.predict_proba({})


def test_cross_validation_in_several_processes_is_that_of_one(frame):
    rows = frame[:600]
    found = cross_validate(quick(), rows, cv=KFold(2), n_jobs=2, return_estimator=True)
    here = quick().fit(rows[300:])
    assert found["test_score"][0] == here.score(rows[:300])
    pd.testing.assert_frame_equal(found["estimator"][0].predict_proba(rows), here.predict_proba(rows), check_exact=True)


def test_the_latest_rows_and_all_of_their_first_time_are_validation_rows(frame):
    """As `prepare` splits them."""
    shuffled, days = frame.sample(frac=1, random_state=0), frame.assign(ts=frame["ts"].dt.date)
    late = frame["ts"].rank(method="first") > 2700
    given = quick(time="ts").fit(frame[~late], eval_set=frame[late]).metrics_
    assert quick(time="ts").fit(shuffled).metrics_["click"]["positives"] == given["click"]["positives"] == frame["click"][late].sum()
    first = days["ts"].sort_values().iloc[2700]
    assert quick(time="ts").fit(days).metrics_["click"]["rows"] == (days["ts"] >= first).sum() > 300


def test_a_file_is_split_as_a_table_is(frame, tmp_path):
    frame.to_parquet(tmp_path / "rows.parquet")
    for time in (None, "ts"):
        scores = [quick(time=time).fit(rows).predict_proba(frame) for rows in (tmp_path / "rows.parquet", frame)]
        pd.testing.assert_frame_equal(*scores)


def test_a_seed_gives_the_same_model(frame):
    one, other = (quick(random_state=3).fit(frame).predict_proba(frame) for _ in range(2))
    pd.testing.assert_frame_equal(one, other)
    pd.testing.assert_frame_equal(one, quick(random_state=np.int64(3)).fit(frame).predict_proba(frame))
    assert not quick(random_state=4).fit(frame).predict_proba(frame).equals(one)


def run_of(schema, rows, folder, init=None):
    """A run of the rows by an estimator's schema, as the commands train it, and its result; the latest rows are the validation rows."""
    late = rows["ts"].rank(method="first") > 2700
    rows[~late].to_parquet(folder / "train.parquet")
    rows[late].to_parquet(folder / "valid.parquet")
    files = {role: str(folder / f"{name}.parquet") for role, name in (("train", "train"), ("valid", "valid"), ("test", "valid"))}
    (folder / "frame.yaml").write_text(json.dumps({"name": "frame", **schema, "files": files}))
    train(load_config(None, QUICK | {"data": str(folder / "frame.yaml")}), folder / "run", init=init)
    return folder / "run"


def test_the_estimator_and_a_run_of_its_schema_are_one(frame, tmp_path):
    """So is a plain loop over the same steps: what `train` computes is what the commands compute."""
    model = quick(time="ts").fit(frame)
    run = run_of(model.schema_, frame, tmp_path)
    for name, values in Ranker.load(run).predict(frame).items():
        np.testing.assert_array_equal(values, model.predict_proba(frame)[name])
    assert evaluate(run, split="test")["metrics"]["click"]["auc"] == model.metrics_["click"]["auc"]


@pytest.mark.parametrize("is_saved", [True, False])
def test_it_goes_on_from_an_earlier_one_as_a_run_does(fitted, frame, tmp_path, is_saved):
    later = events(3000, seed=1).assign(item_id=lambda rows: rows["item_id"] + 30)
    monday = fitted.save(tmp_path / "monday")
    model = quick(time="ts", group="user_id").fit(later, init=monday if is_saved else fitted)
    known, grown = (one.ranker_.encoder.num_embeddings["item_id"] for one in (fitted, model))
    assert grown > known, "new items have ids"
    for name, values in Ranker.load(run_of(fitted.schema_, later, tmp_path, init=monday)).predict(later).items():
        np.testing.assert_array_equal(values, model.predict_proba(later)[name])


def test_it_goes_on_where_the_arguments_name_the_same_columns(frame, tmp_path):
    named = {"categorical": ["item_id", "city"], "numeric": ["price"], "group": "city", "weight": "w", "funnel": True}
    rows = frame[:600].assign(w=np.where(frame[:600]["city"] == "Oslo", 0.0, 1.0))
    before = quick(**named).fit(rows)
    after = quick(**named | {"categorical": ["city", "item_id"]}).fit(rows, init=before)
    assert after.schema_["categorical"] == before.schema_["categorical"]
    assert load_config(after.save(tmp_path / "run") / "config.yaml").loss.sample_weight


def test_one_row_that_breaks_the_funnel_makes_the_tasks_independent(frame, tmp_path):
    broken = frame.assign(order=frame["order"].where(frame.index != 7, 1), click=frame["click"].where(frame.index != 7, 0))
    assert "funnel" not in quick().fit(broken).schema_
    assert "funnel" not in quick().fit(frame, eval_set=broken[:100]).schema_
    broken.to_parquet(tmp_path / "rows.parquet")
    assert "funnel" not in quick().fit(tmp_path / "rows.parquet").schema_


def test_a_stream_that_is_read_once_can_be_scored(frame):
    model = quick().fit(frame)
    assert model.score(pa.Table.from_pandas(frame).to_reader()) == model.score(frame)


def test_ids_that_became_floats_are_the_same_ids(fitted, frame):
    """As pandas makes of an integer column once a cell is missing."""
    floats = frame.assign(user_id=frame["user_id"].astype(float), item_id=frame["item_id"].astype(float))
    pd.testing.assert_frame_equal(fitted.predict_proba(floats), fitted.predict_proba(frame))


def test_its_saved_run_is_evaluated_and_reported_on_a_table_or_its_file(fitted, frame, tmp_path):
    run, later = fitted.save(tmp_path / "run"), events(400, seed=7)
    later.to_parquet(tmp_path / "later.parquet")
    later.to_csv(tmp_path / "later.csv", index=False)
    found = evaluate(run, data=later)
    assert (found["metrics"]["click"]["auc"] + found["metrics"]["order"]["auc"]) / 2 == pytest.approx(fitted.score(later))
    assert found == evaluate(run, data=str(tmp_path / "later.parquet")) == evaluate(run, data=tmp_path / "later.csv")
    write_report([run], tmp_path / "report.html", data=frame[:1000])
    assert "1,000 given rows" in (tmp_path / "report.html").read_text()


def test_a_task_without_labels_of_both_classes_does_not_count_in_the_score(fitted, frame):
    scores = fitted.predict_proba(frame)
    assert fitted.score(frame.assign(order=np.nan)) == roc_auc_score(frame["click"], scores["click"])
    assert quick(config=QUICK | {"valid_fraction": 0.5}).fit(frame).metrics_["click"]["rows"] == 1500


WITHOUT_TABLES = [
    "fit_score_takes_y", "estimators_overwrite_params", "dont_overwrite_parameters", "estimators_fit_returns_self",
    "readonly_memmap_input", "n_features_in_after_fitting", "positive_only_tag_during_fit", "estimators_dtypes", "complex_data",
    "dtype_object", "estimators_empty_data_messages", "pipeline_consistency", "estimators_nan_inf", "estimator_sparse_tag",
    "estimator_sparse_array", "estimator_sparse_matrix", "f_contiguous_array_estimator", "methods_sample_order_invariance",
    "methods_subset_invariance", "fit2d_1sample", "fit2d_1feature", "dict_unchanged", "fit_idempotent", "fit_check_is_fitted",
    "n_features_in", "fit2d_predict1d", "estimators_pickle",
]  # fmt: skip
"""scikit-learn's checks that fit an array of numbers and labels apart. The labels of a funnel are columns of the table that is given."""


def test_it_keeps_scikit_learns_conventions():
    results = check_estimator(FunnelClassifier(verbose=False), on_fail=None, on_skip=None)
    failed = {one["check_name"] for one in results if one["status"] == "failed" and "sample_weight" not in one["check_name"]}
    assert failed <= {f"check_{name}" for name in WITHOUT_TABLES}
    assert sum(one["status"] == "passed" for one in results) >= 12
