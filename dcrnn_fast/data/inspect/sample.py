"""The columns of a table's first rows: their types, how many values they have, and what their texts look like. DuckDB reads them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from ..read.columns import EXACT, TRUTHS
from ..read.csv_files import sql_path, sql_text

SAMPLE_ROWS = 1_000_000
LOOK_ROWS, AT = 10_000, "dcrnn_fast: row"
"""Rows whose texts are looked at more closely, and the column that counts rows."""
TIMES = re.compile("DATE|TIMESTAMP")
NUMBERS = re.compile(r"^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|FLOAT|DECIMAL.*)$")
LISTS = re.compile(r"^(?!DOUBLE|FLOAT|DECIMAL)\w+\[\d*\]$")
CODES = "DIGITS"
"""The kind of a column of a CSV file whose numbers have leading zeros: it holds codes."""
SEPARATORS = ("|", ";", ",")
"""Separators of the values of a cell, if a tenth of a column's cells holds it. A space may not follow it, as in ordinary text, and the cell
may be no number such as 1,234.50."""
SEPARATED, THOUSANDS = 0.1, r" *[-+]?[0-9]{1,3}(,[0-9]{3})+([.][0-9]*)? *"
FEWEST, DISTINCT, ENTITY = 2, 0.95, "&([A-Za-z]+[0-9]*|#[0-9]+|#[xX][0-9A-Fa-f]+);"
"""So many different cells hold it at least, and at most such a part of the values of different cells differ, be they alone in their cell.
The semicolon of an HTML entity is none."""
SPAN = "-?[0-9]+ days?(,? [-+]?[0-9]+:[0-9]{2}(:[0-9.]+)?)?"
"""How pandas, Python and databases write a duration."""
MISSING_TEXTS = (
    *("NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None", "NaN", "nan", "-NaN", "-nan"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", r"\N"),
)
"""Texts that programs write in a CSV file where there is no value: those that pandas reads so, and that of databases."""
NUMBERS_OF_TEXT = 0.9
"""A text column with a larger part of numbers may hold a text for a missing cell."""
MARKS = ("?", "-", "--", ".")
"""These are such texts where all other cells of each column that has one are numbers."""
MOST_VALUES = 20
OTHER_TIMES = [
    f"{day}{clock}"
    for day in ("%d %B %Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y%m%d")
    for clock in ("", " %H:%M", " %H:%M:%S")
]
"""Ways to write a time that a split by time cannot read."""


class Column(NamedTuple):
    """The facts about a column in the first rows.

    `lowest` and `highest` are None unless it holds numbers. `is_whole` says that its cells may be ids: they are one value each, and no
    numbers with a fraction; `is_hash` that no float holds most of its distinct numbers; `of_labels` that it holds 0 and 1, or true and
    false in words, alone; `is_time` that it holds times, and `is_iso` that a split by time can read them. `values`, from 2 to 20, is how
    many values nearly all cells have at most, if they are lists, or text that the `separator` cuts; otherwise it is None. `named` says that
    a schema can name it. `in_sql` is its name for DuckDB. Of text, `numbers` is the part of the cells that are numbers, `no_number` a cell
    that is none, and `of_spans` says that all are durations.
    """

    name: str
    kind: str
    distinct: int
    missing: float
    lowest: float | None
    highest: float | None
    is_whole: bool
    is_hash: bool
    of_labels: bool
    is_time: bool
    is_iso: bool
    values: int | None
    separator: str | None
    named: bool
    in_sql: str
    numbers: float
    no_number: str | None
    of_spans: bool

    @property
    def about(self) -> str:
        """The column in a comment."""
        facts = f"{self.kind.lower()}, {self.distinct:,} distinct, {self.missing:.1%} missing"
        if NUMBERS_OF_TEXT < self.numbers < 1 and self.no_number is not None:
            held = json.dumps(self.no_number[:40], ensure_ascii=True)
            facts += f"; numbers, except texts such as {held}: do these stand for a missing cell?"
        return facts

    @property
    def is_text(self) -> bool:
        """Whether its cells are compared as text."""
        return self.kind in ("VARCHAR", "BOOLEAN", CODES)


def json_text(value: object) -> str:
    """A value as YAML and a terminal read it: characters that one refuses, takes for the end of a line, or obeys, by their numbers."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def csv_options(database: duckdb.DuckDBPyConnection, path: Path, missing: Sequence[str]) -> dict[str, str]:
    """How a CSV file is written, as the keys of a schema's `csv`, as far as it differs from the defaults."""
    found = database.execute(f"SELECT Delimiter, Quote FROM sniff_csv({sql_path(path)}, ignore_errors = true)").fetchone()
    assert found is not None
    delimiter, quote = found
    differs = {"delimiter": delimiter} if delimiter != "," else {}
    differs |= {"quote": quote} if quote not in ('"', "", "(empty)", "\0") else {}
    if delimiter != ",":
        point, comma = (_kinds(database, csv_source([path], mark, missing)) for mark in ".,")
        differs |= {"decimal": ","} if sum(map(is_number, comma.values())) > sum(map(is_number, point.values())) else {}
    return differs


