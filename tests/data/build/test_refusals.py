"""Data that `prepare` does not build: unknown names, files, splits, histories, labels and encodings."""

import errno
import json
import os

import pytest

from dcrnn_fast.data import Encoder, open_packed, prepare
from dcrnn_fast.data.schema.table import load_schema
from dcrnn_fast.errors import DataError
from tests.data.build.test_encoding import encoding_of
from tests.data.build.test_splits import logs
from tests.data.conftest import GENRES, LISTS
from tests.data.event_logs import HISTORY
from tests.refusals import refused, row, rows


def parquet(table):
    table.parquet("t.parquet", {"city": ["a"], "price": [1]})


HEADER = "city,price,click"
HASHED = {"column": "city", "hash_buckets": 50}


def a_cache_folder_without_locks(table, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    table.prepare()


def an_encoding_of_other_columns(changes, table):
    encoding = encoding_of(table.prepare())
    for name in ("train.csv", "test.csv"):
        table.write(name, "city,price,click,click2", [("1", 1, 0, 1), ("2", 2, 1, 0)])
    table.prepare(**changes, encoding=encoding)


def tables_from_which_no_history_can_be_made(rows, changes, log):
    log.fill(rows)
    if changes.get("where") != {"column": "time"}:
        log.fill(rows, "test.parquet")
    log.with_history(**changes)


def a_folder_with_an_impossible_field(pooled, films):
    path = films.prepare().path
    content = json.loads((path / "meta.json").read_text()) | {"pooled": pooled}
    (path / "meta.json").write_text(json.dumps(content))
    open_packed(path)


TABLE = [
    row("a cache folder without locks is refused for its locks",
        a_cache_folder_without_locks, DataError, r"cannot be written to .*No locks available.*choose another folder"),
    *rows("labels and numbers that cannot be used",
        lambda rows, table: table.write("train.csv", "city,price,click", rows).prepare(),
        DataError, marks=pytest.mark.filterwarnings("error"), cases=[
        ([("a", 1, 0), ("b", 2, 3)], r"train\.csv, row 2: column 'click' holds 3, expected 0 and 1"),
        ([("a", 2, 0), ("b", "inf", 1)], r"train\.csv, row 2: column 'price' holds an infinite value; make it finite, or empty"),
        ([("a", 1e300, 0), ("b", -1e301, 1)], r"train\.csv, row 2: column 'price' holds -1e\+301, which is too large to standardise"),
    ]),
    row("a positive value that train never holds is refused with those it holds",
        lambda table: table.prepare(tasks=[{"name": "click", "column": "click", "positive": "yes"}]),
        DataError, r"no train row has 'click' in \['yes'\]; the column holds \['0', '1'\]"),
    row("a number that is too far from those of the train rows",
        lambda table: table.write("test.csv", HEADER, [("a", 2, 1), ("b", 1e300, 0)]).prepare(), DataError,
        r"test\.csv, row 2: column 'price' holds 1e\+300, which is too far from the train rows' mean",
        marks=pytest.mark.filterwarnings("error")),
    *rows("a weight that is none",
        lambda weight, table: table.write("train.csv", "city,price,click,w", [("a", 1, 0, 1), ("b", 2, 1, weight)])
            .prepare(weight="w", files={"train": "train.csv", "test": "train.csv"}),
        DataError, within=r"train\.csv, row 2: column 'w' holds {}", marks=pytest.mark.filterwarnings("error"), cases=[
        ("-1", "-1, expected a weight, a number >= 0"),
        ("", "no value, expected a weight, a number >= 0"),
        (1e39, r"1e\+39, which is too large for float32"),
    ]),
    row("a broken funnel",
        lambda table: table.write("train.csv", "city,price,click,buy", [("a", 1, 1, 1), ("b", 2, 0, 1), ("b", 2, "", 1)])
            .write("test.csv", "city,price,click,buy", [("a", 1, 0, 0)])
            .prepare(tasks=[{"name": name, "column": name} for name in ("click", "buy")], funnel=True),
        DataError, r"train\.csv, row 2: .* the row has buy = 1 and click = 0"),
    row("a funnel broken across an unknown label",
        lambda table: table.write("train.csv", "city,price,a,b,c", [("x", 1, 0, "", 1), ("y", 2, 1, "", 1), ("y", 2, "", "", 1)])
            .write("test.csv", "city,price,a,b,c", [("x", 1, 0, 0, 0)])
            .prepare(tasks=[{"name": name, "column": name} for name in "abc"], funnel=True),
        DataError, r"train\.csv, row 1: .* the row has c = 1 and a = 0"),
    *rows("a fraction or seed outside its range", lambda options, table: table.prepare(**options), DataError, cases=[
        ({"valid_fraction": -0.1}, "valid_fraction is"), ({"valid_fraction": 1.0}, "valid_fraction is"),
        ({"valid_fraction": float("nan")}, "valid_fraction is"), ({"seed": -1}, "seed is -1"),
    ]),
    row("a split column of other words",
        lambda table: table.write("all.csv", "city,price,click,part", [("a", 1, 0, "train"), ("b", 2, 1, "dev"), ("b", 2, 1, "test")])
            .prepare(files={"all": "all.csv", "split_column": "part"}),
        DataError, "split column 'part' holds dev, test, train"),
    *rows("an encoding of other columns", an_encoding_of_other_columns, DataError, cases=[
        ({"categorical": ["city", "click2"]}, "column 'click2' is categorical"),
        ({"categorical": ["city", "price"], "numeric": []}, "column 'price' is categorical"),
        ({"categorical": [], "numeric": [{"column": "city", "buckets": 4}]}, "column 'city' is bucketed"),
        ({"numeric": [{"column": "price", "dense": "log1p"}]}, r"column 'price' is dense \(log1p\)"),
    ]),
    *rows("an encoding of wrong types is refused by entry", lambda encoding, table: table.prepare(encoding=encoding), DataError, cases=[
        ([], r"encoding is \[\], expected the vocabulary and scaling"),
        ({"vocabulary": {}}, "encoding is .* expected the vocabulary and scaling"),
        ({"vocabulary": {"city": "ab"}, "scaling": {}}, "encoding: vocabulary is .* expected a list of texts or of rising numbers"),
        ({"vocabulary": {"price": [2.0, 1.0]}, "scaling": {}}, "encoding: vocabulary is .* rising numbers"),
        ({"vocabulary": {}, "scaling": {"price": {"mean": "0", "std": 1, "treatment": "log1p"}}}, "encoding: scaling is .* std"),
        ({"vocabulary": {}, "scaling": {"price": {"mean": 0, "std": float("nan"), "treatment": "log1p"}}}, "encoding: scaling is .* std"),
    ]),
    # Only of user u a train row comes after a positive test row: the two last ones.
    row("the number of rows that would see a label is exact",
        lambda log: log.fill([("u", "a", 1, 1), ("u", "a", 3, 1), ("u", "a", 4, 0), ("v", "a", 9, 1), ("w", "a", 2, 1)])
            .fill([("u", "a", 2, 1), ("u", "a", 3, 0), ("v", "a", 9, 1), ("w", "a", 1, 0)], "test.parquet").with_history(where="click"),
        DataError, r"and 2 train rows come after"),
    *rows("a past that nothing reads or that has another role",
        lambda changes, log: log.fill([("u", "a", 1, 0)])
            .prepare(**changes | {"files": {"past": "test.parquet", "train": "train.parquet", "test": "test.parquet"} | changes.get("files",
            {})}),
        DataError, cases=[
        ({"histories": []}, "`past` in `files` holds rows that histories alone read, and there are no `histories`"),
        ({"files": {"past": "train.parquet"}}, r"the past files and the train files name .*train\.parquet"),
    ]),
    row("a file with a column of a history's name",
        lambda log: log.parquet("train.parquet", {"user": ["u"], "item": ["a"], "time": [1], "clicked": [0], "last_items": [1]}).prepare(),
        DataError, r"train\.parquet has the columns last_items, which schema 'log' derives"),
    row("text in place of a history's list",
        lambda log: Encoder.load(log.fill([("u", "a", 1, 0), ("u", "b", 2, 0)]).prepare().path)
            .encode({"item": ["a"], "last_items": ["a|b"]}),
        DataError, r"column 'last_items' holds text, and its field has several values; give lists, as Parquet files hold them, or, if"),
    row("another length is another column",
        lambda log: log.fill([("u", "a", 1, 0), ("u", "b", 2, 0)])
            .prepare(encoding=log.prepare().meta.encoding, histories=[{**HISTORY, "last": 2}]),
        DataError, "column 'last_items' is read as"),
    *rows("tables from which no history can be made", tables_from_which_no_history_can_be_made, DataError, cases=[
        ([("u", "a", 1, 0)], {"time": "day"}, r"train\.parquet lacks the columns day that schema 'log' uses; it has"),
        ([("u", "a", 1, 0)], {"by": "member"}, r"train\.parquet lacks the columns member that schema 'log' uses"),
        ([("u", "a", 1, 0), ("u", "b", None, 0)], {},
         r"train\.parquet, row 2: column 'time' orders history 'last_items' and is empty; fill it"),
        ([("u", "a", "soon", 0)], {}, r"train\.parquet, row 1: column 'time' is used as a time and holds 'soon', expected"),
        ([("u", "a", 10**12, 0)], {"lag": 60}, r"row 1: column 'time' holds 1000000000000\.0, .*name theirs, such as `unit: ms`"),
        ([("u", "a", 20240531, 0)], {"lag": 60}, "column 'time' holds numbers that look like dates, such as 20240531"),
        ([(None, "a", 1, 0)], {}, "history 'last_items' is empty: no row has 'item' and 'user'"),
        ([("u", "a", 1, 0)], {"where": "click"}, "history 'last_items' is empty: no row has 'item' and 'user' and an event by its `where`"),
        ([("u", "a", 1, 0)], {"where": {"column": "time"}},
         r"test\.parquet, row 2: column 'time' holds 2, expected 0 and 1"),
    ]),
    row("times and numbers in one column",
        lambda log: log.fill([("u", "a", "2024-05-31", 0)]).prepare(),
        DataError, r"test\.parquet, row 1: column 'time' holds numbers from here on, and times without a zone before; write all"),
    row("times with a zone in one file and without in another",
        lambda log: log.fill([("u", "a", "2024-05-31T00:00Z", 0)]).fill([("u", "a", "2024-05-31T00:00", 0)], "test.parquet").prepare(),
        DataError, r"test\.parquet, row 1: column 'time' holds times without a zone from here on, and times with a zone before"),
    *rows("histories that make no sense",
        lambda changes, log: load_schema(log.save(categorical=["item", {"column": "tags", "max_values": 2}], group="hour",
            derived=[{"name": "hour", "column": "time", "as": "hour"}], histories=[HISTORY | changes])),
        DataError, within=r"log\.yaml.*({})", cases=[
        ({"last": 0}, r"histories\.0\.last: got 0"),
        ({"last": 1001}, r"histories\.0\.last: got 1001"),
        ({"lag": -1}, r"histories\.0\.lag: got -1"),
        ({"lag": float("inf")}, r"histories\.0\.lag: got inf"),
        ({"unit": "ms"}, "history 'last_items': `unit` says what numbers in `time` count where there is a `lag`, and there is none"),
        ({"unit": "h", "lag": 1}, r"histories\.0\.unit: got 'h'"),
        ({"pooling": "max"}, r"histories\.0\.pooling: got 'max'"),
        ({"of": "user"}, "history 'last_items': `of` names 'user', which is not a categorical column; expected one of item"),
        ({"of": "tags"}, "history 'last_items': `of` names 'tags', which has several values a row; expected one of item"),
        ({"where": "order"}, "history 'last_items': `where` names the task 'order', expected one of click; or give a rule"),
        ({"where": 3}, r"histories\.0\.where.*got 3"),
        ({"where": {"column": "kind", "threshold": 1, "positive": ["a"]}},
         "a history's `where`: `positive` and `threshold` exclude each other"),
        ({"where": {"column": "kind", "positives": ["a"]}}, r"unknown key 'positives'; did you mean 'positive'\?"),
        ({"name": "item"}, "field named twice: item"),
        ({"name": "user"}, "history 'user' has the name of a column that the schema reads"),
        ({"name": "hour"}, "history 'hour' has the name of a column that the schema reads or derives"),
        ({"by": "clicked"}, "column 'clicked' is a label and cannot be a feature"),
        ({"time": "clicked"}, "column 'clicked' is a label and cannot be a feature"),
        ({"until": 3}, r"unknown key 'until'; the known keys are name, of, by, time, last, where, lag, unit, pooling"),
    ]),
    row("two histories of one name",
        lambda log: load_schema(log.save(histories=[HISTORY, dict(HISTORY)])), DataError, "field named twice: last_items"),
    *rows("fields that make no sense",
        lambda field, films: load_schema(films.save(categorical=[{"column": "genres", **field}])),
        DataError, within=r"shop\.yaml.*{}", cases=[
        ({"max_values": 0}, "max_values: got 0"),
        ({"max_values": 1001}, "max_values: got 1001"),
        ({"max_values": 2, "separator": ""}, "separator: got ''"),
        ({"max_values": 2, "pooling": "max"}, "pooling: got 'max'"),
        ({"separator": "|"}, "column 'genres': `separator` need `max_values`"),
        ({"separator": "|", "pooling": "sum"}, "`separator` and `pooling` need `max_values`"),
        ({"max_values": 2, "same_ids_as": "city"}, "names 'city', which is not a categorical column"),
        ({"max_values": 2, "min_count": 2, "hash_buckets": 10}, "exclude each other"),
    ]),
    *rows("schemas that make no sense",
        lambda changes, films: load_schema(films.save(**changes)), DataError, within=r"shop\.yaml.*{}", cases=[
        ({"categorical": [GENRES, "genres[1]"]}, r"column 'genres\[1\]' has the name of a value of a field with `max_values`"),
        ({"categorical": [GENRES, dict(GENRES)]}, "field named twice: genres"),
        ({"tasks": [{"name": "click", "column": "genres", "positive": ["a"]}]}, "column 'genres' is a label and cannot be a feature"),
        ({"categorical": [{**GENRES, "column": "hour"}], "derived": [{"name": "hour", "column": "time", "as": "hour"}]},
         "column 'hour' is derived and has one value a row: leave out `max_values`"),
        ({"derived": [{"name": "a", "column": "genres", "value": 1000}]}, "got 1000"),
        ({"derived": [{"name": "a", "column": "genres", "value": 0, "as": "hour"}]}, "needs a `column` with `as` .* or with `value`"),
        ({"derived": [{"name": "a", "column": "genres", "value": 0, "unit": "s"}]}, "`unit` and `value` exclude each other"),
        ({"derived": [{"name": "a", "column": "time", "as": "hour", "separator": "|"}]}, "`separator` and `as` exclude each other"),
        ({"derived": [{"name": "a", "cross": ["b", "c"], "value": 1}]}, "`cross` and `value` exclude each other"),
    ]),
    *rows("cells that hold no values are refused by file and column",
        lambda cells, films: films.fill(cells).prepare(categorical=[{"column": "genres", "max_values": 2}]),
        DataError, within=r"films\.parquet: .*{}", cases=[
        (["a|b", "c"], r"column 'genres' holds text, .*; give lists, .*`max_values` .* where they end, such as `separator: \"\|\"`"),
        ([1, 2], "column 'genres' is used as several values and is of type 'int64', which holds one value a cell; give lists"),
        ([[["a"]]], "is of type 'list<.*whose values are lists or structs themselves"),
        ([[{"a": 1}]], "whose values are lists or structs themselves"),
        ([{"a": 1}], "is of type 'struct<.*which holds one value a cell"),
    ]),
    row("bytes that are not text",
        lambda films: films.fill([b"a|\xff"]).prepare(),
        DataError, "column 'genres' is used as several values and is of type 'binary', some of them no UTF-8"),
    row("a list column that is used as one category is refused with the remedy",
        lambda films: films.prepare(categorical=["genres"]),
        DataError, r"column 'genres' is used as text .* which `max_values` of a categorical column allows"),
    row("a file may not have a column of a values name",
        lambda films: films.fill(LISTS, **{"genres[1]": ["x"] * 6}).prepare(),
        DataError, r"films\.parquet has the columns genres\[1\], which schema 'shop' derives"),
    *rows("a folder with an impossible field",
        a_folder_with_an_impossible_field, DataError, within=r"meta\.json: .*{}.*; delete .* and prepare the data again", cases=[
        ({"genres": {"columns": ["genres[0]", "genres[2]"], "pooling": "mean"}}, "do not follow each other"),
        ({"genres": {"columns": ["genres[0]"], "pooling": "max"}}, "its pooling is 'max'"),
        ({"genres": {"columns": ["genres[0]"]}}, "expected columns and pooling by field"),
        ({"genres": ["genres[0]"]}, "expected columns and pooling by field"),
        ({"genres": {"columns": ["shop"], "pooling": "mean"}}, "expected a list of columns of ids"),
    ]),
    *rows("another schema of several values than the encoding's",
        lambda change, films: films.prepare(categorical=[{**GENRES, **change}], encoding=films.prepare().meta.encoding),
        DataError, said=r"column 'genres' is read as .* give a schema of the same columns", values=[{"max_values": 2}, {"pooling": "sum"}]),
    *rows("an encoder of a field that does not fit its columns",
        lambda pooled: Encoder(num_embeddings={"a[0]": 1}, pooled=pooled, tasks=["click"], dense=[], vocabulary={"a[0]": ["<oov>"]},
            scaling={}),
        DataError, within="pooled.*{}", cases=[
        ({"a": ["a[0]"]}, r"\['a'\] is \['a\[0\]'\]"),
        ({"a": {"columns": ["b"], "pooling": "sum"}}, r"its columns are \['b'\]"),
    ]),
    row("an unknown data set is refused with the known ones and the way to ones own",
        lambda tmp_path: prepare("criteo", cache_dir=tmp_path),
        DataError, r"'criteo'; known are census-income, hillstrom, and the path of a schema YAML"),
    row("a folder that is not packed",
        lambda tmp_path: prepare(tmp_path), DataError, r"is a folder; known are .* a packed folder, which holds meta\.json"),
    row("a schema that does not exist is an unknown data set",
        lambda tmp_path: prepare(tmp_path / "nowhere.yaml", cache_dir=tmp_path), DataError, r"nowhere\.yaml"),
    row("a null character in the path of a schema",
        lambda: prepare("a\0b.yaml"),
        DataError, r"data='a\\x00b\.yaml': expected a path, which cannot hold a null character; known data sets are"),
    *rows("a file that cannot be used is named with the reason",
        lambda change, files, table: (change(table), table.prepare(files={"train": files, "test": "test.csv"})), DataError, cases=[
        (lambda t: t.write("t.csv", "city,cost,clicks", []), "t.csv", r"t\.csv lacks the columns click, price .* has city, cost, clicks"),
        (parquet, "t.parquet", r"t\.parquet lacks the columns click .*it has city, price"),
        (lambda t: t.write("t.csv", f"{HEADER},click", [("a", 2, 1, 0)]), "t.csv", r"t\.csv has the columns click more than once"),
        (lambda t: None, "t.csv", r"the train file .*t\.csv does not exist"),
        (lambda t: (t.folder / "test.csv").unlink(), "train.csv", r"the test file .*test\.csv does not exist"),
        (lambda t: t.write("t.xlsx", HEADER, []), "t.xlsx", r"t\.xlsx is of an unknown kind; expected \.csv, \.csv\.gz or \.parquet"),
        (lambda t: t.write("t.csv", HEADER, []), "t.csv", "no train rows"),
        (lambda t: (t.folder / "t.csv").write_bytes(b"\xeb,price,click\na,1,0\n"), "t.csv",
         r"t\.csv cannot be read: its header is not UTF-8"),
        (lambda t: (t.folder / "t.csv").write_bytes(b""), "t.csv", r"t\.csv cannot be read"),
        (lambda t: t.write("t.csv", HEADER, [("a", 1)]), "t.csv", r"t\.csv, line 2: it has 2 cells, expected 3"),
        (lambda t: t.write("t.csv", HEADER, [("a", "dear", 1)]), "t.csv",
         r"t\.csv, line 2: column 'price' holds 'dear', expected a number"),
        (lambda t: (t.folder / "t.parquet").write_bytes(b"PAR1xxxx"), "t.parquet", r"t\.parquet cannot be read"),
    ]),
    *rows("times that split nothing",
        lambda times, table: table.prepare(**logs(table, times), split={"time": "time", "test": 0.3}), DataError, cases=[
        ([1, "", 3], r"logs\.csv, row 2: column 'time' splits the rows by time and is empty"),
        (["2024-01-01", "soon", "2024-01-03"],
         r"logs\.csv, row 2: column 'time' is used as a time and holds 'soon', expected a number, or a time"),
        ([1, 1, 1], "column .time. splits the rows by time, but all rows have one time, .* none are left to train on"),
        ([0, 1714521600000, 1714521700000, 1714521800],
         r"'time' splits the rows by time and holds 1 numbers like seconds \(1714521800\) and 2 numbers like milliseconds"),
    ]),
    *rows("a split that contradicts itself", lambda split, table: table.prepare(**logs(table, [1, 2, 3]), split=split), DataError, cases=[
        ({"test": 0.2}, "give either `time` .* or `hash`"),
        ({"time": "time", "hash": "user", "test": 0.2}, "give either `time` .* or `hash`"),
        ({"time": "time", "valid": 0.5, "test": 0.5}, "whose sum is below 1"),
        ({"time": "time", "test": 0.5, "seed": 1}, "`seed` belongs to `hash`"),
    ]),
    row("a hashed field that is none in the encoding",
        lambda table: table.prepare(encoding=table.prepare(categorical=[HASHED]).meta.encoding),
        DataError, "column 'city' is categorical in its schema"),
    row("a hashed field with a min_count", lambda table: table.prepare(categorical=[{**HASHED, "min_count": 2}]), DataError,
        "`min_count` and `hash_buckets` exclude each other"),
    row("a split of files that have roles",
        lambda table: table.prepare(split={"time": "price", "test": 0.2}), DataError, r"`split` cuts `files: \{all: ...\}`"),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
