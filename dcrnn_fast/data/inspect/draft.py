"""Drafts the schema of a table from its first rows: candidates for labels, time and groups, fields and numbers. A person checks it."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Collection, Sequence
from glob import has_magic
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError, did_you_mean
from ..read.columns import SPANS
from ..read.csv_files import found_encoding, write_plain
from ..read.row_files import expand
from ..read.text_queries import open_database
from .codes import find_codes
from .repeats import NEARLY_UNIQUE, nearly_unique, one_to_one
from .sample import (
    TIMES,
    Column,
    csv_options,
    csv_source,
    implies,
    is_number,
    json_text,
    lacking,
    missing_texts,
    own_names,
    parquet_source,
    read_columns,
    read_ids,
)

FEW, MANY, EACH = 50, 1_000_000, 0.9
"""At most FEW whole numbers are categories whatever their name. More than MANY ids are hashed. An id that is another one in more than EACH
of the rows that have it tells nothing."""
LABEL = re.compile(
    "(^|_|is)(click|visit|view|like|share|follow|convers|convert|order|buy|bought|purchas|pay|paid|cart|book|install(?!ment)|label|target)"
)
TIME, MOMENT = re.compile(r"(^|_)(time|date|day|timestamp|datetime|ts)s?(_|$)"), re.compile(r"(event_)?(time|date|timestamp|datetime|ts)$")
USER = re.compile(r"(^|_)((user|member|customer|visitor|session)(_?((uu|gu|pseudo_)?id|idx|index|no|nr|number|key|hash|code))?|uid)$")
REQUEST = re.compile(r"(^|_)(search|request|impression)_?((uu|gu)?id|idx|index|no|nr|number|key|hash)$")
ID = re.compile(r"(?!(.*_)?(bid|paid|unpaid|prepaid|grid|valid|invalid)$).*id$")
"""Names as :func:`_words` writes them. Many programs write an id without a mark, such as itemid; a few words end in these letters too."""
INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls an index without a name in a Parquet file."""


UNREAD = {"BLOB": "bytes; where they are text, name it in categorical", "DURATION": "durations; make a number of it, such as of seconds"}
"""Why no field is made of columns of some kinds."""
IS_LABEL, IS_CODE = "is it a label?", "a code? It is a number below too"
IS_SPAN = "durations? As a number, such as of seconds, the column would tell more"
"""Remarks about categories."""
COMMENTS = {
    "tasks": "in the order of the funnel",
    "funnel": "in these rows each event implies the one before it",
    "numeric": "name one that is a code, such as of a city, as categorical",
}
"""By key of a schema: what a person should know of it."""


class Draft(NamedTuple):
    """A drafted schema, as its file holds it, from so many first `rows`, and what a person should know of it.

    By column: `about` has the facts, `remarks` what is to be checked of a category, and `left` why the schema does not name a column.
    """

    schema: dict[str, Any]
    rows: int
    about: dict[str, str]
    remarks: dict[str, str]
    left: dict[str, str]

    def left_out(self, column: str) -> str:
        """What a person should know of a column that is left out."""
        return f"{json_text(column)}: {self.about[column]}: {self.left[column]}"


