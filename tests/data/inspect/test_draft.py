"""A drafted schema: what it makes of each kind of column, and that it prepares the table it was drafted from."""

import datetime
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml

from dcrnn_fast.data import draft_schema, prepare


def drafted(table, columns, **options):
    """The text of a draft of these columns, in a Parquet file or as rows of a CSV file below a header."""
    if isinstance(columns, tuple):
        return draft_schema([str(table.write("t.csv", *columns).folder / "t.csv")], **options)
    return draft_schema([str(table.parquet("t.parquet", columns).folder / "t.parquet")], **options)


def prepared(table, text):
    """The data that a draft prepares."""
    (table.folder / "drafted.yaml").write_text(text, encoding="utf-8")
    return prepare(table.folder / "drafted.yaml", cache_dir=table.folder / "cache")


def shop(table):
    rows = [f"u{i % 70};{'ABC'[i % 3]};{i * 7 % 101}.5;{i % 24};{i % 2};{i % 4 == 1};2024-01-{1 + i % 28:02};x;{i:x}-t" for i in range(600)]
    return table.write("shop log.csv", "user_id;city;price;hour;click;paid;day;constant;token", rows).folder / "shop log.csv"


def test_a_draft_names_each_column_and_prepares_csv_and_parquet(table):
    path = shop(table)
    draft = yaml.safe_load(draft_schema([str(path)]))
    assert (draft["name"], draft["csv"], draft["group"]) == ("shop-log", {"delimiter": ";"}, "user_id")
    assert [task["column"] for task in draft["tasks"]] == ["click", "paid"]
    assert draft["split"] == {"time": "day", "valid": 0.1, "test": 0.2}
    assert [column["column"] for column in draft["categorical"]] == ["user_id", "city", "hour"]
    assert draft["numeric"] == [{"column": "price", "dense": "log1p"}]
    pq.write_table(pa_csv.read_csv(path, parse_options=pa_csv.ParseOptions(delimiter=";")), table.folder / "shop.parquet")
    for file in (path, table.folder / "shop.parquet"):
        data = prepared(table, draft_schema([str(file)]))
        assert (sum(data.meta.rows.values()), data.meta.tasks) == (600, ("click", "paid"))


def drafted_columns(text):
    """By column: what the draft makes of it, a category, a number or a label, or why it is left out."""
    draft = yaml.safe_load(text)
    columns = {field.pop("column"): field for key in ("categorical", "numeric") for field in draft.get(key, [])}
    columns |= {task["column"]: "label" for task in draft["tasks"]}
    return columns | dict(re.findall(r'^#   "(.*?)": .* missing: (.*)$', text, flags=re.MULTILINE))


def test_a_table_of_another_country_is_drafted_as_it_is_written(table):
    """Another encoding, decimal commas, codes with leading zeros, dates in words, separated text, and labels in words of any case."""
    months = ["März", "April", "Mai"]
    lines = [
        f"{i % 60:04};{i % 97},{i % 10};{1 + i % 28} May 2024;{1 + i % 28:02}.05.2024;{('Yes', 'no', 'NO', 'Y')[i % 4]};"
        f"{('TRUE', 'False', 'false')[i % 3]};{','.join(months[: i % 4])};Größe, {i % 7};DE"
        for i in range(300)
    ]
    path = table.folder / "export.csv"
    path.write_text("\n".join(["artikel;preis;datum;tag;klick;gekauft;monate;name;land", *lines, ""]), encoding="latin-1")
    text = draft_schema([str(path)])
    unreadable = "a time; write it as 2024-05-31 or 2024-05-31T23:59:00 to split by it"
    assert yaml.safe_load(text)["csv"] == {"encoding": "cp1252", "delimiter": ";", "decimal": ","}
    assert drafted_columns(text) == {
        "artikel": {},
        "preis": {"dense": "log1p"},
        "datum": unreadable,
        "tag": unreadable,
        "klick": "label",
        "gekauft": {},
        "monate": {"max_values": 3, "separator": ","},
        "name": {},
        "land": "one value",
    }
    assert re.search(r'"gekauft".*: is it a label\?', text)
    data = prepared(table, text)
    assert sum(data.meta.rows.values()) == 300
    assert "0007" in data.meta.vocabulary["artikel"]


@pytest.mark.parametrize(
    ("texts", "remarked"), [(["clicked", "ignored"], True), (["clicked", "ignored", None], True), (["a", "b", "c"], False)]
)
def test_two_texts_of_an_event_by_name_may_be_a_label(table, texts, remarked):
    text = drafted(table, {"paid": [0, 1] * 60, "click": (texts * 60)[:120], "city": ["a", "b"] * 60})
    assert re.findall(r'"(\w+)".*: is it a label\?', text) == ["click"] * remarked


