"""Random encoders and requests in JSON, and what `dcrnn_fast.data.Encoder` makes of them. Drawn from a seed."""

from __future__ import annotations

import json
import random

import numpy as np

from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import DataError

TEXTS = [
    "a", "b", "", "é", "日本", "a|b", "|", "b||a", "a\\", "a;b;;c", "<missing>", "<oov>", "\\<missing>", "\\\\<oov>", "<missing>\n",
    "x" * 55, "x" * 56, "x" * 64, "x" * 200, "7", "-0", "1e+10", "true", "false", "\x00", "<missing>>", "\\", "\\|", "inf", "0.1", "7.0",
    "-7.00", "007.0", "-0.0", "0.0", "7.", ".0", "7.0 ", "1.0.0",
]  # fmt: skip
NUMBER_TEXTS = [
    "1.5", "+1", "-2", ".5", "5.", "1e5", "1e-999", "-1e-400", "nan", "NAN(1)", "2e-324", "00012", "123456789012345678901234567890", " 1",
    "7\t", "+-1", "1_000", "1_2_3_4.5_6", "",
]  # fmt: skip
TIME_TEXTS = [
    "2024-05-31", "2024-05-31 10", "1969-12-31T23:59", "2024-02-29T10:20:30", "2024-12-31T23:59:59.123456", "1677-01-01",
    "2024-05-31T10:20:30.1234567", "2024-05-31T10:20:30.1", "1900-02-28 23:59:59",
]  # fmt: skip
ZONED = ["2024-05-31T00:20:30Z", "2024-05-31T00:20:30.5+02:00", "2024-03-01T23:20-0230", "2024-05-31T10+02", "1969-12-31T23:59:59.999Z"]
NO_TIMES = [
    "2023-02-29", "2024-05-31T24:00", "2024-5-31", "2024-05-31T10:20:60", "2024-05-31Z", "2024-05-31T10:20:30.", "10:20",
    "2024-05-31T10:20:30+24:00",
]  # fmt: skip
INTEGERS = ["0", "-0", "1", "7", "-7", "42", "1717113600", "-1", "9007199254740992", "-9007199254740992", "20240531"]
LARGE = [
    "9007199254740993", "-9007199254740993", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "-9223372036854775809",
]  # fmt: skip
LARGER = ["18446744073709551615", "18446744073709551616", "-100000000000000000000", "1" + "0" * 400]
FLOATS = [
    "0.0", "-0.0", "1.0", "7.0", "0.1", "-2.5", "1e-7", "1e-6", "0.00001234", "123456789.5", "9999999999.0", "1e10", "5e-324", "1e-999",
    "12345678901.5", "-98765432109876.5", "9007199254740991.0", "1717113600.75", "2.2250738585072014e-308",
]  # fmt: skip
HUGE = ["1E22", "1.7976931348623157e308", "9007199254740993.0", "3.4e38", "-1e300", "1e23", "8.41e21"]
SECONDS = [
    "0", "-1", "1717113600", "-1717113600", "1717113600.75", "-0.5", "86399", "86400", "-86401", "20240531", "951782400", "1e9", "null",
]  # fmt: skip
TRUTHS = ["true", "false"]
WILD = ["{}", '{"a": 1}', "[]", "[1]", '["a"]', "1e999", "-1e999", '"inf"', "[[1]]", "[{}]", *LARGER]


def texts(*values: str) -> list[str]:
    return [json.dumps(text, ensure_ascii=len(text) % 2 == 0) for text in values]


