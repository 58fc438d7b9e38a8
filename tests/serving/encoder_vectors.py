"""Writes encoder_vectors.json, by which an encoder in another language is tested: ``python -m tests.serving.encoder_vectors``.

docs/guide/encoding.md describes the file. Its columns are the cases below; ids, dense values and errors are those of the Python
encoder.
"""

import json
import re
from pathlib import Path

import numpy as np

from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import DataError

FILE = Path(__file__).with_name("encoder_vectors.json")
LONG = "".join(chr(0x4E00 + n % 500) for n in range(300))
STANDARD = {"treatment": "standardise", "mean": 40.1, "std": 12.7}
LOG = {"treatment": "log1p", "mean": 0.3, "std": 1.9}


def case(name, columns, *, texts=None, hashed=None, edges=None, scaling=None, **more):
    """A case whose fields are those of ``texts`` (vocabularies without ``<oov>``), ``hashed`` (buckets) and ``edges``, in this order."""
    vocabulary = {field: ["<oov>", *entries] for field, entries in (texts or {}).items()}
    vocabulary |= {field: [] for field in hashed or {}} | (edges or {})
    sizes = {field: len(entries) + (0 if field in (texts or {}) else 2) for field, entries in vocabulary.items()}
    sizes |= {field: buckets + 1 for field, buckets in (hashed or {}).items()}
    pooled, fields = more.get("pooled", {}), {}
    for field, size in sizes.items():
        own = next((pool["columns"] for pool in pooled.values() if pool["columns"][0] == field), [field])
        fields |= dict.fromkeys(own, size)
    return {
        "name": name,
        "encoder": {"vocabulary": vocabulary, "scaling": scaling or {}, **more},
        "fields": [list(item) for item in fields.items()],
        "dense": list(scaling or {}),
        "columns": columns,
    }


def several(field, column, count, pooling="mean", **how):
    """The parts of an encoder that make ``field`` of the values of a column."""
    names = [f"{field}[{position}]" for position in range(count)]
    return {
        "derived": {name: {"column": column, "value": position, **how} for position, name in enumerate(names)},
        "pooled": {field: {"columns": names, "pooling": pooling}},
        "shared": dict.fromkeys(names[1:], names[0]),
    }


def number(name, cells):
    """A case of one column that is a bucketed field and two dense values' source."""
    return case(name, {"x": cells}, edges={"x": [-1.5, 0.0, 0.1, 2.0, 1e9]}, scaling={"x": STANDARD})


def text(name, cells, entries):
    return case(name, {"x": cells}, texts={"x": entries})


def time(name, cells, part="hour", **how):
    return case(
        name, {"time": cells}, edges={"part": [float(n) for n in range(32)]}, derived={"part": {"column": "time", "as": part, **how}}
    )