def draft(inputs: Sequence[str], *, tasks: Sequence[str] | None = None) -> Draft:
    """The draft of :func:`dcrnn_fast.data.draft_schema`, as data."""
    paths = [path for given in inputs for path in expand("the input", Path(os.path.abspath(given)))]
    csv, first = not paths[0].name.endswith(".parquet"), paths[0]
    paths = [path for path in paths if path.name.endswith(".parquet") != csv]
    try:
        with TemporaryDirectory() as folder, open_database(Path(folder)) as database:
            written = {}
            if csv and (encoding := found_encoding(first)) != "utf-8":
                written["encoding"], paths = encoding, [Path(folder) / "plain.csv"]  # The first file is enough for a draft.
                write_plain(first, paths[0], encoding)
            missing = missing_texts(database, paths) if csv else []
            written |= csv_options(database, paths[0], missing) if csv else {}
            source = csv_source(paths, written.get("decimal", "."), missing) if csv else parquet_source(paths)
            texts = csv_source(paths, as_text=True) if csv else None
            columns, rows = read_columns(database, source, texts, own_names(database, paths[0]))
            if not csv:  # DuckDB reads durations as numbers, and a schema cannot
                durations = {field.name for field in pq.read_schema(paths[0]) if pa.types.is_duration(field.type)}
                columns = [column._replace(kind="DURATION") if column.name in durations else column for column in columns]
            absent = lacking(database, paths) if len(paths) > 1 else {}
            about = {one.name: one.about for one in columns}
            lacks = {name: f"{file.name} lacks it, as may other files" for name, file in absent.items() if name not in (tasks or ())}
            columns = [column for column in columns if column.name not in lacks]
            if not rows:
                raise DataError("holds no rows; expected a header with the column names, and rows below it", table=str(first))
            labels = _labels(columns, tasks, first, rows)
            is_funnel = len(labels) > 1 and implies(database, source, labels)
            features = [column for column in columns if column not in labels]
            times = sorted(filter(_is_time, features), key=lambda one: (-one.distinct, is_number(one.kind)))  # the finest first
            users, groups = _users(features), _groups(features, rows)
            left = lacks | {one.name: why for one in features if (why := _left_out(one, times, users, rows))}
            read = [one for one in features if one.name not in left]
            whole = [one for one in read if one.is_whole and is_number(one.kind) and not _is_category(one, users)]
            codes = find_codes(database, source, [one for one in whole if one.distinct <= rows / 2], labels, times, groups)
            ids = [one for one in read if one.values is None and (one.name in codes or _is_category(one, users))]
            ids = [one for one in ids if one.distinct > FEW / 2]  # it is an estimate
            cells = read_ids(database, source, sorted(ids, key=lambda one: not _is_id(one)))
            remarks = {one.name: IS_SPAN for one in read if one.of_spans}
            remarks |= {name: f"{json_text(other)} says the same" for name, other in one_to_one(cells).items()}
            unique = [name for name, cell in cells.items() if name not in codes and nearly_unique(np.bincount(cell)[1:])]
            are_all = not any(len(cells[name]) > rows for name in unique)  # whoever comes back later is rare in the first rows
            left |= dict.fromkeys(unique, NEARLY_UNIQUE) if are_all else {}
            remarks |= {} if are_all else dict.fromkeys(unique, "nearly unique in these rows; is it so in all?")
            events = [one for one in read if one.is_text and one.distinct == 2 and LABEL.search(_words(one.name))]  # clicked, ignored
            remarks |= {one.name: IS_LABEL for one in read if one.of_labels or one in events}
            remarks |= {name: f"{remarks[name]}: {IS_CODE}" if name in remarks else IS_CODE for name in codes}
    except duckdb.Error as error:
        words = re.split("LINE 1|Possible Solution", " ".join(str(error).split()))[0].strip()
        if "sniffing" in words:
            words = "no delimiter and quote cut its lines into cells; write it as CSV, with a header and a line for each row"
        raise DataError(f"cannot be read: {words[:300]}", table=str(first)) from error
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or error}", table=str(first)) from error
    read = [one for one in read if one.name not in left]
    by = [*({"time": one.name} for one in times), *({"hash": one.name} for one in groups)]
    schema: dict[str, Any] = {
        "name": re.sub(r"[^a-z0-9_-]", "-", _name(inputs[0]).lower()).lstrip("_-") or "table",
        "files": {"all": [os.path.abspath(path) for path in inputs]} | ({} if by else {"test_fraction": 0.2}),
        "csv": written,
        "missing_values": ["", *missing] if missing else [],
        "split": by[0] | {"valid": 0.1, "test": 0.2} if by else {},
        "tasks": _tasks(labels),
        "funnel": is_funnel,
        "group": groups[0].name if groups else None,
        "categorical": (categorical := _categories(read, codes, users)),
        "numeric": _numbers([one for one in read if one.values is None and not _is_category(one, users)], codes, alone=not categorical),
    }
    schema = {key: value for key, value in schema.items() if value}
    return Draft(schema, rows, about, remarks, {name: left[name] for name in about if name in left})


def as_yaml(draft: Draft) -> str:
    """The file of a drafted schema."""
    check = "Check every line: the labels and their order, and columns known only after the event."
    lines = [f"# Drafted from the first {draft.rows:,} rows. {check}"]
    for key, value in draft.schema.items():
        comment = f"  # {COMMENTS[key]}" if key in COMMENTS else ""
        if key not in ("tasks", "categorical", "numeric"):
            lines.append(f"{key}: {_flow(value) if isinstance(value, dict) else json_text(value)}{comment}")
            continue
        lines.append(f"{key}:{comment}")
        for field in value:
            remark = draft.remarks.get(field["column"], "") if key == "categorical" else ""
            lines.append(f"  - {_flow(field)}  # {draft.about[field['column']]}{': ' if remark else ''}{remark}")
    lines += ["# Left out:"] if draft.left else []
    lines += [f"#   {draft.left_out(column)}" for column in draft.left]
    return "\n".join(lines) + "\n"


def _flow(value: dict[str, Any]) -> str:
    """A mapping in one line; names of tasks, and how a number is read, need no quotes."""
    written = {key: one if key in ("name", "dense") else json_text(one) for key, one in value.items()}
    return f"{{{', '.join(f'{key}: {one}' for key, one in written.items())}}}"