KINDS = {
    "text": texts(*TEXTS),
    "number text": texts(*NUMBER_TEXTS),
    "times": texts(*TIME_TEXTS),
    "zoned": texts(*ZONED),
    "integers": INTEGERS,
    "exact": INTEGERS + [text for text in LARGE if abs(int(text)) < 2**63],
    "larger": INTEGERS + LARGE + LARGER,
    "floats": FLOATS,
    "seconds": SECONDS,
    "huge": FLOATS + HUGE,
    "numbers": INTEGERS + FLOATS,
    "truths": TRUTHS,
    "numbers and truths": FLOATS + TRUTHS,
    "whole": INTEGERS + TRUTHS,
    "any": texts(*TEXTS, *NO_TIMES) + INTEGERS + LARGE + FLOATS + HUGE + TRUTHS + WILD,
}


class Case:
    """An encoder of random fields: `encoding` and `about` are the files of the C++ program, `encoder` reads the same in Python.

    With `truths`, the vocabularies hold truth values alone.
    """

    def __init__(self, random: random.Random, *, truths: bool = False) -> None:
        self.random, self._truths = random, truths
        vocabulary, scaling, shared, derived, pooled = {}, {}, {}, {}, {}
        fields: dict[str, int] = {}
        dense: list[str] = []
        self.kinds: dict[str, list[str]] = {}

        def add(name: str, kinds: list[str] | None, entries: list, size: int | None = None) -> None:
            vocabulary[name], fields[name] = entries, len(entries) if size is None else size
            if kinds:
                self.kinds[name] = kinds

        scalar = ["text", "text", "integers", "larger", "floats", "numbers", "truths", "numbers and truths"]
        add("plain", scalar, self._vocabulary())
        if random.random() < 0.7:
            add("hashed", scalar, [], random.choice([3, 4, 1001, 2**31 - 1]))
        if random.random() < 0.5:
            add("same", scalar, vocabulary["plain"])
            shared["same"] = "plain"
        numeric = ["integers", "integers", "huge", "numbers", "truths", "numbers and truths", "number text"]
        numeric.append(random.choice(["huge", "exact"]))
        if random.random() < 0.7:
            edges = sorted({float(random.choice([-2.5, 0, 1, 7, 0.1, 1e10, -7, 42, 9007199254740992])) for _ in range(random.randrange(5))})
            add("bucket", numeric, edges, len(edges) + 2)
        for name, treatment in [("scaled", "standardise"), ("logged", "log1p"), ("bucket", "standardise")]:
            if random.random() < 0.6 and (name != "bucket" or name in fields):
                dense.append(name)
                scaling[name] = {
                    "treatment": treatment,
                    "mean": random.choice([0.0, -0.0, 1, 0.3, 40.1]),
                    "std": random.choice([1, 0.7, 1e-7, 3e300]),
                }
                self.kinds[name] = numeric
        if random.random() < 0.6:
            separator = random.choice([None, "|", ";", "||"])
            columns = [f"tags[{place}]" for place in range(random.randrange(1, 4))]
            for place, column in enumerate(columns):
                fields[column] = 0
                derived[column] = {"column": "tags", "value": place} | ({"separator": separator} if separator else {})
                if place:
                    shared[column] = columns[0]
            entries = [] if random.random() < 0.3 else self._vocabulary()
            vocabulary[columns[0]] = entries
            fields.update(dict.fromkeys(columns, len(entries) or 12))
            pooled["tags"] = {"columns": columns, "pooling": "mean"}
            self.kinds["tags"] = ["lists", "lists", "text"] if separator else ["lists"]
        if random.random() < 0.3:
            derived["third"] = {"column": "prices", "value": 2}
            dense.append("third")
            scaling["third"] = {"treatment": "standardise", "mean": 0.5, "std": 2.0}
            self.kinds["prices"] = ["lists"]
        if random.random() < 0.5:
            part = random.choice(["hour", "weekday", "day"])
            unit = random.choice([None, "s", "ms", "us", "ns"])
            derived["clock"] = {"column": "time", "as": part} | ({"unit": unit} if unit else {}) | random.choice([{}, {"timezone": "UTC"}])
            add("clock", None, ["<oov>", *map(str, range(32)), "<missing>"])
            self.kinds["time"] = ["seconds", "seconds", "times", "times", "zoned"]
        if random.random() < 0.5:
            there = ["plain", "hashed", "bucket", "clock", "other", "tags[0]"]
            chosen = random.sample([name for name in there if name in fields or name == "other"], 2)
            derived["both"] = {"cross": chosen}
            add("both", None, [], 100_000)
            if "other" in chosen:
                self.kinds["other"] = scalar
            if random.random() < 0.5:
                derived["all"] = {"cross": ["both", "another"]}
                add("all", None, [], 99_999)
                self.kinds["another"] = scalar
        if random.random() < 0.3:
            derived["position"] = {"constant": random.choice(["a", "1"])}
            add("position", None, ["<oov>", "1", "2"])
        self.encoding = {"vocabulary": vocabulary, "scaling": scaling}
        self.encoding |= {key: value for key, value in {"shared": shared, "derived": derived, "pooled": pooled}.items() if value}
        self.about = {"fields": [list(item) for item in fields.items()], "dense": dense, "names": ["click"]}
        self.encoder = Encoder(tasks=["click"], num_embeddings=fields, dense=dense, **self.encoding)

    def _vocabulary(self) -> list[str]:
        if self._truths:
            return ["<oov>", *self.random.sample(["true", "false", "True", "False", "TRUE", "FALSE", "1", "0", "<missing>"], 3)]
        known = [
            *TEXTS, "9007199254740992", "1", "42", "1.5", "1e-7", "10000000000", "-0.0", "1.23456789015e+10", "9007199254740991",
            "18446744073709551616", "\\\\<missing>",
        ]  # fmt: skip
        return ["<oov>", *dict.fromkeys(self.random.choices(known, k=self.random.randrange(1, 30)))]

    def cells(self, kind: str, rows: int) -> list[str]:
        random = self.random
        if kind == "lists":
            kind = random.choice(["text", "text", "integers", "exact", "floats", "numbers", "truths", "numbers and truths", "any"])
            inner = [*KINDS[kind], "null", "null"]
            return [
                "null" if random.random() < 0.1 else f"[{', '.join(random.choices(inner, k=random.randrange(5)))}]" for _ in range(rows)
            ]
        missing = random.choice([0, 0, 0.2, 0.2, 1])
        return ["null" if random.random() < missing else random.choice(KINDS[kind]) for _ in range(rows)]

    def request(self) -> str:
        """A request in JSON. Most have cells that fit."""
        random = self.random
        rows = random.choice([1, 1, 2, 3, 7])
        columns, shared = {}, {}
        for name, kinds in self.kinds.items():
            kind = random.choice(["any", "lists", *KINDS]) if random.random() < 0.03 else random.choice(kinds)
            if random.random() < 0.3:
                shared[name] = self.cells(kind, 1)[0]
            elif random.random() > 0.005:
                columns[name] = f"[{', '.join(self.cells(kind, rows if random.random() > 0.005 else rows + 1))}]"
        if random.random() < 0.2:
            columns["ignored"] = f"[{', '.join(['{}'] * rows)}]"
        parts = {"columns": columns, "shared": shared}
        held = [f'"{key}": {{{", ".join(f"{json.dumps(name)}: {cells}" for name, cells in part.items())}}}' for key, part in parts.items()]
        return f"{{{', '.join(held)}}}"


def expected(encoder: Encoder, request: str) -> tuple[list, list] | None:
    """Ids and the bits of dense values; None where the encoder refuses the request."""
    parts = json.loads(request)
    columns, shared = parts.get("columns", {}), parts.get("shared", {})
    rows = len(next(iter(columns.values()))) if columns else 1
    try:
        found = encoder.encode({**columns, **{name: [cell] * rows for name, cell in shared.items()}})
    except DataError:
        return None
    bits = np.empty((rows, 0), np.uint32) if found.dense is None else found.dense.numpy().view(np.uint32)
    return found.ids.tolist(), bits.tolist()
