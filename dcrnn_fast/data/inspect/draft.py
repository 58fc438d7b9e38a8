"""Drafts the schema of a table from its first rows: candidates for labels, time and groups, fields and numbers. A person checks it."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from glob import has_magic
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError, did_you_mean
from ..read.columns import TRUTHS
from ..read.csv_files import found_encoding, sql_path, sql_text, write_plain
from ..read.row_files import expand
from ..read.text_queries import open_database

FEW, MANY = 50, 1_000_000
LABEL = re.compile(
    r"(^|_|is)(click|visit|view|like|share|follow|convers|convert|order|buy|bought|purchas|pay|paid|cart|label|target)", re.I
)
TIME, MOMENT = re.compile(r"(^|_)(time|date|day|timestamp|datetime|ts)s?(_|$)"), re.compile(r"(event_)?(time|date|timestamp|datetime|ts)$")
USER = re.compile(r"(^|_)((user|member|customer|visitor|session)(_?((uu|gu|pseudo_)?id|idx|index|no|nr|number|key|hash|code))?|uid)$")
ID = re.compile(r"(?!(.*_)?(bid|paid|unpaid|prepaid|grid|valid|invalid)$).*id$")
"""Names as :func:`_words` writes them. Many programs write an id without a mark, such as itemid; a few words end in these letters too."""
SPANS = ((19_700_101, 21_001_231), *((631_152_000 * unit, 4_102_444_800 * unit) for unit in (1, 10**3, 10**6, 10**9)))
"""Numbers that can be times: dates as 20240531, and seconds, milliseconds, microseconds or nanoseconds from 1990 to 2100."""
SAMPLE_ROWS = 1_000_000
LOOK_ROWS, AT = 10_000, "dcrnn_fast: row"
"""Rows whose texts are looked at more closely, and the column that counts rows."""
TIMES = re.compile("DATE|TIMESTAMP")
NUMBERS = re.compile(r"^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|FLOAT|DECIMAL.*)$")
LISTS = re.compile(r"^(?!DOUBLE|FLOAT|DECIMAL)\w+\[\d*\]$")
INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls an index without a name in a Parquet file."""
CODES = "DIGITS"
"""The kind of a column of a CSV file whose numbers have leading zeros: it holds codes."""
SEPARATORS = ("|", ";", ",")
"""Separators of the values of a cell, if a tenth of a column's cells holds it. A space may not follow it, as in ordinary text."""
SEPARATED = 0.1
MISSING_TEXTS = ("NA", "N/A", "NULL", "null", "None", "NaN", "nan", r"\N")
"""Texts that programs write in a CSV file where there is no value."""
MOST_VALUES = 20
OTHER_TIMES = [
    f"{day}{clock}"
    for day in ("%d %B %Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y%m%d")
    for clock in ("", " %H:%M", " %H:%M:%S")
]
"""Ways to write a time that a split by time cannot read."""


def draft_schema(inputs: Sequence[str], *, tasks: Sequence[str] | None = None) -> str:
    """See :func:`dcrnn_fast.data.draft_schema`."""
    paths = [path for given in inputs for path in expand("the input", Path(os.path.abspath(given)))]
    csv, first = not paths[0].name.endswith(".parquet"), paths[0]
    paths = [path for path in paths if path.name.endswith(".parquet") != csv]
    try:
        with TemporaryDirectory() as folder, open_database(Path(folder)) as database:
            written = {}
            if csv and (encoding := found_encoding(first)) != "utf-8":
                written["encoding"], paths = encoding, [Path(folder) / "plain.csv"]  # The first file is enough for a draft.
                write_plain(first, paths[0], encoding)
            missing = missing_texts(database, paths[0]) if csv else []
            written |= csv_options(database, paths[0], missing) if csv else {}
            source = csv_source(paths, written.get("decimal", "."), missing) if csv else parquet_source(paths)
            texts = csv_source(paths, as_text=True) if csv else None
            columns, rows = read_columns(database, source, texts, own_names(database, paths[0]))
            if not csv:  # DuckDB reads durations as numbers, and a schema cannot
                durations = {field.name for field in pq.read_schema(paths[0]) if pa.types.is_duration(field.type)}
                columns = [column._replace(kind="DURATION") if column.name in durations else column for column in columns]
            if rows:
                labels = _labels(columns, tasks, first, rows)
                is_funnel = len(labels) > 1 and implies(database, source, labels)
    except duckdb.Error as error:
        words = re.split("LINE 1|Possible Solution", " ".join(str(error).split()))[0].strip()
        if "sniffing" in words:
            words = "no delimiter and quote cut its lines into cells; write it as CSV, with a header and a line for each row"
        raise DataError(f"{first} cannot be read: {words[:300]}") from error
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{first} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise DataError(f"{first} holds no rows; expected a header with the column names, and rows below it")
    return _yaml(written, missing, [column for column in columns if column not in labels], labels, is_funnel, rows, inputs)


