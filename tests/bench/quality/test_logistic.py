"""Logistic regression: each id and each bin is a feature, L2 is chosen by validation rows, and a funnel's probabilities may multiply."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bench.quality.logistic import STRENGTHS, Logistic, Rows, edges, log_loss
from bench.quality.protocol import metrics
from bench.quality.trees import Trees
from tests.bench.quality.toy import log_of_ids, setting_of, toy

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
