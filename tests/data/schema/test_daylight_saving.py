"""The hour that a zone skips in spring and the one that it repeats in autumn, in derived columns and in a split by time.

A time that names a zone, and a number, is a moment: its hour and weekday are those of the clock in ``timezone``, and moments keep their
order in a split. A time without a zone is what the clock showed: it is taken as written, and two rows of a repeated hour are of one time.
"""

import pyarrow as pa
import pytest

from dcrnn_fast.data import Encoder
from tests.data.conftest import DAY, HOUR, WEEKDAY

BERLIN = "Europe/Berlin"
SPRING = ["2024-03-31T00:59:59Z", "2024-03-31T01:00:00Z", "2024-03-31T21:59:59Z", "2024-03-31T22:00:00Z"]
"""The last second before the skipped hour, the first one behind it, and the last and the first second of two days."""
AUTUMN = ["2024-10-26T21:59:59Z", "2024-10-26T22:00:00Z", "2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z", "2024-10-27T02:00:00Z"]
"""The last and the first second of two days, half past two in summer time and in winter time, and three o'clock."""
SKIPPED = "2024-03-31T02:30:00"
REPEATED = ["2024-10-27T02:30:00+02:00", "2024-10-27T02:30:00+01:00"]


def as_text(times):
    return times


def as_seconds(times):
    return [value.as_py() for value in pa.array(times).cast(pa.timestamp("s", "UTC")).cast(pa.int64())]


def as_zoned(times):
    return pa.array(times).cast(pa.timestamp("us", BERLIN))


@pytest.fixture
def parts_of(table):
    """Gives the hours, weekdays and days of times in Berlin, as `prepare` learns them and as an `Encoder` of that data encodes them."""

    def parts(times):
        derived = [{**part, "timezone": BERLIN} for part in (HOUR, WEEKDAY, DAY)]
        names = [one["name"] for one in derived]
        schema = {"derived": derived, "categorical": names, "numeric": [], "files": {"train": "t.parquet", "test": "t.parquet"}}
        table.parquet("t.parquet", {"time": times, "click": [0, 1] * (len(times) // 2) + [0] * (len(times) % 2)})
        data = table.prepare(**schema)
        ids = data.split("train").ids
        found = [[int(data.meta.vocabulary[name][row[column]]) for column, name in enumerate(names)] for row in ids]
        assert Encoder.load(data.path).encode({"time": times})[0].tolist() == ids.tolist()
        return found

    return parts


@pytest.mark.parametrize("written", [as_text, as_seconds, as_zoned])
def test_a_clock_skips_an_hour_in_spring_and_repeats_one_in_autumn(parts_of, written):
    assert parts_of(written(SPRING)) == [[1, 6, 31], [3, 6, 31], [23, 6, 31], [0, 0, 1]]
    assert parts_of(written(AUTUMN)) == [[23, 5, 26], [0, 6, 27], [2, 6, 27], [2, 6, 27], [3, 6, 27]]


def test_a_time_without_a_zone_in_the_skipped_hour_is_taken_as_written(parts_of):
    assert parts_of([SKIPPED]) == [[2, 6, 31]]


def split_of(table, times):
    """The names of the rows of each split; the rows are named in the order of the times."""
    names = [f"r{number}" for number in range(len(times))]
    table.parquet("all.parquet", {"time": times, "city": names, "click": [number % 2 for number in range(len(times))]})
    split = {"time": "time", "valid": 1 / len(times), "test": 1 / len(times)}
    data = table.prepare(files={"all": "all.parquet"}, split=split, numeric=[], categorical=[{"column": "city", "hash_buckets": 10_000}])
    ids = {int(data_id): name for name, data_id in zip(names, Encoder.load(data.path).encode({"city": names})[0][:, 0], strict=True)}
    assert len(ids) == len(names)
    return {name: [ids[int(row)] for row in data.split(name).ids[:, 0]] for name in ("train", "valid", "test")}


@pytest.mark.parametrize("written", [as_text, as_seconds, as_zoned])
def test_a_split_by_time_has_the_repeated_hour_in_the_order_of_its_moments(table, written):
    later, earlier = AUTUMN[3], AUTUMN[2]
    assert split_of(table, written([later, AUTUMN[0], earlier, AUTUMN[1]])) == {"train": ["r1", "r3"], "valid": ["r2"], "test": ["r0"]}


SPLITS = {
    "the offset that a text names": [REPEATED[1], "2024-10-27T00:00:00+02:00", REPEATED[0], "2024-10-27T01:59:00+02:00"],
    "around the skipped hour": [SPRING[1], "2024-03-30T00:00:00Z", SPRING[0], "2024-03-30T12:00:00Z"],
}


@pytest.mark.parametrize("times", SPLITS.values(), ids=SPLITS)
def test_a_split_by_time_has_the_order_of_moments(table, times):
    assert split_of(table, times) == {"train": ["r1", "r3"], "valid": ["r2"], "test": ["r0"]}


def test_times_without_a_zone_in_the_repeated_hour_stay_together(table):
    times = ["2024-10-27T02:30:00", "2024-10-27T01:00:00", "2024-10-27T02:30:00", "2024-10-27T00:00:00"]
    assert split_of(table, times) == {"train": ["r1", "r3"], "valid": [], "test": ["r0", "r2"]}
