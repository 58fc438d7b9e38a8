"""Sums over the parts of a column: exact, and the same bits whatever the parts are and in whatever order they come."""

from fractions import Fraction
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcrnn_fast.data.codes import sums
from dcrnn_fast.data.codes.numbers import edges_of
from dcrnn_fast.data.codes.sums import NumberCounts, Total

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def cut(draw, numbers=FINITE):
    """Numbers, and the same numbers in another order, cut into parts."""
    values = np.array(draw(st.lists(numbers, max_size=40)), np.float64)
    shuffled = np.array(draw(st.permutations(values.tolist())), np.float64)
    places = sorted(draw(st.lists(st.integers(0, len(values)), max_size=5)))
    return values, np.split(shuffled, places)


def merged(kind, parts):
    return reduce(add, [kind.of([part]) for part in parts])


def same(one, other):
    return one.bits == other.bits and one.values.tobytes() == other.values.tobytes() and np.array_equal(one.counts, other.counts)


@given(cut())
def test_a_total_and_counts_are_exact_however_their_parts_are_cut(both):
    values, parts = both
    total = merged(Total, parts)
    assert total == Total.of([values])
    assert total.scaled == sum(int(Fraction(value) * 2**1074) for value in values.tolist())
    whole, expected = NumberCounts.of([values]), np.unique(values + 0.0, return_counts=True)
    assert same(merged(NumberCounts, parts), whole)
    assert np.array_equal(whole.values, expected[0])
    assert np.array_equal(whole.counts, expected[1])


@settings(max_examples=200)
@given(cut(st.floats(1, 2) | st.floats(-1e-300, 1e300) | st.floats(-1e-320, 1e-320) | st.floats(-2, -1)))
def test_counts_of_parts_are_those_of_the_whole_where_numbers_lose_bits(both):
    """With room for five numbers, most of these lose bits; which ones may not depend on the parts."""
    values, parts = both
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "MOST_DISTINCT", 5)
        found = merged(NumberCounts, parts)
        assert same(found, NumberCounts.of([values]))
    assert found.counts.sum() == len(values)
    assert (np.diff(found.values) > 0).all()


@pytest.mark.parametrize("frequent", [19.99, -19.99, 0.0])
def test_a_frequent_number_has_a_bucket_of_its_own_where_numbers_lose_bits(monkeypatch, frequent):
    monkeypatch.setattr(sums, "MOST_DISTINCT", 3_000)
    others = np.random.default_rng(0).lognormal(3, 1, 20_000) * np.sign(frequent or 1.0)
    values = np.concatenate([np.full(5_000, frequent), others])
    found = NumberCounts.of([values])
    assert found.bits > 0
    edges = edges_of(found, 10)
    bucket = np.searchsorted(edges, values, side="right")
    alone = np.searchsorted(edges, frequent, side="right")
    beside = np.unique(others[bucket[5_000:] == alone])
    assert len(beside) < 20, "other numbers than those that were rounded to the frequent one are in its bucket"
    assert (np.bincount(bucket) > 0).all(), "a bucket is empty"


def test_a_total_is_exact_of_many_numbers_and_at_the_ends_of_the_range():
    """More than are added at once, of a wide range; and sums that float64 would round."""
    rng = np.random.default_rng(0)
    many = rng.normal(size=3 * sums.ADDED_AT_ONCE // 2) * 10.0 ** rng.integers(-200, 200, 3 * sums.ADDED_AT_ONCE // 2)
    for values in (many.tolist(), [5e-324, -1e-310], [1.7e308, 1.7e308, -1e300], [2.0**970, 1.0], [-0.0], []):
        assert Total.of([np.array(values)]).scaled == sum(int(Fraction(value) * 2**1074) for value in values)
    assert Total.of([np.array([1e16, 1.0, -1e16])]).mean == 1 / 3
    assert (Total.of([]).mean, len(NumberCounts.of([]).values)) == (0, 0)
    with pytest.raises(OverflowError, match="one of which is inf"):
        Total.of([np.array([1.0, np.inf])])