def _labels(columns: Sequence[Column], tasks: Sequence[str] | None, first: Path, rows: int) -> list[Column]:
    named = {column.name: column for column in columns if column.named}
    if tasks is not None:
        if lacking := [task for task in tasks if task not in named]:
            has = f"it has {', '.join(named)}"
            raise DataError(f"tasks: {first} has no column {lacking[0]!r}; {has}{did_you_mean(lacking[0], list(named))}")
        return [named[task] for task in tasks]
    binary = [column for column in named.values() if column.of_labels]
    labels = [column for column in binary if LABEL.search(column.name)] or binary[:1]
    if not labels:
        raise DataError(
            f"{first}: no column holds 0 and 1 alone, or true and false, in its first {rows:,} rows, so no column is a label as it is; "
            "write the schema by hand, with a task such as {name: click, column: event, positive: [click]} or {name: long_view, column: "
            "seconds, threshold: 30}"
        )
    return labels


def _yaml(
    written: Mapping[str, str],
    missing: Sequence[str],
    features: Sequence[Column],
    labels: Sequence[Column],
    is_funnel: bool,
    rows: int,
    inputs: Sequence[str],
) -> str:
    times = sorted(filter(_is_time, features), key=lambda column: (-column.distinct, _is_number(column.kind)))  # an event's is the finest
    users = [column for column in features if USER.search(_words(column.name)) and column.is_whole and column.distinct > FEW]
    categorical, left, numeric, numbers = [], [], list[str](), list[Column]()
    for column in features:
        key, about = f"column: {_text(column.name)}", column.about + (": is it a label?" if column.of_labels else "")
        if why := _left_out(column, times, users, rows):
            left.append(f"#   {_text(column.name)}: {column.about}: {why}")
        elif column.values is not None:
            cut = "" if column.separator is None else f', separator: "{column.separator}"'
            categorical.append(f"  - {{{key}, max_values: {column.values}{cut}}}  # {about}")
        elif column.is_text or (column.is_whole and (ID.match(_words(column.name)) or column in users or column.distinct <= FEW)):
            hashed = ", hash_buckets: 1000000" if column.distinct > MANY else ""
            categorical.append(f"  - {{{key}{hashed}}}  # {about}")
        else:
            numbers.append(column)
    for column in numbers:
        dense = "log1p" if column.lowest is not None and column.lowest >= 0 else "standardise"
        # Buckets tell a missing cell from others. And a schema needs a field.
        buckets = "buckets: 32, " if column.missing or not (categorical or numeric) else ""
        numeric.append(f"  - {{column: {_text(column.name)}, {buckets}dense: {dense}}}  # {column.about}")
    tasks: dict[str, str] = {}
    for number, column in enumerate(labels):
        name = re.sub(r"\W", "_", column.name, flags=re.ASCII)
        name = name if re.match("[A-Za-z]", name) and name not in tasks else f"task{number}_{name}"
        tasks[name] = f"  - {{name: {name}, column: {_text(column.name)}}}  # {column.about}"
    name = re.sub(r"[^a-z0-9_-]", "-", _name(inputs[0]).lower()).lstrip("_-") or "table"
    files = _text([os.path.abspath(path) for path in inputs])
    in_files = "" if times or users else ", test_fraction: 0.2"
    by = [*(f"time: {_text(one.name)}" for one in times), *(f"hash: {_text(one.name)}" for one in users)]
    split = f"split: {{{by[0]}, valid: 0.1, test: 0.2}}\n" if by else ""
    csv = f"csv: {{{', '.join(f'{key}: {_text(value)}' for key, value in written.items())}}}\n" if written else ""
    csv += f"missing_values: {_text(['', *missing])}\n" if missing else ""
    parts = [
        f"# Drafted from the first {rows:,} rows. Check every line: the labels and their order, and columns known only after the event.\n",
        f"name: {_text(name)}\nfiles: {{all: {files}{in_files}}}\n{csv}{split}",
        "tasks:  # in the order of the funnel\n" + "\n".join(tasks.values()) + "\n",
        "funnel: true  # in these rows each event implies the one before it\n" if is_funnel else "",
        f"group: {_text(users[0].name)}\n" if users else "",
        "categorical:\n" + "\n".join(categorical) + "\n" if categorical else "",
        "numeric:\n" + "\n".join(numeric) + "\n" if numeric else "",
        "# Left out:\n" + "\n".join(left) + "\n" if left else "",
    ]
    return "".join(parts)


