"""Drafts the schema of a table from its first rows: candidates for labels, time and groups, fields and numbers. A person checks it."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from glob import has_magic
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from ...errors import DataError, did_you_mean
from ..read.csv_files import found_encoding, write_plain
from ..read.sources import expand
from ..read.text_queries import open_database
from .draft_columns import NUMBERS, TIMES, Column, csv_options, csv_source, implies, missing_texts, own_names, parquet_source, read_columns

FEW, MANY = 50, 1_000_000
LABEL = re.compile(
    r"(^|_|is)(click|visit|view|like|share|follow|convers|convert|order|buy|bought|purchas|pay|paid|cart|label|target)", re.I
)
TIME = re.compile(r"(^|_)(time|date|day|timestamp|ts)(_|$|s$)", re.I)
USER = re.compile(r"(^|_)(user|member|customer|visitor|uid|session)", re.I)


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
    times = [column for column in features if _is_time(column)]
    users = [column for column in features if USER.search(column.name) and column.distinct > FEW and column.values is None and column.named]
    categorical, numeric, left = [], [], []
    for column in features:
        key, about = f"column: {_text(column.name)}", column.about + (": is it a label?" if column.of_labels else "")
        if why := _left_out(column, times, users, rows):
            left.append(f"#   {_text(column.name)}: {column.about}: {why}")
        elif column.values is not None:
            cut = "" if column.separator is None else f', separator: "{column.separator}"'
            categorical.append(f"  - {{{key}, max_values: {column.values}{cut}}}  # {about}")
        elif column.is_text or column.name.lower().endswith("id") or column in users or column.distinct <= FEW:
            hashed = ", hash_buckets: 1000000" if column.distinct > MANY else ""
            categorical.append(f"  - {{{key}{hashed}}}  # {about}")
        else:
            dense = "log1p" if column.lowest is not None and column.lowest >= 0 else "standardise"
            numeric.append(f"  - {{{key}, buckets: 32, dense: {dense}}}  # {column.about}")
    tasks: dict[str, str] = {}
    for number, column in enumerate(labels):
        name = re.sub(r"\W", "_", column.name, flags=re.ASCII)
        name = name if re.match("[A-Za-z]", name) and name not in tasks else f"task{number}_{name}"
        tasks[name] = f"  - {{name: {name}, column: {_text(column.name)}}}  # {column.about}"
    name = re.sub(r"[^a-z0-9_-]", "-", _name(inputs[0]).lower()).lstrip("_-") or "table"
    files = _text([os.path.abspath(path) for path in inputs])
    in_files = "" if times or users else ", test_fraction: 0.2"
    split = f"split: {{time: {_text(times[0].name)}, valid: 0.1, test: 0.2}}\n" if times else ""
    if users and not times:
        split = f"split: {{hash: {_text(users[0].name)}, valid: 0.1, test: 0.2}}\n"
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
    named = TIME.search(column.name) and column.distinct > FEW
    return column.named and bool((column.is_iso and (TIMES.match(column.kind) or named)) or (named and NUMBERS.match(column.kind)))


def _left_out(column: Column, times: Sequence[Column], users: Sequence[Column], rows: int) -> str:
    """Why no field or number is made of a column; empty if one is."""
    if column in times:
        return "time"
    if not column.named:
        return "its name in the file is empty, or that of another column; rename it there"
    if column.distinct < 2:
        return "one value"
    if column.of_labels and LABEL.search(column.name):
        return "a label? As a feature it would tell the events"
    if column.is_time and not column.is_iso:
        return "a time; write it as 2024-05-31 or 2024-05-31T23:59:00 to split by it"
    if column.values is not None:
        return ""
    if column.kind == "VARCHAR" and column.distinct > 0.9 * rows and column not in users:
        return "every row another"
    return "" if column.is_text or NUMBERS.match(column.kind) else "no field"


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