def _labels(columns: Sequence[Column], tasks: Sequence[str] | None, first: Path, rows: int) -> list[Column]:
    named = {column.name: column for column in columns if column.named}
    if tasks is not None:
        if unknown := [task for task in tasks if task not in named]:
            has = f"it has {', '.join(named)}{did_you_mean(unknown[0], list(named))}"
            raise DataError(f"has no column {unknown[0]!r}, which `tasks` names; {has}", table=str(first))
        return [named[task] for task in tasks]
    binary = [column for column in named.values() if column.of_labels]
    # where no name tells, text of numbers, or with missing cells, comes last: it is more often a code or an answer than an event
    unlikely = [column for column in binary if column.kind == "VARCHAR" and (column.missing or column.numbers)]
    labels = [column for column in binary if LABEL.search(_words(column.name))]
    labels = labels or [*(column for column in binary if column not in unlikely), *unlikely][:1]
    if not labels:
        raise DataError(
            f"has no column that holds 0 and 1 alone, or true and false, in its first {rows:,} rows: none is a label as it is; write the "
            "schema by hand, with a task such as {name: click, column: event, positive: [click]} or {name: long_view, column: seconds, "
            "threshold: 30}",
            table=str(first),
        )
    return labels


def _tasks(labels: Sequence[Column]) -> list[dict[str, Any]]:
    tasks: dict[str, str] = {}
    for number, column in enumerate(labels):
        name = re.sub(r"\W", "_", column.name, flags=re.ASCII)
        tasks[name if re.match("[A-Za-z]", name) and name not in tasks else f"task{number}_{name}"] = column.name
    return [{"name": name, "column": column} for name, column in tasks.items()]


def _categories(read: Sequence[Column], codes: Collection[str], users: Sequence[Column]) -> list[dict[str, Any]]:
    found = []
    for column in read:
        if column.values is not None:
            cut = {} if column.separator is None else {"separator": column.separator}
            found.append({"column": column.name, "max_values": column.values} | cut)
        elif _is_category(column, users):
            found.append({"column": column.name} | ({"hash_buckets": 1_000_000} if column.distinct > MANY else {}))
        elif column.name in codes:
            found.append({"column": column.name})
    return found


def _numbers(numbers: Sequence[Column], codes: Collection[str], *, alone: bool) -> list[dict[str, Any]]:
    # Buckets tell a missing cell from others, as a code does. And a schema needs a field.
    bucketed = {one.name for one in numbers if one.missing and one.name not in codes} | {one.name for one in numbers[:1] if alone}
    # Of the logarithm, one huge number does not make all others alike.
    return [{"column": one.name} | ({"buckets": 32} if one.name in bucketed else {}) | {"dense": "log1p"} for one in numbers]


def _users(features: Sequence[Column]) -> list[Column]:
    return [column for column in features if USER.search(_words(column.name)) and column.is_whole and column.distinct > FEW]


def _groups(features: Sequence[Column], rows: int) -> Sequence[Column]:
    """Those whose rows belong together: in one split, and in GAUC."""
    return _users(features) or [one for one in features if _is_of_a_request(one, rows)]


def _is_of_a_request(column: Column, rows: int) -> bool:
    """Whether rows of one request, such as those that one search showed, have a value of the column in common."""
    return bool(REQUEST.search(_words(column.name))) and column.is_whole and FEW < column.distinct <= EACH * rows


def _is_category(column: Column, users: Sequence[Column]) -> bool:
    """Whether the cells of a column that is not a list are names, not numbers, whatever the labels say."""
    return column.is_text or _is_id(column) or (column.is_whole and (column in users or column.distinct <= FEW))


def _is_id(column: Column) -> bool:
    """Whether whole numbers are ids by their name, or because no float holds them."""
    return column.is_whole and bool(column.is_hash or ID.match(_words(column.name)))


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
    return bool(is_moment or (TIME.search(name) and any(a <= low <= high <= b for a, b in SPANS.values())))


def _words(name: str) -> str:
    """A name in lower case with _ between its words, as in user_id for userId."""
    return re.sub(r"\W+", "_", re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name)).lower()


def _left_out(column: Column, times: Sequence[Column], users: Sequence[Column], rows: int) -> str:
    """Why no field or number is made of a column; empty if one is."""
    if column in times:
        return "time; derive its hour or weekday to use it"
    if not column.named:
        return "its name in the file is empty, or that of another column; rename it there"
    if column.distinct + (column.missing > 0) < 2:
        return "one value"
    if INDEX.fullmatch(column.name):
        return "the index that pandas hides; rows that are scored would lack it"
    if column.missing and _is_time(column._replace(missing=0.0)):
        return "a time that some rows lack: a split by time needs all"
    if (column.of_labels or column.distinct == 1) and LABEL.search(_words(column.name)):
        return "a label? As a feature it would tell the events"
    if column.is_time and not column.is_iso:
        return "a time; write it as 2024-05-31 or 2024-05-31T23:59:00 to split by it"
    if column.values is not None:
        return ""
    if (column.kind == "VARCHAR" or _is_id(column)) and column.distinct > EACH * rows * (1 - column.missing) and column not in users:
        return "every row another"
    if _is_of_a_request(column, rows):
        return "a request's; those to come have others"
    return "" if column.is_text or is_number(column.kind) else UNREAD.get(column.kind, "no field")


def _name(given: str) -> str:
    """The name of a table: the name of its file or folder, or of the folder that a pattern looks in."""
    path = Path(os.path.abspath(given))
    while has_magic(str(path)):
        path = path.parent
    return path.name.split(".")[0]