CASES = [
    case("a code is a number too", {"x": [7, 7.0, 30, -7, 0, None]}, texts={"x": ["7", "<missing>", "30"]}, scaling={"x": STANDARD}),
    text("texts, and cells that are missing or unknown", ["Oslo", "Rome", None, "rome"], ["<missing>", "Oslo", "Rome"]),
    text("an empty text is missing", ["Oslo", "", None, " "], ["Oslo", "", " ", "<missing>"]),
    text("without an entry <missing>, a missing cell is out of vocabulary", ["Oslo", None], ["Oslo"]),
    text("no cell has a value", [None, None], ["<missing>", "Oslo"]),
    text(
        "texts that are reserved get a backslash",
        ["<missing>", "<oov>", "\\<oov>", "\\\\<missing>", "a<oov>", "<oov>\n", "\\", "\\n", None],
        ["\\<missing>", "\\<oov>", "\\\\<oov>", "\\\\\\<missing>", "a<oov>", "<oov>\n", "\\<oov>\n", "\\", "\\n", "<missing>"],
    ),
    text(
        "unicode is compared code point by code point",
        ["ä", "a\u0308", "\U0001f600", "\u0000", "a\u0000b", " a", "a", "\ufeffa", "İ", LONG, LONG + "x"],
        ["ä", "\U0001f600", "a\u0308", "\u0000", "a\u0000b", "a", " a", "\ufeffa", LONG],
    ),
    text(
        "integers",
        [0, 7, -5, 2**53 + 1, 2**63 - 1, -(2**63), 10**19, None],
        ["7", "0", "-5", str(2**53 + 1), str(2**63 - 1), str(-(2**63)), str(10**19), "<missing>"],
    ),
    text(
        "whole floats are their digits; others are the shortest decimal that reads back, with an exponent below 1e-6 and from 1e10 on",
        [
            *(1.0, 2.5, 0.1, -0.0, 0.0, 0.1 + 0.2, 1e-6, 1.5e-6, 9.99e-7, -1e-7, 9999999999.0, 9999999999.5, 1e10, 12345678901.5),
            *(5e-324, 123456.789, -12345678901.0, 2.0**53 - 1),
        ],
        [
            *(
                "1",
                "2.5",
                "0.1",
                "0",
                "-0",
                "0.30000000000000004",
                "0.000001",
                "0.0000015",
                "9.99e-7",
                "-1e-7",
                "9999999999",
                "9999999999.5",
            ),
            *("10000000000", "1.23456789015e+10", "5e-324", "123456.789", "-12345678901", "9007199254740991", "1e+10"),
        ],
    ),
    text("integers among floats", [1, 2.5, 10**10, None], ["1", "2.5", "1e+10", "<missing>", "10000000000"]),
    text(
        "a text that is a whole number with a point is its digits",
        [
            "1.0",
            "12.00",
            "-7.0",
            "0.0",
            "-0.0",
            "01.0",
            "1.",
            ".0",
            "1.0 ",
            "1.5",
            "1.0.0",
            "+1.0",
            "12345678901234567890.0",
            "1.0\n",
            None,
        ],
        [*("1", "12", "-7", "0", "-0.0", "01.0", "1.", ".0", "1.0 ", "1.5", "1.0.0", "+1.0", "12345678901234567890", "1.0\n"), "1.0"],
    ),
    text("truth values", [True, False, None], ["true", "false", "<missing>", "1"]),
    case(
        "of a vocabulary of truth values alone, 1, true, True and TRUE are one, and so are 0, false, False and FALSE",
        {"i": [1, 0, 2, None], "f": [1.0, 0.0, 0.5, None], "t": ["True", "FALSE", "1.0", "yes"], "b": [True, False, None, True]},
        texts={"i": ["false", "true"], "f": ["<missing>", "True"], "t": ["true", "false"], "b": ["0", "1"]},
    ),
    case(
        "an entry of a vocabulary has its own id, and a vocabulary with another text has no other spellings",
        {"i": [1, 0], "t": ["True", "False"], "b": [True, False]},
        texts={"i": ["true", "1"], "t": ["1", "true", "0"], "b": ["1", "0", "unknown"]},
    ),
    text("of equal entries the first counts", ["a", "b"], ["a", "a", "b"]),
    case(
        "hashed texts",
        {"x": ["Oslo", "", None, "<missing>", "<oov>", "ä", "a\u0308", "\U0001f600", LONG, "a\u0000b"]},
        hashed={"x": 1000, "y": 2**31 - 2},
        derived={"y": {"column": "x", "value": 0, "separator": "\u0001"}},
    ),
    case(
        "hashed integers, floats and truth values",
        {"i": [7, None], "f": [7.0, 1e10], "b": [True, False]},
        hashed={"i": 97, "f": 97, "b": 97},
    ),
    number("numbers", [0.1, 2, 1.9999999999999998, -1.5, -1.6, 0.0, -0.0, 1e9, 1e300 * 1e-270, None, 2**53, -(2**53)]),
    number("texts that are numbers", ["0.1", "2", "-1.5", "+1", ".5", "1.", "1e3", "1E-3", "nan", "-0", "9007199254740993", None]),
    number(
        "texts that are numbers, as in a CSV file",
        [" 1", "1\t", "+-1", "1_000", "1_0_0.5_5", "1_2_3_4", "1e1_0", "\n2", "", None],
    ),
    number("truth values are 1 and 0", [True, False, None]),
    number("a column without a value", [None, None]),
    case("a field without edges", {"x": [5.0, None]}, edges={"x": []}),
    case(
        "dense values",
        {"a": [40.1, 0, -1e6, None, 1e30, 40.100000000000001], "b": [0.0, -0.0, -3.5, 1e308, 1e-320, None]},
        edges={"a": [40.1]},
        scaling={"a": STANDARD, "b": LOG},
    ),
    case(
        "dense values are computed in float64 and rounded once",
        {"x": [1.0000000596046448, 1.0000000596046449, 16777217.0, 3e-46, -1e-46, 1e-40, 3.4028235e38]},
        edges={"x": []},
        scaling={"x": {"treatment": "standardise", "mean": 0.0, "std": 1.0}},
    ),
    case(
        "fields that share ids",
        {"item": ["i1", "i2", None], "last": ["i2", "i9", "i1"], "h": ["i1", None, "x"], "g": [None, "x", "i1"]},
        texts={"item": ["i1", "i2"], "last": ["i1", "i2"]},
        hashed={"h": 50, "g": 50},
        shared={"last": "item", "g": "h"},
    ),
    case(
        "several values in lists",
        {"tags": [["a", "b"], ["b", None, "a", "c"], [], None, ["", "c"], ["new", "a"], ["<missing>", "<oov>"]]},
        texts={"tags[0]": ["<missing>", "a", "b", "c", "\\<missing>"]},
        **several("tags", "tags", 2),
    ),
    case(
        "several values in separated text",
        {"tags": ["a|b", "|b||a|c", "", None, "a", "|", "a|<missing>|b", " a|a"]},
        texts={"tags[0]": ["a", "b", "c"]},
        **several("tags", "tags", 3, "sum", separator="|"),
    ),
    case(
        "a separator of two characters",
        {"tags": ["a, b,c", "a,, b"]},
        texts={"tags[0]": ["a", "b", "b,c", "a,"]},
        **several("tags", "tags", 2, separator=", "),
    ),
    case(
        "a separator does not cut the texts of a list",
        {"tags": [["a, b", "a"]]},
        texts={"tags[0]": ["a", "b", "a, b"]},
        **several("tags", "tags", 2, separator=", "),
    ),
    case("several integers", {"last": [[3, 7, None], [7], [8, 3]]}, texts={"last[0]": ["7", "3"]}, **several("last", "last", 2)),
    case(
        "several floats",
        {"last": [[3.0, 2.5], [1e10, 7]]},
        texts={"last[0]": ["7", "3", "2.5", "10000000000"]},
        **several("last", "last", 2),
    ),
    case("several hashed values", {"last": [["a", "b"], [None, "ä"], None]}, hashed={"last[0]": 1000}, **several("last", "last", 2)),
    case("lists without a value", {"last": [[], None, [None]]}, texts={"last[0]": ["a"]}, **several("last", "last", 2)),
    time("hour of texts without a zone", ["2024-05-31", "2024-05-31 23:59", "2024-05-31T00:00:00.999999", "1969-12-31T23:59:59", None]),
    time(
        "hour of texts with a zone, in UTC",
        ["2024-05-31 23:59Z", "2024-05-31T23:59:00.5+02:00", "2024-05-31T00:30+0530", "2024-05-31T01-11"],
    ),
    time(
        "hour in a zone",
        ["2024-03-31T00:59:59Z", "2024-03-31T01:00:00Z", "2024-10-27T00:59:59Z", "2024-10-27T01:00:00Z"],
        timezone="Europe/Berlin",
    ),
    time("hour of texts without a zone is as written, whatever the zone", ["2024-03-31T12:00:00"], timezone="Asia/Kolkata"),
    time("hour of seconds since 1970", [0, 3599, 3600, -1, 86400 * 20000, None]),
    time("numbers, where the train rows had times with a zone", [0, None], zoned=True),
    time("hour of milliseconds", [0, 3_599_999, 3_600_000, -1], unit="ms"),
    time("milliseconds of 1973 beside later ones", [90_000_000_000, 1_717_200_000_000, None], unit="ms"),
    time("hour of floats", [3599.9, -0.5, None], timezone="Asia/Kolkata"),
    time("hour of texts with nanoseconds", ["2024-05-31T23:59:01.123456789", "2024-05-31T01"]),
    time("hour of texts that are numbers", ["0", "7200", "1e4", "-0.5", "", None]),
    time("weekday, from Monday, which is 0", ["2024-05-27", "2024-06-02T23:59:59", "1969-12-28"], "weekday"),
    time("day of the month", ["2024-02-29", "2024-03-01", None], "day"),
    case(
        "an hour as a category",
        {"time": ["2024-05-31T09:00", None]},
        texts={"hour": ["9", "<missing>"]},
        derived={"hour": {"column": "time", "as": "hour"}},
    ),
    case(
        "the value of a list as a field",
        {"tags": [["a", "b"], ["b"], None]},
        texts={"second": ["<missing>", "b"]},
        derived={"second": {"column": "tags", "value": 1}},
    ),
    case(
        "a field that is known in training alone",
        {"city": ["Oslo", None], "position": ["9", "x"]},
        texts={"city": ["Oslo"], "position": ["1", "2"]},
        derived={"position": {"constant": "2"}},
    ),
    case(
        "crosses",
        {
            "city": ["Oslo", "a|b", "a", "\\", None, None, "<missing>", "Oslo"],
            "device": ["tv", "c", "b|c", "|", "tv", None, "tv", None],
            "time": ["2024-05-31T09:00", None, None, None, None, None, None, "2024-05-31"],
        },
        texts={
            "city_x_device": [
                "Oslo|tv",
                "a\\|b|c",
                "a|b\\|c",
                "\\\\|\\|",
                "<missing>|tv",
                "<missing>",
                "\\\\<missing>|tv",
                "Oslo|<missing>",
            ],
            "all": ["Oslo\\|tv|9", "Oslo\\|<missing>|0", "<missing>", "a\\\\\\|b\\|c|<missing>"],
        },
        derived={
            "all": {"cross": ["city_x_device", "hour"]},
            "city_x_device": {"cross": ["city", "device"]},
            "hour": {"column": "time", "as": "hour"},
        },
    ),
    case(
        "a cross of numbers and truth values",
        {"a": [1, 2, None], "b": [1.5, 2.0, None], "c": [True, None, None]},
        texts={"abc": ["1|1.5|true", "2|2|<missing>", "<missing>"]},
        derived={"abc": {"cross": ["a", "b", "c"]}},
    ),
    # What is refused.
    case("a column is missing", {"x": ["a"]}, texts={"x": ["a"], "y": ["a"]}),
    case("columns of unequal length", {"x": ["a"], "y": ["a", "b"]}, texts={"x": ["a"], "y": ["a"]}),
    text("texts and integers in one column", ["a", None, 1], ["a", "1"]),
    text("truth values and integers in one column", [True, 1], ["true", "1"]),
    text("integers beyond 2^53 among floats", [2**53 + 1, 1.5], ["1.5"]),
    text("a list in a field of one value", [["a"]], ["a"]),
    text("half of a surrogate pair", ["a", "\ud800"], ["a"]),
    number("an integer beyond 2^53 as a number", [1, 2**53 + 1]),
    number("an integer beyond 64 bits as a number", [1, 2**64]),
    number("a text that is no number", ["1", "one"]),
    number("a space as a number", ["1", " "]),
    number("a space in a number", ["1", "1 0"]),
    number("two underscores in a number", ["1", "1__0"]),
    number("an underscore behind a number", ["1", "1_"]),
    number("two signs", ["1", "++1"]),
    text("a float that may have lost digits", [1.5, None, 2.0**53], ["1.5"]),
    text("a large negative float", [1.5, -1e300], ["1.5"]),
    case(
        "a cross of floats that may have lost digits",
        {"a": [1.5, 1e20], "b": ["x", "y"]},
        texts={"ab": ["1.5|x"]},
        derived={"ab": {"cross": ["a", "b"]}},
    ),
    number("an infinite number", ["1", "1e400"]),
    number("a list as a number", [[1.0]]),
    number("beyond float32", [1.0, 1e300]),
    case("a single value in a field of several", {"tags": [1, 2]}, texts={"tags[0]": ["1"]}, **several("tags", "tags", 2)),
    case("text without a separator in a field of several", {"tags": ["a"]}, texts={"tags[0]": ["a"]}, **several("tags", "tags", 2)),
    case("lists of texts and integers", {"tags": [["a"], [1]]}, texts={"tags[0]": ["a"]}, **several("tags", "tags", 2)),
    case("lists in lists", {"tags": [[["a"]]]}, texts={"tags[0]": ["a"]}, **several("tags", "tags", 2)),
    time("a text that is no time", ["2024-05-31", "yesterday"]),
    time("texts with and without a zone", ["2024-05-31T00:00:00Z", "2024-05-31T00:00:00"]),
    time("texts without a zone, where the train rows had one", [None, "2024-05-31T00:00:00"], zoned=True),
    time("texts with a zone, where the train rows had none", ["2024-05-31T00:00:00+02:00"], zoned=False),
    time("numbers, where the train rows had times without a zone", [None, 0], zoned=False),
    time("milliseconds that are taken for seconds", [0, 1_717_200_000_000]),
    time("seconds that are taken for milliseconds", [None, 1_717_200_000, 1_717_200_001], unit="ms"),
    time("dates as integers", [20240531, 20240601]),
    time("a truth value is no time", [True]),
]


