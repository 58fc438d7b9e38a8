"""Drafts the schema of a table from its first rows: candidates for labels, time and groups, fields and numbers. A person checks it."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from glob import has_magic
from pathlib import Path
from tempfile import TemporaryDirectory

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
            missing = missing_texts(database, paths) if csv else []
            written |= csv_options(database, paths[0], missing) if csv else {}
            source = csv_source(paths, written.get("decimal", "."), missing) if csv else parquet_source(paths)
            texts = csv_source(paths, as_text=True) if csv else None
            columns, rows = read_columns(database, source, texts, own_names(database, paths[0]))
            if not csv:  # DuckDB reads durations as numbers, and a schema cannot
                durations = {field.name for field in pq.read_schema(paths[0]) if pa.types.is_duration(field.type)}
                columns = [column._replace(kind="DURATION") if column.name in durations else column for column in columns]
            absent = lacking(database, paths) if len(paths) > 1 else {}
            partly = [column for column in columns if column.name in absent and column.name not in (tasks or ())]
            columns = [column for column in columns if column not in partly]
            left = [f"#   {_text(one.name)}: {one.about}: {absent[one.name].name} lacks it, as may other files" for one in partly]
            if rows:
                labels = _labels(columns, tasks, first, rows)
                is_funnel = len(labels) > 1 and implies(database, source, labels)
                features = [column for column in columns if column not in labels]
                times, users = _times(features), _users(features)
                whole = [one for one in features if one.is_whole and is_number(one.kind) and not _is_category(one, users)]
                whole = [one for one in whole if one.distinct <= rows / 2 and not _left_out(one, times, users, rows)]
                codes = find_codes(database, source, whole, labels, times, _groups(features, users, rows))
                ids = [one for one in features if one.values is None and (one.name in codes or _is_category(one, users))]
                ids = [one for one in ids if one.distinct > FEW / 2 and not _left_out(one, times, users, rows)]  # it is an estimate
                cells = read_ids(database, source, sorted(ids, key=lambda one: not _is_id(one)))
                remarks = {name: f": {_text(other)} says the same" for name, other in one_to_one(cells).items()}
                unique = [name for name, cell in cells.items() if name not in codes and nearly_unique(np.bincount(cell)[1:])]
                are_all = not any(len(cells[name]) > rows for name in unique)  # whoever comes back later is rare in the first rows
                remarks |= dict.fromkeys(unique, NEARLY_UNIQUE if are_all else ": nearly unique in these rows; is it so in all?")
    except duckdb.Error as error:
        words = re.split("LINE 1|Possible Solution", " ".join(str(error).split()))[0].strip()
        if "sniffing" in words:
            words = "no delimiter and quote cut its lines into cells; write it as CSV, with a header and a line for each row"
        raise DataError(f"{first} cannot be read: {words[:300]}") from error
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{first} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise DataError(f"{first} holds no rows; expected a header with the column names, and rows below it")
    return _yaml(written, missing, features, codes, remarks, labels, is_funnel, rows, inputs, left)


def _labels(columns: Sequence[Column], tasks: Sequence[str] | None, first: Path, rows: int) -> list[Column]:
    named = {column.name: column for column in columns if column.named}
    if tasks is not None:
        if unknown := [task for task in tasks if task not in named]:
            has = f"it has {', '.join(named)}"
            raise DataError(f"tasks: {first} has no column {unknown[0]!r}; {has}{did_you_mean(unknown[0], list(named))}")
        return [named[task] for task in tasks]
    binary = [column for column in named.values() if column.of_labels]
    # where no name tells, text of numbers, or with missing cells, comes last: it is more often a code or an answer than an event
    unlikely = [column for column in binary if column.kind == "VARCHAR" and (column.missing or column.numbers)]
    labels = [column for column in binary if LABEL.search(_words(column.name))]
    labels = labels or [*(column for column in binary if column not in unlikely), *unlikely][:1]
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
    codes: Collection[str],
    remarks: Mapping[str, str],
    labels: Sequence[Column],
    is_funnel: bool,
    rows: int,
    inputs: Sequence[str],
    left: list[str],
) -> str:
    times, users = _times(features), _users(features)
    categorical, numeric, numbers = [], list[str](), list[Column]()
    for column in features:
        key = f"column: {_text(column.name)}"
        remark = remarks.get(column.name, "")
        about = column.about + (": is it a label?" if column.of_labels else remark)
        if why := _left_out(column, times, users, rows) or (remark if remark == NEARLY_UNIQUE else ""):
            left.append(f"#   {_text(column.name)}: {column.about}: {why}")
        elif column.values is not None:
            cut = "" if column.separator is None else f', separator: "{column.separator}"'
            categorical.append(f"  - {{{key}, max_values: {column.values}{cut}}}  # {about}")
        elif _is_category(column, users):
            hashed = ", hash_buckets: 1000000" if column.distinct > MANY else ""
            categorical.append(f"  - {{{key}{hashed}}}  # {about}")
        else:
            numbers.append(column)
            if column.name in codes:
                categorical.append(f"  - {{{key}}}  # {about}: a code? It is a number below too")
    for column in numbers:
        # Buckets tell a missing cell from others, as a code does. And a schema needs a field.
        buckets = "buckets: 32, " if (column.missing and column.name not in codes) or not (categorical or numeric) else ""
        # Of the logarithm, one huge number does not make all others alike.
        numeric.append(f"  - {{column: {_text(column.name)}, {buckets}dense: log1p}}  # {column.about}")
    tasks: dict[str, str] = {}
    for number, column in enumerate(labels):
        name = re.sub(r"\W", "_", column.name, flags=re.ASCII)
        name = name if re.match("[A-Za-z]", name) and name not in tasks else f"task{number}_{name}"
        tasks[name] = f"  - {{name: {name}, column: {_text(column.name)}}}  # {column.about}"
    name = re.sub(r"[^a-z0-9_-]", "-", _name(inputs[0]).lower()).lstrip("_-") or "table"
    files = _text([os.path.abspath(path) for path in inputs])
    groups = _groups(features, users, rows)
    in_files = "" if times or groups else ", test_fraction: 0.2"
    by = [*(f"time: {_text(one.name)}" for one in times), *(f"hash: {_text(one.name)}" for one in groups)]
    split = f"split: {{{by[0]}, valid: 0.1, test: 0.2}}\n" if by else ""
    csv = f"csv: {{{', '.join(f'{key}: {_text(value)}' for key, value in written.items())}}}\n" if written else ""
    csv += f"missing_values: {_text(['', *missing])}\n" if missing else ""
    parts = [
        f"# Drafted from the first {rows:,} rows. Check every line: the labels and their order, and columns known only after the event.\n",
        f"name: {_text(name)}\nfiles: {{all: {files}{in_files}}}\n{csv}{split}",
        "tasks:  # in the order of the funnel\n" + "\n".join(tasks.values()) + "\n",
        "funnel: true  # in these rows each event implies the one before it\n" if is_funnel else "",
        f"group: {_text(groups[0].name)}\n" if groups else "",
        "categorical:\n" + "\n".join(categorical) + "\n" if categorical else "",
        "numeric:  # name one that is a code, such as of a city, as categorical\n" + "\n".join(numeric) + "\n" if numeric else "",
        "# Left out:\n" + "\n".join(left) + "\n" if left else "",
    ]
    return "".join(parts)


def _times(features: Sequence[Column]) -> list[Column]:
    """Those that a split by time may use, the event's first: it is the finest."""
    return sorted(filter(_is_time, features), key=lambda column: (-column.distinct, is_number(column.kind)))


def _users(features: Sequence[Column]) -> list[Column]:
    return [column for column in features if USER.search(_words(column.name)) and column.is_whole and column.distinct > FEW]


def _groups(features: Sequence[Column], users: Sequence[Column], rows: int) -> Sequence[Column]:
    """Those whose rows belong together: in one split, and in GAUC."""
    return users or [one for one in features if _is_of_a_request(one, rows)]


def _is_of_a_request(column: Column, rows: int) -> bool:
    """Whether rows of one request, such as those that one search showed, have a value of the column in common."""
    return bool(REQUEST.search(_words(column.name))) and column.is_whole and FEW < column.distinct <= EACH * rows


def _is_category(column: Column, users: Sequence[Column]) -> bool:
    """Whether the cells of a column that is no list are names, and no numbers, whatever the labels say."""
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
    unread = "bytes; where they are text, name it in categorical" if column.kind == "BLOB" else "no field"
    return "" if column.is_text or is_number(column.kind) else unread


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