def _is_time(column: Column) -> bool:
    """Whether a split by time may use the column."""
    if not column.named or column.distinct < 2 or column.missing:
        return False
    if TIMES.match(column.kind):
        return column.is_iso
    low, high, name, many = column.lowest, column.highest, _words(column.name), column.distinct > FEW
    if low is None or high is None:
        return column.is_iso and many and bool(TIME.search(name))
    is_moment = column.is_whole and many and MOMENT.match(name)  # also if it starts at 0, or a 0 stands for none
    return bool(is_moment or (TIME.search(name) and any(a <= low <= high <= b for a, b in SPANS)))


def _words(name: str) -> str:
    """A name in lower case with _ between its words, as in user_id for userId."""
    return re.sub(r"\W+", "_", re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name)).lower()


def _left_out(column: Column, times: Sequence[Column], users: Sequence[Column], rows: int) -> str:
    """Why no field or number is made of a column; empty if one is."""
    if column in times:
        return "time"
    if not column.named:
        return "its name in the file is empty, or that of another column; rename it there"
    if column.distinct + (column.missing > 0) < 2:
        return "one value"
    if INDEX.fullmatch(column.name):
        return "the index that pandas hides; rows that are scored would lack it"
    if column.missing and _is_time(column._replace(missing=0.0)):
        return "a time that some rows lack: a split by time needs all"
    if (column.of_labels or column.distinct == 1) and LABEL.search(column.name):
        return "a label? As a feature it would tell the events"
    if column.is_time and not column.is_iso:
        return "a time; write it as 2024-05-31 or 2024-05-31T23:59:00 to split by it"
    if column.values is not None:
        return ""
    if column.kind == "VARCHAR" and column.distinct > 0.9 * rows and column not in users:
        return "every row another"
    return "" if column.is_text or _is_number(column.kind) else "no field"


def _name(given: str) -> str:
    """The name of a table: the name of its file or folder, or of the folder that a pattern looks in."""
    path = Path(os.path.abspath(given))
    while has_magic(str(path)):
        path = path.parent
    return path.name.split(".")[0]


def _text(value: object) -> str:
    """A text, or a list of texts, as YAML reads it: characters that it refuses, or takes for the end of a line, by their numbers."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


class Column(NamedTuple):
    """The facts about a column in the first rows.

    `lowest` and `highest` are None unless it holds numbers. `is_whole` says that its cells may be ids: they are one value each, and no
    numbers with a fraction; `of_labels` that it holds 0 and 1 alone, or true and false in words; `is_time` that it holds times, and
    `is_iso` that a split by time can read them. `values`, from 2 to 20, is how many values nearly all cells have at most, if they are
    lists, or text that the `separator` cuts; otherwise it is None. `named` says that a schema can name it.
    """

    name: str
    kind: str
    distinct: int
    missing: float
    lowest: float | None
    highest: float | None
    is_whole: bool
    of_labels: bool
    is_time: bool
    is_iso: bool
    values: int | None
    separator: str | None
    named: bool

    @property
    def about(self) -> str:
        """The column in a comment."""
        return f"{self.kind.lower()}, {self.distinct:,} distinct, {self.missing:.1%} missing"

    @property
    def is_text(self) -> bool:
        """Whether its cells are compared as text."""
        return self.kind in ("VARCHAR", "BOOLEAN", CODES)


def csv_options(database: duckdb.DuckDBPyConnection, path: Path, missing: Sequence[str]) -> dict[str, str]:
    """How a CSV file is written, as the keys of a schema's `csv`, as far as it differs from the defaults."""
    found = database.execute(f"SELECT Delimiter, Quote FROM sniff_csv({sql_path(path)}, ignore_errors = true)").fetchone()
    assert found is not None
    delimiter, quote = found
    differs = {"delimiter": delimiter} if delimiter != "," else {}
    differs |= {"quote": quote} if quote not in ('"', "", "(empty)", "\0") else {}
    if delimiter != ",":
        point, comma = (_kinds(database, csv_source([path], mark, missing)) for mark in ".,")
        differs |= {"decimal": ","} if sum(map(_is_number, comma.values())) > sum(map(_is_number, point.values())) else {}
    return differs


