"""Columns that a schema derives: parts of a time, and crosses of columns."""

from datetime import datetime, timezone
from itertools import permutations
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.data import Encoder, prepare
from dcrnn_fast.data.read.columns import Place
from dcrnn_fast.data.read.derive import with_derived
from dcrnn_fast.data.schema.fields import Derived
from dcrnn_fast.errors import DataError
from tests.data.conftest import CROSS, DAY, HOUR, WEEKDAY

PLACE = Path("log.csv")


def derive(columns, *definitions):
    batch = pa.RecordBatch.from_pydict(columns)
    made = with_derived(batch, [Derived(**one) for one in definitions], Place(PLACE, 0))
    assert made.schema.names == [*columns, *(one["name"] for one in definitions)]
    return [made.column(one["name"]).to_pylist() for one in definitions]


def of_time(cells, **options):
    """[hour, weekday, day] of the first cell."""
    return [column[0] for column in derive({"time": pa.array(cells)}, *({**part, **options} for part in (HOUR, WEEKDAY, DAY)))]


FRIDAY = [23, 4, 31]
"""Of 2024-05-31T23:59:00."""
SECONDS = 1717199940


SPELLINGS = [
    *(SECONDS, float(SECONDS) + 0.75, str(SECONDS), f"{SECONDS}.5"),
    *("2024-05-31T23:59:00", "2024-05-31 23:59:00.123456789", "2024-05-31T23:59:00Z", "2024-06-01T01:59:00+02:00"),
    *(datetime(2024, 5, 31, 23, 59, tzinfo=timezone.utc), datetime(2024, 5, 31, 23, 59)),
]


@pytest.mark.parametrize("cell", SPELLINGS, ids=repr)
def test_hour_weekday_and_day_are_read_from_every_spelling_of_a_time(cell):
    assert of_time([cell]) == FRIDAY


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_numbers_count_in_the_unit_that_the_schema_names(unit, per_second):
    for cell in (SECONDS * per_second + per_second - 1, str(SECONDS * per_second)):
        assert of_time([cell], unit=unit) == FRIDAY


@pytest.mark.parametrize(("unit", "given"), [("ms", SECONDS), ("us", SECONDS), ("us", SECONDS * 10**3), ("ns", SECONDS * 10**6)])
def test_numbers_in_a_coarser_unit_than_the_schemas_are_refused(unit, given):
    with pytest.raises(DataError, match=rf"row 2: .* holds {given}, which in the unit {unit} is a time of 1970 to 1973"):
        of_time([None, given], unit=unit)


TIMES = [
    (["2024-05-31"], {}, [0, 4, 31]),
    ([datetime(2024, 5, 31).date()], {}, [0, 4, 31]),
    ([90_000_000_000, SECONDS * 1000], {"unit": "ms"}, [16, 1, 7]),
    ([0], {"unit": "ms"}, [0, 3, 1]),
    ([-1], {}, [23, 2, 31]),
    ([-0.5], {}, [23, 2, 31]),
    ([20240531], {"unit": "s"}, [6, 6, 23]),
    ([20240531, 20240599], {}, [6, 6, 23]),
    *(([*cells], {}, [None] * 3) for cells in ([None, SECONDS], [float("nan"), 1.0], [None, "2024-05-31"], [None, None])),
    (["2024-05-31T23:59:00Z"], {"timezone": "Europe/Berlin"}, [1, 5, 1]),
    (["2024-05-31T23:59:00"], {"timezone": "Europe/Berlin"}, FRIDAY),
]


@pytest.mark.parametrize(("cells", "options", "found"), TIMES, ids=str)
def test_dates_numbers_and_missing_times_have_the_hour_of_their_clock(cells, options, found):
    assert of_time(cells, **options) == found


def test_a_time_zone_moves_instants_over_daylight_saving():
    seconds = np.random.default_rng(0).integers(0, 2**31, 500).tolist()
    local = [datetime.fromtimestamp(second, ZoneInfo("America/New_York")) for second in seconds]
    hours, weekdays = derive({"time": seconds}, *({**part, "timezone": "America/New_York"} for part in (HOUR, WEEKDAY)))
    assert (hours, weekdays) == ([moment.hour for moment in local], [moment.weekday() for moment in local])


