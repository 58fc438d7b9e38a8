"""What a schema may not say of its columns, and columns that cannot be what it says."""

import json

from dcrnn_fast.data import PackedMeta, open_packed
from dcrnn_fast.data.schema.fields import derived_columns
from dcrnn_fast.data.schema.table import load_schema
from dcrnn_fast.errors import DataError
from tests.data.conftest import CROSS, DAY, HOUR, SHARED, WEEKDAY
from tests.data.schema.test_derived_columns import SECONDS, of_time
from tests.data.schema.test_truth_values import labels
from tests.refusals import refused, row, rows


def task(**rule):
    return {"tasks": [{"name": "click", "column": "click", **rule}]}


def a_sealed_meta_whose_sharing_is_impossible(change, items):
    file = items.prepare().path / "meta.json"
    content = {**json.loads(file.read_text()), **change}
    content["digest"] = PackedMeta(**content).computed_digest()
    file.write_text(json.dumps(content))
    open_packed(file.parent)


def what_is_no_plain_yaml_mapping(content, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    load_schema(path)


TABLE = [
    *rows("what is not a time is refused with its row", lambda cells: of_time(cells), DataError, within=r"log\.csv.*{}", cases=[
        ([0, SECONDS * 1000], "row 2: column 'time' is used as a time and holds 1717199940000, .* unit s: name theirs, such as `unit: ms`"),
        ([-(2**63)], "row 1: .* more than 3,000 years from 1970"),
        ([1.7e300], r"row 1: .* holds 1.7e\+300, which is more than 3,000 years"),
        ([None, 20240531, 20240601], "row 2: .* holds 20240531, which looks like a date, .* write dates as 2024-05-31, or .* `unit: s`"),
        (["20240531"], "row 1: .* looks like a date"),
        (["2024-05-31", "soon"], "row 2: column 'time' is used as a time and holds 'soon', expected a number, or a time such as"),
        (["2024-05-31T00:00:00Z", "2024-05-31"], "row 2: .* holds '2024-05-31', .* all name a zone"),
        ([True], "column 'time' is used as a time and is of type 'bool'; convert it to times, dates, or numbers"),
        ([[1]], "is of type 'list"),
        ([float("inf")], "infinite"),
    ]),
    *rows("a definition that is none",
        lambda definition: derived_columns({"it": definition}), ValueError, said=r"derived|unknown key", values=[
        {}, {"cross": ["a"]}, {"column": "time", "as": "hour", "to": "x"}, {"cross": ["it", "a"]},
    ]),
    *rows("an encoding of columns that are derived in another way",
        lambda derived, visits: visits.prepare(derived=derived, encoding=visits.prepare().meta.encoding), DataError, cases=[
        ([{**HOUR, "timezone": "Europe/Berlin"}, WEEKDAY, CROSS],
         "column 'hour' is derived by .*Berlin.* in its schema, and by .*'as': 'hour'"),
        ([{**HOUR, "as": "day"}, WEEKDAY, CROSS], "column 'hour' is derived by"),
        ([HOUR, WEEKDAY, {**CROSS, "cross": ["device", "city"]}], "column 'city_x_device' is derived"),
    ]),
    row("an encoding without the derived columns",
        lambda visits: visits.prepare(encoding={name: visits.prepare().meta.encoding[name] for name in ("vocabulary", "scaling")}),
        DataError, r"column 'city_x_device' is derived by .*, and by none in the data whose encoding is asked for"),
    *rows("derived columns that make no sense",
        lambda changes, visits: load_schema(visits.save(**changes)), DataError, within=r"shop\.yaml.*({})", cases=[
        ({"derived": [HOUR, WEEKDAY, CROSS, dict(HOUR)]}, "derived column named twice: hour"),
        ({"derived": [HOUR, WEEKDAY, CROSS, DAY]}, "derived column 'day' is used nowhere"),
        ({"derived": [HOUR, WEEKDAY, {**CROSS, "as": "hour"}]}, "`cross` and `as` exclude each other"),
        ({"derived": [HOUR, WEEKDAY, {**CROSS, "cross": ["city"]}]}, "expected two or more different columns"),
        ({"derived": [HOUR, WEEKDAY, {**CROSS, "cross": ["city", "city"]}]}, "expected two or more different columns"),
        ({"derived": [{"name": "hour", "column": "time"}]}, "needs a `column` with `as`"),
        ({"derived": [{**HOUR, "as": "minute"}]}, "got 'minute': input should be 'hour', 'weekday' or 'day'"),
        ({"derived": [{**HOUR, "part": "hour"}]},
         "unknown key 'part'; the known keys are name, column, as, unit, timezone, zoned, value, separator, cross"),
        ({"derived": [{**HOUR, "timezone": "Mars/Olympus"}]}, "timezone is 'Mars/Olympus', expected a known one, such as Europe/Berlin"),
        ({"derived": [{**HOUR, "timezone": "../etc/passwd"}]}, "timezone is '../etc/passwd', expected a known one"),
        ({"derived": [{**HOUR, "name": "time"}]}, "derived column 'time' is a part of 'time', which is derived"),
        ({"derived": [HOUR, {**WEEKDAY, "column": "hour"}]}, "derived column 'weekday' is a part of 'hour', which is derived"),
        ({"derived": [{**CROSS, "cross": ["city", "city_x_device"]}]}, "derived columns need themselves: 'city_x_device' is read by"),
        ({"derived": [{"name": "p", "cross": ["q", "city"]}, {"name": "q", "cross": ["city", "p"]}]},
         "need themselves: 'p' is read by 'q' is read by 'p'|need themselves: 'q' is read by 'p' is read by 'q'"),
        ({"derived": [HOUR, WEEKDAY, {**CROSS, "cross": ["city", "click"]}]},
         "column 'click', from which 'city_x_device' is derived, is a label"),
        ({"numeric": [{"column": "city_x_device", "buckets": 4}]}, "field named twice"),
        ({"categorical": ["hour"], "numeric": [{"column": "city_x_device", "dense": "log1p"}]}, "'city_x_device' is a cross"),
    ]),
    row("a derived column with the name of a column of the files",
        lambda visits: visits.write("train.csv", "city,device,time,click,hour", [("a", "x", "2024-05-31", 0, 7)]).prepare(),
        DataError, r"train\.csv has the columns hour, which schema 'shop' derives; rename them there or in its"),
    row("a column that only derived columns read must be there",
        lambda visits: visits.write("train.csv", "city,time,click", [("a", "2024-05-31", 0)]).prepare(),
        DataError, r"train\.csv lacks the columns device that schema 'shop' uses"),
    row("a column that is almost there",
        lambda visits: visits.write("train.csv", "city,devise,time,click", [("a", "x", "2024-05-31", 0)]).prepare(),
        DataError, r"lacks the columns device that schema 'shop' uses; it has city, devise, time, click; did you mean 'devise'\?"),
    row("a cell that is not a time stops with file and row",
        lambda visits: visits.write("test.csv", "city,device,time,click", [("a", "x", "2024-05-31", 0), ("a", "x", "soon", 0)]).prepare(),
        DataError, r"test\.csv, row 2: column 'time' is used as a time and holds 'soon'"),
    *rows("an encoding in which other fields share",
        lambda categorical, items: items.prepare(categorical=categorical, encoding=items.prepare().meta.encoding),
        DataError, said=r"column '(last_)?item' has the ids of .* in its schema, and of .* in the data whose encoding", values=[
        ["last_item", "item"], ["last_item", {"column": "item", "same_ids_as": "last_item"}],
    ]),
    *rows("a sealed meta whose sharing is impossible",
        a_sealed_meta_whose_sharing_is_impossible, DataError, within=r"meta\.json.*{}", cases=[
        ({"shared": {"last_item": "shop"}}, "shared says that 'last_item' has the ids of 'shop', expected a field and another one"),
        ({"shared": {"last_item": "item", "item": "last_item"}}, "expected a field and another one that has its own"),
        ({"vocabulary": {"last_item": ["<oov>", "x"], "item": ["<oov>", "y"]}}, "but their vocabularies differ"),
        ({"fields": {"last_item": 5, "item": 6}}, "but their vocabularies differ"),
        ({"shared": ["item"]}, "shared is .* expected a field by field"),
        ({"derived": {"item": 3}}, "derived is .* expected a definition by column"),
    ]),
    row("an encoding whose sharing is impossible",
        lambda items: items.prepare(encoding=items.prepare()
            .meta.encoding | {"vocabulary": {"last_item": ["<oov>"], "item": ["<oov>", "p"]}}),
        DataError, r"encoding: shared says .* but their vocabularies differ"),
    *rows("a field that names no field with ids of its own",
        lambda categorical, items: load_schema(items.save(categorical=categorical)), DataError, within=r"shop\.yaml.*{}", cases=[
        ([SHARED, "city"], "`same_ids_as` names 'item', which is not a categorical column; expected one of city"),
        ([{"column": "item", "same_ids_as": "item"}, "city"], "names 'item', which has the ids of 'item' itself; expected one of city"),
        ([SHARED, {"column": "item", "same_ids_as": "city"}, "city"], "names 'item', which has the ids of 'city' itself"),
        ([{**SHARED, "min_count": 3}, "item"], "'last_item' has the ids of 'item': state `min_count` or `hash_buckets` there"),
        ([{**SHARED, "hash_buckets": 3}, "item"], "'last_item' has the ids of 'item': state `min_count` or `hash_buckets` there"),
    ]),
    *rows("what is no plain yaml mapping", what_is_no_plain_yaml_mapping, DataError, said=r"broken\.yaml", values=[
        "a: [1", "- a list\n", "", "a: !!python/object/apply:os.getcwd []\n",
    ]),
    row("a word that says neither is an error in parquet",
        lambda table: labels(table, ["true", "maybe"], kind="parquet"),
        DataError, r"train\.parquet, row 2: column 'click' is used as a label and holds 'maybe', expected 0, 1, true, false, or"),
    row("a positive that no row has is named with what the column holds",
        lambda table: labels(table, ["1", "0"], positive=True),
        DataError, r"no train row has 'click' in \[True\]; the column holds \['0', '1'\]"),
    *rows("a positive that is neither text nor integer nor truth",
        lambda positive, table: load_schema(table.save(tasks=[{"name": "click", "column": "click", "positive": [positive]}])),
        DataError, said=r"`positive` takes text, integers, true and false, got .* put it in quotes", values=[
        1.5, None, {"a": 1},
    ]),
    row("an unknown key is named with the known ones",
        lambda table: load_schema(table.save(catagorical=["city"])), DataError, r"shop\.yaml.*'catagorical'.*\bcategorical\b"),
    row("an unknown nested key is named with its place",
        lambda table: load_schema(table.save(numeric=[{"column": "price", "bukets": 4}])),
        DataError, r"shop\.yaml.*numeric\.0.*'bukets'.*buckets"),
    *rows("a schema that contradicts itself",
        lambda changes, table: load_schema(table.save(**changes)), DataError, within=r"shop\.yaml.*{}", cases=[
        ({"categorical": ["city", "click"]}, "'click' is a label"),
        ({"weight": "city"}, "'city' is the weight"),
        ({"group": "click"}, "`group` and `tasks` both name column 'click': a label cannot be both; name another one"),
        ({"weight": "click"}, "`weight` and `tasks` both name column 'click'"),
        ({"files": {"all": "t.csv"}, "split": {"hash": "click", "test": 0.2}}, "`split` and `tasks` both name column 'click'"),
        ({"files": {"all": "t.csv"}, "split": {"time": "click", "test": 0.2}}, "`split` and `tasks` both name column 'click'"),
        ({"files": {"all": "train.csv", "split_column": "city"}}, "'city' is the split column"),
        ({"files": {"train": "train.csv"}}, "`train` and `test`"),
        ({"split": {"hash": "city", "test": 0.2}}, "`split` cuts .*, and excludes `train` and `test` in `files`"),
        ({"files": {"all": "t.csv", "test_fraction": 0.3}, "split": {"hash": "city", "test": 0.2}}, "excludes test_fraction in `files`"),
        ({"files": {"all": "t.csv"}}, "`split_column`"),
        ({"files": {"all": "t.csv", "split_column": "s", "test_fraction": 0.3}}, "`split_column` and `test_fraction` exclude each other"),
        ({"files": {"all": "t.csv", "train": "train.csv", "test_fraction": 0.3}}, "exclude each other"),
        ({"files": {"train": "a.csv", "test": "b.csv", "test_fraction": 0.3}}, "belong to files given as `all`"),
        ({"files": {"all": "t.csv", "test_fraction": 1.0}}, "less than 1"),
        ({"numeric": [{"column": "price"}]}, "needs `buckets`, `dense` or both"),
        ({"categorical": ["price"]}, "field named twice: price"),
        ({"categorical": [], "numeric": [{"column": "price", "dense": "log1p"}]}, "no field"),
        (task(positive="1", threshold=1), "`positive` and `threshold` exclude each other"),
        (task(positive=0.5), "put it in quotes"),
        ({"funnel": True}, "at least two tasks"),
        ({"name": "My Shop"}, "name: got 'My Shop', expected lower-case letters, digits and . _ -, a letter or digit first"),
        ({"tasks": [{"name": "1st", "column": "click"}]}, "tasks.0.name: got '1st', expected letters, digits and _, a letter first"),
        ({"min_count": 0}, "min_count: got 0: input should be greater than or equal to 1"),
        ({"forget": 0}, "forget: got 0: input should be greater than or equal to 1"),
        ({"forget": "x"}, "forget: got 'x': input should be a valid integer"),
        ({"csv": {"decimal": ";"}}, "csv.decimal: got ';', expected a point or a comma"),
    ]),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
