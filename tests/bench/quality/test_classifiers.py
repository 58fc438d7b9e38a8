"""The trees: each library's best round is kept, and categories are categories, whatever their number. Logistic regression: each id and each
bin is a feature, L2 is chosen by validation rows, and a funnel's probabilities may multiply.
"""

import dataclasses

import numpy as np
import pytest
import sklearn.metrics

from bench.quality import trees
from bench.quality.logistic import STRENGTHS, Logistic, edges, log_loss
from bench.quality.protocol import metrics
from bench.quality.trees import KINDS, Rows, Trees, categories
from tests.bench.quality.toy import log_of_ids, setting_of, toy


@pytest.fixture(params=KINDS)
def name(request):
    if request.param != "trees":
        pytest.importorskip(request.param)
    return request.param


def loss_of(fitted, split):
    """Of the first task."""
    return sklearn.metrics.log_loss(split.labels[:, 0], 1 / (1 + np.exp(-fitted.logits(split)[:, 0])))


def test_the_rounds_kept_are_those_of_the_lowest_validation_loss(name):
    """Fewer rounds and more have a higher loss. Rounds depend on those before them alone, so a shorter fit is a part of a longer one."""
    data, setting = toy(), setting_of(name, learning_rate=0.3)
    valid = data.split("valid")
    best = Trees(name, data, setting, seed=1, rounds=100)
    assert 1 < best.rounds[0] < 100 - trees.PATIENCE, "no round is left out, so this tests nothing"
    same = Trees(name, data, setting, seed=1, rounds=best.rounds[0])
    np.testing.assert_allclose(best.logits(valid)[:, 0], same.logits(valid)[:, 0], rtol=1e-12)
    assert loss_of(best, valid) < loss_of(Trees(name, data, setting, seed=1, rounds=best.rounds[0] - 1), valid)


def test_ids_as_ordered_numbers_lose_on_a_log_of_ids(name, monkeypatch):
    """The defect that an earlier comparison had."""
    data, setting = log_of_ids(), setting_of(name)
    honest = loss_of(Trees(name, data, setting, seed=1, rounds=60), data.split("test"))
    monkeypatch.setattr(trees, "categories", lambda meta: [0] * len(meta.fields))
    assert honest < 0.95 * loss_of(Trees(name, data, setting, seed=1, rounds=60), data.split("test"))


def test_a_train_row_does_not_see_its_own_label_in_its_categorys_rate():
    """Where each category has one row, the labels' rate of that category is the label."""
    y = np.tile([0.0, 1.0], 300)
    train = Rows(np.arange(600, dtype=np.float32)[:, None], y)
    fitted = trees.Histogram([600], setting_of("trees"), 0, 5, train, train)
    own, cross_fitted = fitted.encoded(train.x)[:, 0], fitted.cross_fitted(train)[:, 0]
    assert np.corrcoef(own, y)[0, 1] > 0.9
    assert len(set(cross_fitted)) <= trees.FOLDS


def test_an_id_that_no_train_row_has_can_be_scored(name):
    data = log_of_ids(rows=600)
    train = data.split("train")
    kept = train.ids[:, 0] != 7
    known = dataclasses.replace(train, ids=train.ids[kept], labels=train.labels[kept])
    fitted = Trees(name, dataclasses.replace(data, splits={**data.splits, "train": known}), setting_of(name), seed=1, rounds=5)
    assert np.isfinite(fitted.logits(dataclasses.replace(train, ids=np.array([[7, 1]])))).all()


def test_buckets_of_numbers_and_dense_columns_are_numbers():
    assert categories(toy().meta) == [9, 5, 0, 0]


SETTING = setting_of("logistic")


def test_biases_of_ids_are_learnt():
    data = log_of_ids()
    found = metrics(data, "test", Trees("logistic", data, SETTING, seed=1).logits(data.split("test")))["click"]
    assert found["log_loss"] < 0.85 * found["constant_log_loss"]


def test_the_strength_of_l2_has_the_lowest_loss_of_the_validation_rows():
    data = log_of_ids(rows=2000)
    train, valid = (Rows(data.split(name).ids.astype(np.float32), data.split(name).labels[:, 0]) for name in ("train", "valid"))
    chosen = Logistic([300, 4], SETTING, 0, len(STRENGTHS), train, valid)
    noise = Rows(valid.x, np.random.default_rng(0).permutation(valid.y))
    stronger = Logistic([300, 4], SETTING, 0, len(STRENGTHS), train, noise)
    assert stronger.rounds < chosen.rounds < len(STRENGTHS)
    assert log_loss(chosen.logits(valid.x), valid.y) < log_loss(stronger.logits(valid.x), valid.y)


def test_an_id_that_no_train_row_has_adds_nothing():
    data = log_of_ids(rows=600)
    train = data.split("train")
    kept = train.ids[:, 0] != 7
    rows = Rows(train.ids[kept].astype(np.float32), train.labels[kept, 0])
    fitted = Logistic([300, 4], SETTING, 0, 3, rows, rows)
    assert fitted.weight[7] == pytest.approx(0, abs=1e-9)


def test_a_number_has_bins_of_equally_many_rows():
    values = np.random.default_rng(0).normal(size=3200)
    counts = np.bincount(np.searchsorted(edges(values, 32), values))
    assert counts.tolist() == [100] * 32
    assert edges(np.array([3.0, 1.0, 1.0, 2.0]), 32).tolist() == [1.5, 2.5]


def test_conditional_probabilities_of_a_funnel_are_multiplied():
    data = toy(rows=3000)
    rows = data.split("test")
    logits = Trees("logistic", data, {**SETTING, "conditional": True}, seed=1).logits(rows)
    assert (logits[:, 1] < logits[:, 0]).all()
    known = ~np.isnan(rows.labels[:, 1])
    assert (1 / (1 + np.exp(-logits[known, 1]))).mean() == pytest.approx(rows.labels[known, 1].mean(), rel=0.1)


def test_without_a_funnel_there_are_no_conditionals():
    data = toy()
    apart = dataclasses.replace(data, meta=dataclasses.replace(data.meta, funnel=False))
    assert not Trees("logistic", apart, {**SETTING, "conditional": True}, seed=1).conditional
