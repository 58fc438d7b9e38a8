"""Drafts the schema of a table from its first rows: types, cardinalities, candidates for labels, time and groups. A person checks it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import duckdb

from ..errors import DataError
from .csv_files import sql_path
from .sources import expand
from .text_queries import open_database

SAMPLE_ROWS = 1_000_000
FEW, MANY = 50, 1_000_000
LABEL = re.compile(
    r"(^|_|is)(click|visit|view|like|share|follow|convers|convert|order|buy|bought|purchas|pay|paid|cart|label|target)", re.I
)
TIME = re.compile(r"(^|_)(time|date|day|timestamp|ts)(_|$|s$)", re.I)
USER = re.compile(r"(^|_)(user|member|customer|visitor|uid|session)", re.I)
NUMBERS = re.compile(r"^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|FLOAT|DECIMAL.*)$")
LISTS = re.compile(r"^\w+\[\d*\]$")


class Column(NamedTuple):
    """What the first rows say of a column. `lowest` is None unless it holds numbers; `of_labels` says that it holds 0 and 1 alone."""

    name: str
    kind: str
    distinct: int
    missing: float
    lowest: float | None
    of_labels: bool

    @property
    def about(self) -> str:
        """The column in a comment."""
        return f"{self.kind.lower()}, {self.distinct:,} distinct, {self.missing:.1%} missing"


def draft_schema(inputs: Sequence[str]) -> str:
    """A schema YAML for the files that `inputs` name: paths, patterns or folders, CSV or Parquet, relative to the working directory.

    It reads at most the first 1,000,000 rows. Raises DataError for files that cannot be read, and for a table without a column that holds 0
    and 1 alone, or true and false: nothing in it can be a label.
    """
    paths = [path for given in inputs for path in expand("draft", "input", Path(os.path.abspath(given)))]
    csv = not paths[0].name.endswith(".parquet")
    try:
        with TemporaryDirectory() as folder, open_database(Path(folder)) as database:
            written = _written(database, paths[0]) if csv else ""
            columns, rows = _columns(database, paths, csv)
    except duckdb.Error as error:
        raise DataError(f"{paths[0]} cannot be read: {' '.join(str(error).split())[:300]}") from error
    binary = [column for column in columns if column.of_labels]
    labels = [column for column in binary if LABEL.search(column.name)] or binary[:1]
    if not labels:
        raise DataError(
            f"{paths[0]}: no column holds 0 and 1 alone, or true and false, in its first {rows:,} rows, so no column can be a label"
        )
    return _yaml(paths, written, [column for column in columns if column not in labels], labels, rows, inputs)


def _written(database: duckdb.DuckDBPyConnection, path: Path) -> str:
    found = database.execute(f"SELECT Delimiter, Quote FROM sniff_csv({sql_path(path)})").fetchone()
    assert found is not None
    delimiter, quote = found
    differs = {"delimiter": delimiter} if delimiter != "," else {}
    differs |= {"quote": quote} if quote not in ('"', "", "(empty)", "\0") else {}
    return f"csv: {{{', '.join(f'{key}: {json.dumps(value)}' for key, value in differs.items())}}}\n" if differs else ""


def _columns(database: duckdb.DuckDBPyConnection, paths: Sequence[Path], csv: bool) -> tuple[list[Column], int]:
    files = f"[{', '.join(map(sql_path, paths))}]"
    source = f"read_csv({files}, ignore_errors = true, union_by_name = true)" if csv else f"read_parquet({files}, union_by_name = true)"
    database.execute(f"CREATE TEMP VIEW sample AS SELECT * FROM {source} LIMIT {SAMPLE_ROWS}")
    kinds = {row[0]: str(row[1]) for row in database.execute("DESCRIBE sample").fetchall()}
    asked = ["count(*)"]
    for name, kind in kinds.items():
        quoted = '"' + name.replace('"', '""') + '"'
        number = f"min({quoted})::DOUBLE, max({quoted})::DOUBLE" if NUMBERS.match(kind) else "NULL, NULL"
        asked.append(f"approx_count_distinct({quoted}), count({quoted}), {number}")
    values = database.execute(f"SELECT {', '.join(asked)} FROM sample").fetchone()
    assert values is not None
    rows, columns = values[0], []
    for (name, kind), first in zip(kinds.items(), range(1, len(values), 4), strict=True):
        distinct, present, low, high = values[first : first + 4]
        exactly = (low, high) == (0, 1) and "INT" in kind
        columns.append(Column(name, kind, distinct, 1 - present / max(rows, 1), low, exactly or kind == "BOOLEAN"))
    return columns, rows


def _yaml(
    paths: Sequence[Path], written: str, features: Sequence[Column], labels: Sequence[Column], rows: int, inputs: Sequence[str]
) -> str:
    times = [
        column for column in features if re.match("DATE|TIMESTAMP", column.kind) or (TIME.search(column.name) and column.distinct > FEW)
    ]
    users = [column for column in features if USER.search(column.name) and column.distinct > FEW]
    categorical, numeric, left = [], [], []
    for column in features:
        key = f"column: {json.dumps(column.name, ensure_ascii=False)}"
        unique = column.kind == "VARCHAR" and column.distinct > 0.9 * rows and column not in users
        if column in times or column.distinct < 2 or unique or not (NUMBERS.match(column.kind) or column.kind in ("VARCHAR", "BOOLEAN")):
            why = "time" if column in times else "one value" if column.distinct < 2 else "every row another" if unique else "no field"
            why = "lists, a field with `max_values`" if LISTS.match(column.kind) else why
            left.append(f"#   {json.dumps(column.name, ensure_ascii=False)}: {column.about}: {why}")
        elif column.kind in ("VARCHAR", "BOOLEAN") or column.name.lower().endswith("id") or column in users or column.distinct <= FEW:
            hashed = ", hash_buckets: 1000000" if column.distinct > MANY else ""
            categorical.append(f"  - {{{key}{hashed}}}  # {column.about}")
        else:
            dense = "log1p" if column.lowest is not None and column.lowest >= 0 else "standardise"
            numeric.append(f"  - {{{key}, buckets: 32, dense: {dense}}}  # {column.about}")
    tasks = []
    for number, column in enumerate(labels):
        name = re.sub(r"\W", "_", column.name, flags=re.ASCII)
        name = name if re.match("[A-Za-z]", name) else f"task{number}_{name}"
        tasks.append(f"  - {{name: {name}, column: {json.dumps(column.name, ensure_ascii=False)}}}  # {column.about}")
    name = re.sub(r"[^a-z0-9._-]", "-", paths[0].name.split(".")[0].lower()).lstrip("._-") or "table"
    files = json.dumps([os.path.abspath(path) for path in inputs], ensure_ascii=False)
    in_files = "" if times or users else ", test_fraction: 0.2"
    split = f"split: {{time: {json.dumps(times[0].name)}, valid: 0.1, test: 0.2}}\n" if times else ""
    if users and not times:
        split = f"split: {{hash: {json.dumps(users[0].name)}, valid: 0.1, test: 0.2}}\n"
    parts = [
        f"# Drafted from the first {rows:,} rows. Check every line: the labels and their order, and columns known only after the event.\n",
        f"name: {name}\nfiles: {{all: {files}{in_files}}}\n{written}{split}",
        "tasks:  # in the order of the funnel\n" + "\n".join(tasks) + "\n",
        f"group: {json.dumps(users[0].name, ensure_ascii=False)}\n" if users else "",
        "categorical:\n" + "\n".join(categorical) + "\n" if categorical else "",
        "numeric:\n" + "\n".join(numeric) + "\n" if numeric else "",
        "# Left out:\n" + "\n".join(left) + "\n" if left else "",
    ]
    return "".join(parts)