def missing_texts(database: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> list[str]:
    """The texts of MISSING_TEXTS that stand in a cell of the CSV files' first rows, and those of MARKS that stand among numbers alone."""
    texts = csv_source(paths, as_text=True)
    cells = {name: _present(_quoted(name), "VARCHAR") for name in _kinds(database, texts)}
    known = f"({', '.join(map(sql_text, (*MISSING_TEXTS, *MARKS)))})"
    asked = {name: [f"list(DISTINCT {cell}) FILTER (WHERE {cell} IN {known})"] for name, cell in cells.items()}
    held = {name: set(these or ()) for name, (these,) in _answers(database, texts, SAMPLE_ROWS, asked).items()}
    marked = {name: cell for name, cell in cells.items() if held[name].intersection(MARKS)}
    numbers = {name: f"TRY_CAST(replace({cell}, ',', '.') AS DOUBLE) IS NOT NULL" for name, cell in marked.items()}
    asked = {name: [f"bool_and({marked[name]} IN {known} OR {is_number})", f"bool_or({is_number})"] for name, is_number in numbers.items()}
    of_numbers = {name for name, answers in _answers(database, texts, SAMPLE_ROWS, asked).items() if all(answers)}
    categories = set[str]().union(*(held[name].intersection(MARKS) for name in marked if name not in of_numbers))
    return [text for text in (*MISSING_TEXTS, *MARKS) if text not in categories and any(text in found for found in held.values())]


def own_names(database: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    """By DuckDB's name of a file's column: what the file calls it, or "" if a schema cannot name it so."""
    if path.name.endswith(".parquet"):
        names, header = _kinds(database, parquet_source([path])), pq.read_schema(path).names
    else:
        first = f"FROM read_csv({sql_path(path)}, header = false, all_varchar = true, ignore_errors = true) LIMIT 1"
        names, header = _kinds(database, csv_source([path])), list(database.execute(first).fetchone() or ())
    if len(names) != len(header):
        return {}
    return {name: here if here and header.count(here) == 1 else "" for name, here in zip(names, header, strict=True)}


def lacking(database: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> dict[str, Path]:
    """By column that a file has, the first of the others that lacks it. An empty file, which `prepare` refuses, lacks none."""
    names = {path: {name for name in own_names(database, path).values() if name} for path in paths}
    every = set().union(*names.values())
    return {name: path for path in reversed(paths) for name in (every - names[path] if names[path] else ())}


def csv_source(paths: Sequence[Path], decimal: str = ".", missing: Sequence[str] = (), *, as_text: bool = False) -> str:
    """CSV files as a table in SQL, in which the empty text and the texts `missing` are not values; with `as_text`, every cell is text."""
    nulls = f", nullstr = [{', '.join(map(sql_text, ('', *missing)))}]"
    more = ", all_varchar = true" if as_text else f", decimal_separator = {sql_text(decimal)}{nulls}"
    return f"read_csv([{', '.join(map(sql_path, paths))}], header = true, ignore_errors = true, union_by_name = true{more})"


def parquet_source(paths: Sequence[Path]) -> str:
    """Parquet files as a table in SQL."""
    return f"read_parquet([{', '.join(map(sql_path, paths))}], union_by_name = true)"


def read_columns(
    database: duckdb.DuckDBPyConnection, source: str, texts: str | None, own_names: Mapping[str, str]
) -> tuple[list[Column], int]:
    """The columns of the first 1,000,000 rows of `source`, and how many rows these are.

    `texts` is a CSV table with every cell as text, `own_names` is the result of :func:`own_names`.
    """
    kinds, other = _kinds(database, source), set()
    if texts is not None:
        whole, times = ([name for name, kind in kinds.items() if test(kind)] for test in (re.compile(".*INT").match, TIMES.match))
        asked = {name: [f"bool_or(regexp_matches({_quoted(name)}, '^ *0[0-9]'))"] for name in whole}
        asked |= {name: [f"bool_or(NOT regexp_matches({_quoted(name)}, '^ *[0-9]{{4}}-[0-9]{{2}}-'))"] for name in times}
        found = {name for name, (met,) in _answers(database, texts, LOOK_ROWS, asked).items() if met}
        kinds |= dict.fromkeys(found.intersection(whole), CODES)
        other = found.intersection(times)
    counts = _answers(
        database, source, SAMPLE_ROWS, {"": ["count(*)"]} | {name: _counts(_quoted(name), kind) for name, kind in kinds.items()}
    )
    rows, columns = counts[""][0], list[Column]()
    if not rows:
        return columns, 0
    looks = _answers(database, source, LOOK_ROWS, {name: _looks(_quoted(name), kind) for name, kind in kinds.items()}, of=rows)
    for name, kind in kinds.items():
        (distinct, present, low, high, beyond, has_fraction, truths, numbers, no_number), looked = counts[name], looks[name]
        is_iso, is_time, is_span, longest, *of_marks = looked
        distinct, separator = min(distinct, present), None  # an approximate count may exceed the cells
        for mark, share, parts in zip(SEPARATORS, of_marks[::2], of_marks[1::2], strict=True):
            if separator is None and (share or 0) >= SEPARATED and _are_lists(database, source, _quoted(name), mark, rows):
                separator, longest = mark, parts
        of_labels = kind == "BOOLEAN" or bool(truths)
        values = None if longest is None else min(max(longest, 2), MOST_VALUES)
        is_iso = bool(is_iso and present) and name not in other
        missing = 1 - present / rows
        of_time = bool(is_time and present), is_iso
        own = own_names.get(name, name)
        is_whole = not has_fraction and values is None and bool(own) and math.inf not in (-(low or 0), high)
        ranges, names = (distinct, missing, low, high), (bool(own), _quoted(name))
        is_hash = "INT" in kind and (beyond or 0) > distinct / 2
        of_text = (numbers or 0) / max(present, 1), no_number, bool(is_span and present)
        columns.append(Column(own or name, kind, *ranges, is_whole, is_hash, of_labels, *of_time, values, separator, *names, *of_text))
    return columns, rows


def _are_lists(database: duckdb.DuckDBPyConnection, source: str, column: str, mark: str, rows: int) -> bool:
    """Whether the values that a mark cuts cells into come again in other cells."""
    ((cells,),) = _answers(database, source, LOOK_ROWS, {"": [f"list(DISTINCT {column}) FILTER ({column} <> '')"]}, of=rows).values()
    values = [value for cell in cells for value in cell.split(mark)]
    return sum(mark in cell for cell in cells) >= FEWEST and len(set(values)) <= DISTINCT * len(values)


def read_ids(database: duckdb.DuckDBPyConnection, source: str, columns: Sequence[Column]) -> dict[str, npt.NDArray[np.int64]]:
    """By name, numbers from 1 that are alike where cells are; 0 is missing. Of the first rows, and of the next one if there is one."""
    cells = [_present(one.in_sql, one.kind) for one in columns]
    odd = [f"if({cell} IS NULL, 0::UBIGINT, hash({cell}) | 1::UBIGINT) AS c{at}" for at, cell in enumerate(cells)]  # hash(0) is 0
    found = database.execute(f"SELECT {', '.join(odd)} FROM (FROM {source} LIMIT {SAMPLE_ROWS + 1})").fetchnumpy() if columns else {}
    coded = [np.unique(hashes, return_inverse=True) for hashes in found.values()]
    return {one.name: ids + (hashes[0] > 0) for one, (hashes, ids) in zip(columns, coded, strict=True)}


def is_positive(label: Column) -> str:
    """In SQL: whether a row is positive."""
    if label.kind == "VARCHAR":
        is_word = f"lower({label.in_sql}) IN ({', '.join(map(sql_text, TRUTHS[True]))})"
        return f"({is_word} OR coalesce(TRY_CAST({label.in_sql} AS DOUBLE) = 1, false))"
    return f"TRY_CAST({label.in_sql} AS DOUBLE) = 1"


def implies(database: duckdb.DuckDBPyConnection, source: str, labels: Sequence[Column]) -> bool:
    """Whether in the first rows each label is positive where the next one is, and the last one is so somewhere."""
    is_so = [is_positive(one) for one in labels]
    broken = [f"bool_or({later} AND NOT {earlier})" for earlier, later in pairwise(is_so)]
    (found,) = _answers(database, source, SAMPLE_ROWS, {"": [f"NOT ({' OR '.join(broken)}) AND bool_or({is_so[-1]})"]}).values()
    return bool(found[0])


def _kinds(database: duckdb.DuckDBPyConnection, source: str) -> dict[str, str]:
    return {row[0]: str(row[1]) for row in database.execute(f"DESCRIBE FROM {source}").fetchall()}


def is_number(kind: str) -> bool:
    """Whether a type of DuckDB's is one of numbers."""
    return bool(NUMBERS.match(kind))


def _answers(
    database: duckdb.DuckDBPyConnection, source: str, rows: int, asked: Mapping[str, Sequence[str]], *, of: int = 0
) -> dict[str, list[Any]]:
    """The values of SQL expressions, by column, over the first rows of a table, or as many that are spread evenly over the first ``of``."""
    expressions = ", ".join(expression for one_column in asked.values() for expression in one_column)
    read, step = f"FROM {source} LIMIT {max(rows, of)}", max(1, -(-of // rows))
    read = f"FROM (SELECT *, row_number() OVER () AS {_quoted(AT)} FROM ({read})) WHERE {_quoted(AT)} % {step} = 0" if step > 1 else read
    answers = database.execute(f"SELECT {expressions} FROM ({read})").fetchone() if expressions else ()
    left = iter(answers or ())
    return {name: [next(left) for _ in one_column] for name, one_column in asked.items()}


def _counts(column: str, kind: str) -> list[str]:
    """In SQL: distinct and present cells; the lowest and the highest number, and how many distinct ones no float holds; whether one has a
    fraction; whether all are truth values; of text, how many are numbers, and one that is none."""
    column = _present(column, kind)
    facts = [f"approx_count_distinct({column})", f"count({column})"]
    beyond = f"approx_count_distinct({column}) FILTER (WHERE abs({column}::DOUBLE) > {EXACT[8]})"
    of_numbers = [f"min({column})::DOUBLE", f"max({column})::DOUBLE", beyond, f"bool_or({column} <> floor({column}))"]
    facts += of_numbers if is_number(kind) else ["NULL"] * 4
    if kind == "VARCHAR":
        number = f"TRY_CAST({column} AS DOUBLE)"
        yes, no = (f"lower({column}) IN ({', '.join(map(sql_text, TRUTHS[truth]))})" for truth in (True, False))
        ways = [(yes, no), (f"coalesce({number} = 1, false)", f"coalesce({number} = 0, false)")]
        of_text = [f"count({number})", f"min({column}) FILTER (WHERE {number} IS NULL)"]
    elif is_number(kind):
        ways, of_text = [(f"{column} = 1", f"{column} = 0")], ["NULL", "NULL"]
    else:
        return [*facts, "NULL", "NULL", "NULL"]
    truths = [f"(bool_and({yes} OR {no}) AND bool_or({yes}) AND bool_or({no}))" for yes, no in ways]
    return [*facts, " OR ".join(truths), *of_text]


def _present(column: str, kind: str) -> str:
    """In SQL: a cell, or NULL for one that counts as missing."""
    if kind == "VARCHAR":
        return f"nullif({column}, '')"
    return f"nullif({column}, 'NaN')" if kind in ("DOUBLE", "FLOAT") else column


def _looks(column: str, kind: str) -> list[str]:
    """In SQL: whether the cells are readable times, any times, or durations; how long lists are; of each separator, its share and parts."""
    if kind != "VARCHAR":
        is_time, length = str(bool(TIMES.match(kind))), f"quantile_disc(len({column}), 0.95)" if LISTS.match(kind) else "NULL"
        return [is_time, is_time, "false", length, *["NULL", "NULL"] * len(SEPARATORS)]
    column = _present(column, kind)
    iso, other = f"TRY_CAST({column} AS TIMESTAMP)", f"try_strptime({column}, [{', '.join(map(sql_text, OTHER_TIMES))}])"
    looks = [f"count({iso}) = count({column})", f"count(coalesce({iso}, {other})) = count({column})"]
    looks += [f"bool_and(regexp_full_match({column}, {sql_text(SPAN)}))", "NULL"]
    for mark in map(sql_text, SEPARATORS):
        cut = f"contains({column}, {mark}) AND NOT regexp_full_match({column}, {sql_text(THOUSANDS)})"
        prose = f"bool_or(contains({column}, {mark} || ' ') OR ({mark} = ';' AND regexp_matches({column}, {sql_text(ENTITY)})))"
        looks += [f"avg(({cut})::INT) * (NOT {prose})::INT", f"quantile_disc(len(string_split({column}, {mark})), 0.95)"]
    return looks


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
