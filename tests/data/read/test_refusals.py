"""Files and columns that cannot be read."""

import gzip

from dcrnn_fast.errors import DataError
from tests.refusals import refused, row, rows

TABLE = [
    row("text in a number column is named with its row",
        lambda table: table.parquet("t.parquet", {"city": ["a"] * 4, "price": ["1.5", None, "dear", "2"], "click": [0, 1, 0, 1]})
            .prepare(files={"train": "t.parquet", "test": "t.parquet"}),
        DataError, r"t\.parquet, row 3: column 'price' is used as a number and holds 'dear', expected a number, or empty"),
    row("lines with two kinds of ends",
        lambda table: ((table.folder / "train.csv").write_bytes(b"city,price,click\r\n" + b"a,1,0\r\n" * 40 + b"a,1,1\n" * 9),
            table.prepare()),
        DataError, r"train\.csv cannot be read as CSV: its lines end in several ways, in CR LF and in LF alone; write all of them alike"),
    row("an open quote is one rejected row with its first line",
        lambda table: table.write("train.csv", "city,price,click", [("a", 1, 0), '"b,2,1', ("c", 3, 1)]).prepare(),
        DataError, r"train\.csv, line 3: a quote \(\"\) is not closed"),
    *rows("a way of writing that makes no sense", lambda csv, table: table.prepare(csv=csv), DataError, cases=[
        ({"delimiter": ",,"}, "at most 1 character"),
        ({"delimiter": '"'}, "delimiter and quote are both '\"'"),
        ({"decimal": ","}, "delimiter and decimal are both ','"),
        ({"encoding": "klingon"}, "encoding is 'klingon', expected one that Python knows"),
        ({"encoding": "base64"}, "encoding is 'base64', expected one that Python knows"),
    ]),
    *rows("a damaged compressed file",
        lambda damage, table: ((table.folder / "train.csv.gz")
            .write_bytes(damage(gzip.compress((table.folder / "train.csv").read_bytes()))),
            table.prepare(files={"train": "train.csv.gz", "test": "test.csv"})),
        DataError, said=r"train\.csv\.gz cannot be read", values=[
        lambda data: data[:-12], lambda data: b"city,price,click\na,1,0\n",
    ]),
    *rows("files that are not there or twice",
        lambda files, table: ((table.folder / "empty").mkdir(), table.prepare(files={"train": files, "test": "test.csv"})),
        DataError, cases=[
        ("part-*.csv", r"the train pattern .*part-\*\.csv fits no file"),
        ("empty", r"the train folder .*empty holds no \.csv, \.csv\.gz, \.parquet file"),
        (["train.csv", "t*in.csv"], r"the train files name .*train\.csv twice"),
        ([], r"files\.train: expected a path, a pattern"),
        (5, r"files\.train: expected a path, a pattern"),
    ]),
    *rows("a file that is written in another way than the schema says is refused with the key to set",
        lambda line, table: ((table.folder / "train.csv")
            .write_text(f"city;price;click\n{line}\n"),
            table.prepare(csv={"delimiter": ";" if ";" in line else ","}, files={"train": "train.csv", "test": "train.csv"})),
        DataError, cases=[
        ("a;1,5;0", r"line 2: column 'price' holds '1,5', expected a number with a point; name `csv: \{decimal: \",\"\}` in the schema"),
        ("a,1,5,0", r"lacks the columns city, click, price .*; it has city;price;click; name its `csv: delimiter` in the schema"),
    ]),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