def test_lists_become_fields_with_several_values_and_vectors_do_not(table):
    rows = range(200)
    columns = {
        "click": [i % 2 for i in rows],
        "tags": [["a", "b", "c", "d"][: i % 5] for i in rows],
        "history": [[*range(i % 60)] for i in rows],
        "vector": [[i / 7, 1.0] for i in rows],
    }
    table.parquet("2024-05-01.parquet", columns)
    text = draft_schema([str(table.folder / "*.parquet"), str(table.folder / "train.csv")])
    assert drafted_columns(text) == {"click": "label", "tags": {"max_values": 4}, "history": {"max_values": 20}, "vector": "no field"}
    assert yaml.safe_load(text)["name"] == re.sub("[^a-z0-9_-]", "-", table.folder.name.lower())


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_column_that_some_files_lack_is_left_out_and_the_draft_runs(table, kind):
    columns = {"click": [0, 1] * 40, "city": ["a", "b"] * 40, "price": [*range(80)]}
    for name, more in (("1", {}), ("2", {"campaign": ["x", "y"] * 40, "user_id": [*range(80)]}), ("3", {})):
        pd.DataFrame({**columns, **more}).to_csv(table.folder / f"day-{name}.csv", index=False)
        table.parquet(f"day-{name}.parquet", {**columns, **more})
    text = draft_schema([str(table.folder / f"day-*.{kind}")])
    assert kinds(text)["campaign"] == kinds(text)["user_id"] == f"day-1.{kind} lacks it, as may other files"
    assert sum(prepared(table, text).meta.rows.values()) == 240
    (table.folder / "day-1.csv").write_bytes(b"")
    assert kinds(draft_schema([str(table.folder / "day-[13].csv")]))["city"] == "categorical", "an empty file lacks no column"


def test_a_huge_number_does_not_make_all_others_alike(table):
    price = [*(-1.0 + step / 50 for step in range(100)), 1e12, -1e9]
    text = drafted(table, {"click": [row % 2 for row in range(102)], "price": price, "city": ["a", "b"] * 51})
    assert drafted_columns(text)["price"] == {"dense": "log1p"}
    dense = prepared(table, text).split("train").dense
    assert len(np.unique(dense)) == len(dense)


def test_an_id_of_its_own_in_each_row_is_left_out_as_text_and_as_a_number(table):
    rows = [*range(400)]
    columns = {"click": [0, 1] * 200, "id": rows, "rowid": [str(row) for row in rows], "item_id": [row % 60 for row in rows]}
    found = drafted_columns(drafted(table, columns))
    assert (found["id"], found["rowid"], found["item_id"]) == ("every row another", "every row another", {})


