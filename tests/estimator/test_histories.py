"""Histories of a FunnelClassifier after `fit`: rows to score go on from the rows that it was fitted on."""

import pickle

import numpy as np
import pandas as pd
import pytest

from dcrnn_fast import FunnelClassifier
from dcrnn_fast.errors import DataError
from dcrnn_fast.training import evaluate
from tests.event_frames import events

from .conftest import quick

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:dcrnn_fast")  # of small tables

SEEN = {"name": "seen", "of": "item_id", "by": "user_id", "time": "ts", "last": 4}
BOUGHT = {"name": "bought", "of": "item_id", "by": "user_id", "time": "ts", "last": 2, "where": "order", "lag": 86400.0}
ROWS = events(4000)
DAY, NEXT = ROWS[:3000], ROWS[3000:]


def fitted(rows, **more):
    return quick(time="ts", histories=[SEEN, BOUGHT]).fit(rows, **more)


@pytest.fixture(scope="module")
def model():
    return fitted(DAY)


def lists(rows, past, last, lag=0, bought=False):
    """By hand: what each row sees of the rows before it, the latest first."""
    everything = pd.concat([past, rows])
    events = everything[everything["order"] == 1] if bought else everything
    of_user = dict(iter(events.groupby("user_id")))
    made = []
    for user, time in zip(rows["user_id"], rows["ts"], strict=True):
        mine = of_user.get(user, events[:0])
        made.append(mine[mine["ts"] + pd.Timedelta(lag, "s") < time]["item_id"].tolist()[::-1][:last])
    return made


def test_rows_to_score_see_the_rows_of_fit_and_those_before_them(model):
    by_hand = NEXT.assign(seen=lists(NEXT, DAY, 4), bought=lists(NEXT, DAY, 2, lag=86400, bought=True))
    pd.testing.assert_frame_equal(model.predict_proba(NEXT), model.predict_proba(by_hand))


def test_rows_that_the_model_has_seen_count_once(model):
    before = DAY[:0]
    by_hand = DAY.assign(seen=lists(DAY, before, 4), bought=lists(DAY, before, 2, lag=86400, bought=True))
    pd.testing.assert_frame_equal(model.predict_proba(DAY), model.predict_proba(by_hand))


def test_going_on_with_rows_of_an_earlier_fit_keeps_them_once(model, tmp_path):
    run = fitted(ROWS[2000:], init=model).save(tmp_path / "run")
    kept = pd.read_parquet(run / "past.parquet")
    assert sorted(kept["ts"]) == sorted(ROWS["ts"])


def test_its_score_is_that_of_evaluate_on_the_saved_run(model, tmp_path):
    metrics = evaluate(model.save(tmp_path / "run"), data=NEXT)["metrics"]
    assert model.score(NEXT) == pytest.approx(np.mean([metrics[task]["auc"] for task in ("click", "order")]))


@pytest.mark.parametrize("copied", ["saved", "pickled"])
def test_a_copy_keeps_the_rows_of_its_histories(model, copied, tmp_path):
    other = pickle.loads(pickle.dumps(model)) if copied == "pickled" else FunnelClassifier.load(model.save(tmp_path / "run"))  # noqa: S301
    pd.testing.assert_frame_equal(other.predict_proba(NEXT[:50]), model.predict_proba(NEXT[:50]))


def test_rows_without_labels_and_a_single_row_are_scored(model):
    unlabelled = NEXT[:1].drop(columns=["click", "order"])
    expected = model.predict_proba(NEXT[:1])
    pd.testing.assert_frame_equal(model.predict_proba(unlabelled), expected)
    pd.testing.assert_frame_equal(model.predict_proba(unlabelled.iloc[0]), expected)


def test_going_on_with_a_day_sees_the_days_before(model, tmp_path):
    later = fitted(NEXT, init=model)
    later.write_histories(tmp_path)
    held = pd.read_parquet(tmp_path / "seen.parquet").set_index("user_id")["seen"]
    expected = {user: rows["item_id"].tolist()[::-1][:4] for user, rows in ROWS.groupby("user_id")}
    assert {user: list(items) for user, items in held.items()} == expected


def test_a_column_of_lists_may_stand_beside_histories():
    rows = ROWS.assign(tags=[["a", "b"], ["c"]] * 2000)
    tagged = fitted(rows[:3000])
    assert {"column": "tags", "max_values": 2} in tagged.schema_["categorical"]
    assert 0 < tagged.score(rows[3000:]) < 1
    assert tagged.evaluate(rows[3000:])["click"]["rows"] == 1000
    assert fitted(rows[3000:], init=tagged).score(rows[:3000]) > 0


def test_a_feature_store_gets_what_a_next_row_would_see(model, tmp_path):
    assert [file.name for file in model.write_histories(tmp_path)] == ["seen.parquet", "bought.parquet"]
    now = DAY["ts"].max() + pd.Timedelta(1, "us")
    users = pd.DataFrame({"user_id": DAY["user_id"].unique(), "ts": now, "item_id": 0, "order": 0})
    for name, by_hand in (("seen", lists(users, DAY, 4)), ("bought", lists(users, DAY, 2, lag=86400, bought=True))):
        held = pd.read_parquet(tmp_path / f"{name}.parquet").set_index("user_id")[name]
        assert {user: list(items) for user, items in held.items()} == {
            user: items for user, items in zip(users["user_id"], by_hand, strict=True) if items
        }


def test_a_calibration_reads_rows_without_the_columns_of_histories(model):
    model = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert model.calibrate(NEXT).ranker_.calibration is not None


@pytest.mark.parametrize(
    ("rows", "said"),
    [(NEXT.assign(seen=[[]] * len(NEXT)), "has the history 'seen' and lacks 'bought'; give all, or none"), (NEXT.drop(columns="ts"), "ts")],
)
def test_rows_that_make_no_history_are_refused(model, rows, said):
    with pytest.raises(DataError, match=said):
        model.predict_proba(rows)


def test_a_train_only_column_is_read_as_stated_while_histories_go_on():
    rows = ROWS.assign(position=np.arange(4000) % 5 + 1)
    model = quick(time="ts", histories=[SEEN], categorical=["item_id", "user_id", "position"], numeric=["price"],
                  train_only=[{"column": "position", "score_as": 1}]).fit(rows[:3000])  # fmt: skip
    scores = model.predict_proba(rows[3000:])
    pd.testing.assert_frame_equal(model.predict_proba(rows[3000:].drop(columns="position")), scores)
    pd.testing.assert_frame_equal(model.predict_proba(NEXT.assign(seen=lists(NEXT, DAY, 4))), scores)


def test_damaged_rows_of_a_run_are_named(model, tmp_path):
    run = model.save(tmp_path / "run")
    (run / "past.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"past\.parquet cannot be read"):
        FunnelClassifier.load(run).predict_proba(NEXT)