def missing_texts(database: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """The texts of MISSING_TEXTS that stand in a cell of the CSV file's first rows."""
    texts = csv_source([path], as_text=True)
    cells = [_quoted(name) for name in _kinds(database, texts)]
    asked = {text: [f"bool_or({' OR '.join(f'{cell} = {sql_text(text)}' for cell in cells)})"] for text in MISSING_TEXTS}
    return [text for text, (found,) in _answers(database, texts, LOOK_ROWS, asked).items() if found]


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


def csv_source(paths: Sequence[Path], decimal: str = ".", missing: Sequence[str] = (), *, as_text: bool = False) -> str:
    """CSV files as a table in SQL, in which the empty text and the texts `missing` are no value; with `as_text`, every cell is text."""
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
        (distinct, present, low, high, has_fraction, truths), (is_iso, is_time, longest, *of_marks) = counts[name], looks[name]
        distinct, separator = min(distinct, present), None  # an approximate count may exceed the cells
        for mark, share, parts in zip(SEPARATORS, of_marks[::2], of_marks[1::2], strict=True):
            if separator is None and (share or 0) >= SEPARATED:
                separator, longest = mark, parts
        of_labels = ("INT" in kind and (low, high) == (0, 1)) or kind == "BOOLEAN" or bool(truths)
        values = None if longest is None else min(max(longest, 2), MOST_VALUES)
        is_iso = bool(is_iso and present) and name not in other
        missing = 1 - present / max(rows, 1)
        of_time = bool(is_time and present), is_iso
        own = own_names.get(name, name)
        is_whole = not has_fraction and values is None and bool(own)
        columns.append(Column(own or name, kind, distinct, missing, low, high, is_whole, of_labels, *of_time, values, separator, bool(own)))
    return columns, rows


def implies(database: duckdb.DuckDBPyConnection, source: str, labels: Sequence[Column]) -> bool:
    """Whether in the first rows each label is positive where the next one is, and the last one is so somewhere."""
    is_so = [
        f"lower({_quoted(one.name)}) IN ('1', {', '.join(map(sql_text, TRUTHS[True]))})"
        if one.kind == "VARCHAR"
        else f"{_quoted(one.name)}::DOUBLE = 1"
        for one in labels
    ]
    broken = [f"bool_or({later} AND NOT {earlier})" for earlier, later in pairwise(is_so)]
    (found,) = _answers(database, source, SAMPLE_ROWS, {"": [f"NOT ({' OR '.join(broken)}) AND bool_or({is_so[-1]})"]}).values()
    return bool(found[0])


def _kinds(database: duckdb.DuckDBPyConnection, source: str) -> dict[str, str]:
    return {row[0]: str(row[1]) for row in database.execute(f"DESCRIBE FROM {source}").fetchall()}


def _is_number(kind: str) -> bool:
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
    """In SQL: distinct and present cells, the lowest and the highest number, whether one has a fraction, whether all are truth values."""
    column = f"nullif({column}, 'NaN')" if kind in ("DOUBLE", "FLOAT") else column
    facts = [f"approx_count_distinct({column})", f"count({column})"]
    of_numbers = [f"min({column})::DOUBLE", f"max({column})::DOUBLE", f"bool_or({column} <> floor({column}))"]
    facts += of_numbers if _is_number(kind) else ["NULL"] * 3
    yes, no = (f"lower({column}) IN ({', '.join(map(sql_text, TRUTHS[truth]))})" for truth in (True, False))
    if kind in ("DOUBLE", "FLOAT"):  # labels of which some are missing, as pandas writes them
        yes, no = f"{column} = 1", f"{column} = 0"
    elif kind != "VARCHAR":
        return [*facts, "NULL"]
    return [*facts, f"bool_and({yes} OR {no}) AND bool_or({yes}) AND bool_or({no})"]


def _looks(column: str, kind: str) -> list[str]:
    """In SQL: whether the cells are readable times, or any times; how long lists are; of each separator, its share and its parts."""
    if kind != "VARCHAR":
        is_time, length = str(bool(TIMES.match(kind))), f"quantile_disc(len({column}), 0.95)" if LISTS.match(kind) else "NULL"
        return [is_time, is_time, length, *["NULL", "NULL"] * len(SEPARATORS)]
    iso, other = f"TRY_CAST({column} AS TIMESTAMP)", f"try_strptime({column}, [{', '.join(map(sql_text, OTHER_TIMES))}])"
    looks = [f"count({iso}) = count({column})", f"count(coalesce({iso}, {other})) = count({column})", "NULL"]
    for mark in SEPARATORS:
        share = f"avg(contains({column}, {sql_text(mark)})::INT) * (NOT bool_or(contains({column}, {sql_text(mark + ' ')})))::INT"
        looks += [share, f"quantile_disc(len(string_split({column}, {sql_text(mark)})), 0.95)"]
    return looks


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