def test_a_cross_joins_the_texts_and_keeps_different_rows_apart():
    city, device = ["a", "a|b", "a", "a\\", "a"], ["x", "c", "b|c", "|c", "\\|c"]
    [crossed] = derive({"city": city, "device": device}, CROSS)
    assert crossed == ["a|x", r"a\|b|c", r"a|b\|c", r"a\\|\|c", r"a|\\\|c"]
    [crossed] = derive({"city": ["a", None, None, "<missing>"], "device": [None, "x", None, None]}, CROSS)
    assert crossed == ["a|<missing>", "<missing>|x", None, r"\\<missing>|<missing>"]
    hour_x_store = {"name": "hour_x_store", "cross": ["hour", "store"]}
    assert derive({"time": [SECONDS, None], "store": [7, 8]}, HOUR, hour_x_store)[1] == ["23|7", "<missing>|8"]
    empty = pa.array([], pa.string())
    assert derive({"time": empty, "city": empty, "device": empty}, HOUR, CROSS) == [[], []]


def test_derived_columns_become_fields_and_dense_values_as_others_do(visits):
    data = visits.prepare()
    assert data.meta.vocabulary == {"hour": ["<oov>", "23", "0", "<missing>"], "city_x_device": ["<oov>", "a|x"], "weekday": [5.0, 6.0]}
    assert data.split("train").ids.tolist() == [[1, 1, 1], [2, 0, 2], [3, 0, 0], [1, 1, 3]]
    np.testing.assert_allclose(data.split("train").dense[:, 0], np.array([-1, 0, 0, 1]) * 1.5**0.5, rtol=1e-6)


def test_parquet_files_give_the_same_data_as_csv_files(visits):
    expected = visits.prepare()
    rows = pa.table(
        {
            "city": ["a", "a", "b", "a"],
            "device": pa.array(["x", "y", "x", "x"]).dictionary_encode(),
            "time": pa.array([SECONDS, SECONDS + 660, None, SECONDS + 169260], pa.timestamp("s")),
            "click": [False, True, False, True],
        }
    )
    for name in ("train.parquet", "test.parquet"):
        pq.write_table(rows, visits.folder / name)
    assert visits.prepare(files={"train": "train.parquet", "test": "test.parquet"}).meta.digest == expected.meta.digest


def test_a_cross_may_be_hashed_and_a_derived_column_may_group_and_split(visits):
    data = visits.prepare(
        files={"all": "train.csv"},
        split={"hash": "city_x_device", "test": 0.5},
        categorical=["hour", {"column": "city_x_device", "hash_buckets": 10}],
        group="city_x_device",
    )
    assert data.meta.fields["city_x_device"] == 11
    assert sum(data.meta.rows.values()) == 4
    by_group = {}
    for split in ("train", "test"):
        for group, row in zip(data.split(split).group.tolist(), data.split(split).ids[:, 1].tolist(), strict=True):
            by_group.setdefault(group, set()).add((split, row))
    assert all(len(rows) == 1 for rows in by_group.values())


def test_another_table_is_derived_as_the_encoding_says(visits):
    first = visits.prepare()
    assert first.meta.encoding["derived"] == {
        "hour": {"column": "time", "as": "hour", "zoned": False},
        "weekday": {"column": "time", "as": "weekday", "zoned": False},
        "city_x_device": {"cross": ["city", "device"]},
    }
    visits.write("test.csv", "city,device,time,click", [("a", "x", "2024-06-03T23:00:00", 1), ("z", "x", "2024-06-03T11:00:00", 1)])
    other = prepare(visits.save(), cache_dir=visits.folder / "cache", encoding=first.meta.encoding)
    assert other.split("test").ids.tolist() == [[1, 1, 1], [0, 0, 1]]


NAIVE, MOMENT, SINCE = "2024-05-31T23:59:00", "2024-05-31T23:59:00Z", 1_717_199_940


@pytest.mark.parametrize(("learned", "told"), [*permutations((NAIVE, MOMENT, SINCE), 2)])
def test_times_with_a_zone_are_refused_where_others_were_learned(learned, told, tmp_path):
    hour = {"name": "hour", "column": "ts", "as": "hour", "timezone": "Europe/Berlin"}
    schema = {"name": "shop", "derived": [hour], "split": {"hash": "x", "test": 0.2}}
    schema |= {"categorical": ["hour"], "tasks": [{"name": "click", "column": "click"}]}
    rows = {"ts": [learned] * 40, "x": range(40), "click": [0, 1] * 20}
    encoder = Encoder.load(prepare(schema, rows, cache_dir=tmp_path).path)
    assert encoder.encode({"ts": [learned, None]}).ids.shape == (2, 1)
    if MOMENT in (learned, told) and SINCE in (learned, told):
        assert encoder.encode({"ts": [told]}).ids.tolist() == [[1]]
        return
    with pytest.raises(DataError, match=r"table, row 2: column 'ts' is used as a time and holds .*, a time .* would tell another hour"):
        encoder.encode({"ts": [None, told]})
    with pytest.raises(DataError, match="write all times alike"):
        prepare({**schema, "split": None}, {"train": rows, "test": {**rows, "ts": [told] * 40}}, cache_dir=tmp_path)
