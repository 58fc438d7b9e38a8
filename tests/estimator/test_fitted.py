"""What a fitted FunnelClassifier offers as other libraries' estimators do: weights, tuples, history, importance, saving, and Ctrl-C."""

import copy
import errno
import warnings

import numpy as np
import pytest
import torch

from dcrnn_fast import FunnelClassifier, Ranker
from dcrnn_fast.errors import ConfigError, RunFolderError
from dcrnn_fast.support.locks import locked
from dcrnn_fast.training import Report, evaluate
from tests.event_frames import events

from .conftest import QUICK, quick

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:dcrnn_fast")  # of small tables


FUNNELS = {
    "an order without a click": ({}, "the tasks are taken for independent: row 1 of X has order without click, as up to 1 of the 3,000"),
    "another order": ({"tasks": ["order", "cart", "click"]}, "they are a funnel in the order click, cart, order: give tasks in this order"),
    "a funnel": ({"tasks": ["click", "cart"]}, None),
    "no funnel": ({"tasks": ["cart", "click"], "funnel": False}, None),
    "one task": ({"tasks": ["click"]}, None),
}


@pytest.mark.parametrize(("arguments", "said"), FUNNELS.values(), ids=FUNNELS)
@pytest.mark.parametrize("verbose", [True, False])
def test_tasks_that_are_taken_for_independent_are_warned_of(arguments, said, verbose):
    rows = events(3000)
    rows["cart"] = rows["order"] | (rows["click"] & (np.arange(3000) % 2 == 0))
    rows.loc[0, "order"] = int(not arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quick(verbose=verbose, **arguments).fit(rows)
    found = [str(one.message) for one in caught if "independent" in str(one.message)]
    assert found == [] if said is None else said in found[0]


@pytest.fixture(scope="module")
def sampled():
    """Rows of which every tenth without a click is kept, with ten times the weight; and the model of them."""
    rows = events(12000)
    rows = rows[(rows["click"] == 1) | (np.arange(12000) % 10 == 0)][["item_id", "price", "click"]]
    rows["w"] = np.where(rows["click"] == 1, 1.0, 10.0)
    return rows, quick(tasks=["click"], weight="w").fit(rows)


def test_calibration_counts_the_weights_of_rows(sampled):
    rows, model = sampled
    found = copy.copy(model).calibrate(rows).predict_proba(rows)["click"]
    assert np.average(found, weights=rows["w"]) == pytest.approx(np.average(rows["click"], weights=rows["w"]), rel=0.02)
    with pytest.warns(UserWarning, match="learned from weighted rows, and these have no weight: each counts once"):
        copy.copy(model).calibrate(rows.drop(columns="w"))


@pytest.mark.parametrize("form", ["frame", "parquet", "csv"])
def test_metrics_of_a_table_are_weighted_if_it_has_the_weights(form, sampled, tmp_path):
    rows, model = sampled
    run = model.save(tmp_path / "run")
    found = []
    for table in (rows, rows.drop(columns="w")):
        path = tmp_path / f"{len(table.columns)}.{form}"
        (table.to_parquet if form == "parquet" else table.to_csv)(path, index=False)
        found.append("weighted_auc" in evaluate(run, data=table if form == "frame" else path)["metrics"]["click"])
    assert found == [True, False]


def test_fit_does_not_seed_the_random_numbers_of_pytorch(frame):
    drawn = set[float]()
    for seed in (7, 8):
        torch.manual_seed(seed)
        quick().fit(frame)
        drawn.add(torch.rand(()).item())
    assert len(drawn) == 2


def test_weights_of_rows_may_be_an_argument_or_a_column(frame):
    weight = 1.0 + np.arange(3000) % 3
    model, plain = quick(weight="w").fit(frame.assign(w=weight)), quick().fit(frame).predict_proba(frame)
    assert "w" not in model.feature_names_in_
    found = model.predict_proba(frame)["order"]
    np.testing.assert_allclose(quick().fit(frame, sample_weight=weight).predict_proba(frame)["order"], found, rtol=1e-5)
    assert not np.allclose(found, plain["order"])


def test_validation_rows_may_be_a_list_of_one_tuple(frame):
    fits = [quick().fit(frame[:2000], eval_set=given).predict_proba(frame) for given in (frame[2000:], [(frame[2000:], None)])]
    np.testing.assert_array_equal(*fits)


def test_its_history_has_a_record_of_each_evaluation(fitted):
    assert [record["step"] for record in fitted.history_] == sorted({record["step"] for record in fitted.history_})
    assert fitted.metrics_["click"]["auc"] in [record["valid"]["click"]["auc"] for record in fitted.history_]


def test_its_metrics_on_new_rows_are_those_within_groups_too(fitted):
    rows = events(500, seed=1)
    found = fitted.evaluate(rows, k=5)
    assert np.mean([found[task]["auc"] for task in ("click", "order")]) == pytest.approx(fitted.score(rows))
    assert {"ndcg@5", "mrr", "hit_rate@5", "gauc"} <= found["click"].keys()


def test_a_shuffled_column_costs_auc_and_one_without_an_effect_does_not(frame):
    rows = frame.assign(noise=np.random.default_rng(0).normal(size=3000))
    model = quick(config=QUICK | {"optimiser.epochs": 5}).fit(rows)
    found = dict(zip(model.feature_names_in_, model.feature_importances_, strict=True))
    assert max(found, key=found.get) in {"city", "item_id", "price"}
    assert abs(found["noise"]) < max(found.values()) / 2


def test_a_saved_one_loads_as_an_estimator_that_scores_alike(frame, fitted, tmp_path):
    run = fitted.save(tmp_path / "run")
    loaded = FunnelClassifier.load(run)
    np.testing.assert_array_equal(loaded.predict_proba(frame), fitted.predict_proba(frame))
    assert (loaded.tasks, loaded.time, loaded.group, loaded.metrics_) == (["click", "order"], "ts", "user_id", fitted.metrics_)
    assert 0 < loaded.set_params(verbose=False).fit(frame).score(frame) < 1


def test_saving_again_needs_overwrite_and_deletes_runs_alone(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    with pytest.raises(ConfigError, match="exists; choose another folder, or give overwrite=True"):
        fitted.save(tmp_path / "run")
    assert Ranker.load(fitted.save(tmp_path / "run", overwrite=True)).names == ("click", "order", "order_given_click")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="holds no run, so overwrite=True does not delete it"):
        fitted.save(tmp_path / "mine", overwrite=True)


def test_a_save_that_fails_leaves_the_run_that_it_replaces(fitted, tmp_path, monkeypatch):
    run = fitted.save(tmp_path / "run")
    with locked(run / ".lock"), pytest.raises(RunFolderError, match=r"another run writes to .*run now; wait until it has ended, or"):
        fitted.save(run, overwrite=True)

    def on_a_full_disk(folder):
        folder.mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fitted, "_write", on_a_full_disk)
    with pytest.raises(RunFolderError, match=r"No space left on device.*save again"):
        fitted.save(run, overwrite=True)
    assert Ranker.load(run).names == ("click", "order", "order_given_click")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_calibration_changes_what_it_predicts_and_saves(frame, tmp_path):
    model = quick().fit(frame[:2000])
    before = model.predict_proba(frame)["click"]
    after = model.calibrate(frame[2000:]).predict_proba(frame)["click"]
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(Ranker.load(model.save(tmp_path / "run")).predict(frame)["click"], after)


def test_rows_may_be_a_lazy_frame_a_list_of_mappings_or_a_series(frame, fitted):
    polars = pytest.importorskip("polars")
    expected = fitted.predict_proba(frame[:5])["order"].to_numpy()
    np.testing.assert_array_equal(fitted.predict_proba(polars.from_pandas(frame[:5]).lazy())["order"], expected)
    np.testing.assert_array_equal(fitted.ranker_.predict(frame[:5].to_dict("records"))["order"], expected)
    np.testing.assert_array_equal(fitted.ranker_.predict(frame.iloc[0])["order"], expected[:1])
    assert fitted.predict_proba(frame.iloc[7]).index.tolist() == [7]
    assert quick().fit(polars.from_pandas(frame).lazy()).score(polars.from_pandas(frame).lazy()) > 0.5


def test_ctrl_c_keeps_the_best_weights_and_warns(frame, monkeypatch):
    def interrupted(report, *, step, **_):
        if step == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(Report, "step", interrupted)
    with pytest.warns(UserWarning, match="the run was interrupted after step 30: the weights are the best so far"):
        model = quick().fit(frame)
    assert model.history_[-1]["step"] < 30
    assert 0 < model.score(frame) < 1