@pytest.mark.parametrize("name", ["search_id", "requestId", "impression_uuid"])
def test_the_id_of_a_request_is_no_field_but_the_group(table, name):
    rows = [*range(900)]
    columns = {"click": [0, 1] * 450, name: [row // 5 for row in rows], "item_id": [row % 60 for row in rows]}
    text = drafted(table, columns)
    assert drafted_columns(text)[name] == "a request's; those to come have others"
    draft = yaml.safe_load(text)
    assert (draft["group"], draft["split"]) == (name, {"hash": name, "valid": 0.1, "test": 0.2}), "its rows stay together"
    assert list(prepared(table, text).meta.fields) == ["item_id"]
    of_users = drafted(table, columns | {"user_id": [row // 9 for row in rows]})
    assert yaml.safe_load(of_users)["group"] == "user_id"
    assert drafted_columns(of_users)[name] == "a request's; those to come have others"


def test_integers_that_no_float_holds_are_ids_and_infinite_floats_are_not(table):
    hashes = [-(2**55) + 12345 * (row % 200) for row in range(400)]
    level = [1.0, 2.0, float("inf"), 3.0] * 100
    columns = {"click": [0, 1] * 200, "feature_7": hashes, "price": [row / 7 for row in range(400)]}
    found = drafted_columns(drafted(table, columns | {"level": level}))
    assert (found["feature_7"], found["price"], found["level"]) == ({}, {"dense": "log1p"}, {"dense": "log1p"})
    assert list(prepared(table, drafted(table, columns)).meta.fields) == ["feature_7"]


def kinds(text):
    """By column: the part of the draft that names it, or why it is left out."""
    draft = yaml.safe_load(text)
    named = {field["column"]: key for key in ("categorical", "numeric") for field in draft.get(key, [])}
    return named | dict(re.findall(r'^#   "(.*?)": .* missing: (.*)$', text, flags=re.MULTILINE))


DRAWN = np.random.default_rng(0)
FRACTIONS, COUNTS = DRAWN.gamma(2, 1, 900).round(3), DRAWN.integers(0, 4000, 900)
KINDS = {
    "numeric": {
        **dict.fromkeys(["user", "user_id", "user_avg_spend", "watch_time", "time", "dwellTime", "cost_per_userid"], FRACTIONS),
        **dict.fromkeys(["bid", "amount_paid", "isValid", "user_age", "follow_user_num", "session_length", "sessionLength"], COUNTS),
        **dict.fromkeys(["account_age_days", "register_days", "time_since_last_visit", "play_time_ms", "paid"], COUNTS),
        "few_fractions": np.tile([0.5, 0.7, 1e-6], 300),
        "hours_of_day": np.arange(900) / 60,
    },
    "categorical": {
        **dict.fromkeys(["user", "user_id", "userId", "uid", "visitorid", "member_key", "itemid", "adID", "parent_uuid"], COUNTS % 200),
        **dict.fromkeys(["customer_id", "session"], np.where(COUNTS % 9, COUNTS % 200, np.nan)),
        "hourmin": COUNTS % 24 * 100,
        "server_width": COUNTS % 3 * 360.0,
    },
    "time": {
        **{"ts": 1_714_521_600 + COUNTS, "event_ts": np.arange(900)},
        "timeStamp": 1_714_521_600 + FRACTIONS,
        "time_ms": 1_649_000_000_000 + COUNTS,
        "eventTime": (1_714_521_600 + COUNTS) * 10**9,
        "date": 20_220_408 + COUNTS % 9,
    },
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, columns in KINDS.items() for name in columns])
def test_numbers_are_ids_or_times_if_their_name_and_values_say_so(table, kind, name):
    draft = drafted(table, {"click": COUNTS % 2, name: KINDS[kind][name]})
    assert kinds(draft) == {name: "time; derive its hour or weekday to use it" if kind == "time" else kind}
    is_user = kind == "categorical" and re.match("user|uid|visitor|member|customer|session", name) is not None
    assert ("group" in yaml.safe_load(draft)) == is_user


def test_a_split_takes_the_finest_moment_before_any_number(table):
    day = np.datetime64("2024-05-01", "us")
    columns = {"watch_time": FRACTIONS, "time_ms": 1_649_000_000_000 + COUNTS, "joined_date": day - COUNTS // 900 * np.timedelta64(1, "D")}
    assert yaml.safe_load(drafted(table, columns | {"ts": day + np.arange(900), "click": COUNTS % 2}))["split"]["time"] == "ts"
    rows = [(i % 2, 1_700_000_000 + i if i else 0, f"2024-{1 + i % 12:02}-{1 + i % 28:02}", i / 7) for i in range(900)]
    text = drafted(table, ("click,timestamp,signup_date,watch_time", rows))
    assert yaml.safe_load(text)["split"]["time"] == "timestamp", "a zero among its seconds makes a number of it"
    assert drafted_columns(text)["watch_time"] == {"buckets": 32, "dense": "log1p"}


def test_a_flag_that_is_missing_or_set_is_a_field_or_an_event(table):
    flag = ["yes", None] * 100
    found = drafted_columns(drafted(table, {"click": [0, 1] * 100, "coupon": flag, "returned_order": flag, "none": [None] * 200}))
    told = "a label? As a feature it would tell the events"
    assert found == {"click": "label", "coupon": {}, "returned_order": told, "none": "one value"}


def test_lists_that_grow_longer_later_in_a_table_are_seen(table):
    rows = range(30_000)
    text = drafted(table, {"click": [i % 2 for i in rows], "viewed": [[*range(i // 3_000)] for i in rows]})
    assert drafted_columns(text)["viewed"] == {"max_values": 9}


@pytest.mark.parametrize("name", ["user_idx", "customer_no", "user_pseudo_id", "sessionKey"])
def test_a_users_number_is_an_id_and_the_group(table, name):
    text = drafted(table, (f"click,{name},price", [(i % 2, 1000 + i % 300, i / 7) for i in range(900)]))
    assert (drafted_columns(text)[name], yaml.safe_load(text)["group"]) == ({}, name)


def test_a_number_is_in_buckets_only_if_cells_or_categories_are_missing(table):
    rows = [(i % 2, i / 7, "" if i % 9 == 0 else i / 7, "ab"[i % 2]) for i in range(1, 901)]
    found = drafted_columns(drafted(table, ("click,price,size,city", rows)))
    assert (found["price"], found["size"]) == ({"dense": "log1p"}, {"buckets": 32, "dense": "log1p"})
    text = drafted(table, ("click,price,size", [(i % 2, i / 7, i / 11) for i in range(1, 901)]))
    found = drafted_columns(text)
    assert (found["price"], found["size"]) == ({"buckets": 32, "dense": "log1p"}, {"dense": "log1p"}), "a schema needs a field"
    assert prepared(table, text).meta.dense == ("price", "size")


def test_texts_that_stand_for_no_value_are_found(table):
    rows = [(("NA", "0", "1")[i % 3], ("null", i, i)[i % 3], "ab"[i % 2]) for i in range(90)]
    text = drafted(table, ("click,price,city", rows))
    assert yaml.safe_load(text)["missing_values"] == ["", "NA", "null"]
    assert drafted_columns(text) == {"click": "label", "price": {"buckets": 32, "dense": "log1p"}, "city": {}}
    assert 0 < np.isnan(prepared(table, text).split("train").labels).mean() < 1


def test_a_name_like_a_date_is_text_and_a_short_row_hides_no_delimiter(table):
    table.write("2024-05-01.csv", "click,a,b", [*["1,2,3", "0,1,2"] * 60, "1,2"])
    draft = yaml.safe_load(draft_schema([str(table.folder / "2024-05-01.csv")]))
    assert (draft["name"], "csv" in draft) == ("2024-05-01", False)


@pytest.mark.parametrize(
    ("columns", "tasks", "fields"),
    [
        (("click,a,a,,CLICK, b", ["1,2,3,x,1,5", "0,3,2,y,0,6"] * 60), ("click", "CLICK"), [" b"]),
        (pa.table([[1, 0] * 60, [1, 2] * 60, [3, 4] * 60, [5, 6] * 60, [7, 8] * 60, [9, 0] * 60], names=["click", "a", "A", "", "b", "b"]),
         ("click",), ["a", "A"]),
        (("click a,click_a,b", ["1,0,3", "0,1,4"] * 60), ("click_a", "task1_click_a"), ["b"]),
    ],
    ids=["csv", "parquet", "tasks"],
)  # fmt: skip
def test_columns_that_no_schema_can_name_are_left_out(table, columns, tasks, fields):
    text = drafted(table, columns)
    assert text.partition("# Left out:")[2].count("rename it there") == (0 if "task1_click_a" in tasks else 3)
    meta = prepared(table, text).meta
    assert (meta.tasks, list(meta.fields)) == (tasks, fields)


@pytest.mark.parametrize("sign", ["\x00", "\t", "\n", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "\U0001f600"])
def test_a_name_with_a_control_character_is_read_back_as_it_is(table, sign):
    text = drafted(table, {"click": [1, 0] * 60, f"a{sign}b": ["x", "y"] * 60})
    assert list(prepared(table, text).meta.fields) == [f"a{sign}b"]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_labels_that_are_floats_because_some_are_missing_are_labels(table, missing):
    columns = {"click": pa.array([1.0, 0.0, missing] * 50), "price": [0.0, 0.5, 1.0] * 50, "city": ["a", "b", "a"] * 50}
    assert [task["column"] for task in yaml.safe_load(drafted(table, columns))["tasks"]] == ["click"]


def test_columns_that_no_schema_or_request_could_have_are_left_out(table):
    rows = 200
    left = {
        "day": ([datetime.date(2024, 5, 1)] * rows, "one value"),
        "seen_time": ([None, *(datetime.datetime(2024, 5, 1, 0, 0, row % 60) for row in range(1, rows))], "some rows lack"),
        "stay": ([datetime.timedelta(seconds=row) for row in range(rows)], "durations"),
        "__index_level_0__": (np.arange(rows) * 3, "pandas hides"),
    }
    columns = {"city": ["Oslo", "Rome"] * (rows // 2), "price": np.arange(rows) / 7, "click": [0, 1] * (rows // 2)}
    draft = drafted(table, columns | {name: cells for name, (cells, _) in left.items()})
    content = yaml.safe_load(draft)
    assert [column["column"] for kind in ("categorical", "numeric") for column in content[kind]] == ["city", "price"]
    assert "split" not in content
    for name, (_, why) in left.items():
        assert re.search(rf'"{name}": .*{why}', draft.partition("# Left out:")[2]), name
    assert prepared(table, draft).meta.dense == ("price",)
