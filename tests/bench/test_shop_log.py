"""The shop's log of the studies: its funnel, its splits by days, and vocabularies that grow."""

from __future__ import annotations

import numpy as np
import pytest

from bench.studies import shop_log
from bench.studies.shop_log import Scope, draw_log, packed
from dcrnn_fast.training.init import grown_encoding

SMALL = Scope(rows=20_000, users=2_000, items=500, categories=10)


def draw(seed):
    return packed(draw_log(seed, SMALL), {"train": range(21), "valid": range(21, 24), "test": range(24, 30)})


def test_events_follow_one_another_at_the_rates_of_the_docstring():
    labels = draw_log(0, SMALL).labels
    assert (np.diff(labels, axis=1) <= 0).all()
    counts = np.r_[len(labels), labels.sum(axis=0)]
    assert counts[1:] / counts[:-1] == pytest.approx(shop_log.RATES, rel=0.15)


def test_a_split_has_consecutive_days_and_train_rows_know_their_ids():
    data = draw(0)
    assert data.meta.rows["test"] == pytest.approx(SMALL.rows / 5, rel=0.05)
    assert data.split("train").ids.min() == 1
    assert data.split("test").ids[:, 1].min() == 0


def test_a_seed_draws_the_same_log_again_and_another_seed_another_one():
    first, again, other = (draw(seed).split("train") for seed in (0, 0, 1))
    assert np.array_equal(first.ids, again.ids)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels[:1000], other.labels[:1000])


def test_later_days_keep_the_numbers_of_known_ids_and_add_new_ones():
    log = draw_log(0, SMALL)
    base = packed(log, {"train": range(10), "valid": range(10, 11)})
    later = packed(log, {"train": range(11, 12), "valid": range(12, 13)}, base.meta)
    assert later.meta.encoding == grown_encoding(base.meta.encoding, later.meta.vocabulary)
    assert later.meta.fields["user"] > base.meta.fields["user"]
    raw, number = log.ids["user"][log.day == 11][0], later.split("train").ids[0, 0]
    assert later.meta.vocabulary["user"][number] == str(raw)