def encoder_of(one):
    """The encoder of a case."""
    return Encoder(tasks=["click"], num_embeddings=dict(map(tuple, one["fields"])), dense=one["dense"], **one["encoder"])


def shortest(value):
    """A float32 by its fewest digits, written as Python writes a float: how NumPy writes one depends on its version."""
    return repr(float(np.format_float_scientific(value)))


def result(one):
    """What the Python encoder makes of a case: ids and dense values, or the error's column and row, where it names them."""
    try:
        ids, dense = encoder_of(one).encode(one["columns"])
    except DataError as error:
        row, column = (re.search(pattern, str(error)) for pattern in (r"row ([\d,]+): ", r"column '([^']*)'"))
        return {"error": {"column": column and column[1], "row": row and int(row[1].replace(",", ""))}}
    found = {"ids": ids.tolist()}
    if dense is not None:
        found["dense_values"] = [[shortest(value) for value in row] for row in dense.numpy()]
        found["dense_bits"] = [[f"{value:08x}" for value in row] for row in dense.numpy().view(np.uint32).tolist()]
    return found


def content():
    """The text of the file."""
    lines = ",\n".join(json.dumps({**one, **result(one)}) for one in CASES)
    return f'{{"format": 1, "cases": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    FILE.write_text(content(), encoding="ascii")
