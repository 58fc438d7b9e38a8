"""The schema by which a :class:`~dcrnn_fast.FunnelClassifier` reads its rows: drafted from them, or that of an earlier run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ..data.inspect.draft import draft
from ..data.schema.table import schema_of
from ..errors import DataError, printable, shown
from ..training import Report
from ..training.folder.layout import RunFolder
from .arguments import funnel_problem, names_of, notes_of

if TYPE_CHECKING:
    from .. import FunnelClassifier

NAME = "frame"
"""Of the data, in the run's files."""
NUMBER = {"buckets": 32, "dense": "log1p"}
"""How a column that is named in ``numeric`` is read where the draft does not take it for a number."""


def wanted_columns(model: FunnelClassifier, tasks: list[str], given: Mapping[str, Any], weight: str | None) -> set[Any] | None:
    """The columns that the arguments name, if they name all fields."""
    if given["categorical"] is None or given["numeric"] is None:
        return None
    fields = [one for several in given.values() for one in several or ()]
    fields += [one["where"] for one in fields if isinstance(one.get("where"), Mapping)]
    return {*tasks, model.time, model.group, weight, *(one.get(key) for one in fields for key in ("column", "by", "time"))} - {None}


def drafted_schema(
    model: FunnelClassifier, paths: Sequence[Path], tasks: list[str], given: Mapping[str, Any], weight: str | None, report: Report
) -> dict[str, Any]:
    """The schema of the rows: drafted, except what the arguments say. Reports what is read, and what the draft leaves out."""
    kinds = {field.name: field.type for field in pq.read_schema(paths[0])}
    drafted = draft([str(paths[0])], tasks=tasks)
    schema = {key: value for key, value in drafted.schema.items() if key not in ("files", "split")} | {"name": NAME}
    numbers = {one["column"]: one for one in schema.get("numeric", ())}
    named = [one["column"] for kind in ("categorical", "numeric") for one in given[kind] or ()]
    for kind, value in given.items():
        found = [one for one in schema.get(kind, ()) if one["column"] not in (model.time, weight, *named)]
        schema[kind] = found if value is None else value
    schema["numeric"] = [one if one.keys() - {"column"} else numbers.get(one["column"], one | NUMBER) for one in schema["numeric"]]
    if not any(schema[kind] for kind in given):
        left = f": it leaves out {' '.join(map(drafted.left_out, drafted.left))}" if drafted.left else ""
        raise DataError(f"has no column to learn from, apart from those of tasks{left}", table="X")
    for one in schema["numeric"]:
        if one["column"] in names_of(schema["categorical"]) and one not in (given["numeric"] or ()):
            one.pop("buckets", None)  # one field says which cells are missing
    if not schema["categorical"] and schema["numeric"] and not any("buckets" in one for one in schema["numeric"]):
        schema["numeric"][0]["buckets"] = NUMBER["buckets"]  # a schema needs a field
    for column in (one["column"] for one in schema["categorical"]):
        if pa.types.is_timestamp(kind := kinds.get(column, pa.null())) or pa.types.is_time(kind):
            problem = f"is of type {kind}, which has another text in each unit; make its hour, or a text, of it"
            raise DataError(problem, table="categorical", column=column)
    others = {"group": model.group, "weight": weight, "funnel": model.funnel, "train_only": model.train_only}
    schema |= {key: value for key, value in others.items() if value is not None}
    if model.funnel is None and len(tasks) > 1 and (broken := funnel_problem(paths, tasks)):
        schema.pop("funnel", None)
        warnings.warn(printable(broken), stacklevel=4)
    for line in notes_of(drafted, schema, given, kinds, (model.time, weight, model.group)):
        report.note(line)
    return schema


def earlier_schema(model: FunnelClassifier, run: Path, tasks: list[str], given: Mapping[str, Any], weight: str | None) -> dict[str, Any]:
    """The schema of an earlier run. Raises DataError where the arguments say something else."""
    if not (file := RunFolder(run).schema).is_file():
        raise DataError(f"init: the run in {run} keeps no schema ({file.name}), so nothing says how to read X")
    schema: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    schema = {key: value for key, value in schema.items() if key not in ("files", "split")}
    was = {"group": None, "weight": None, "funnel": False} | schema | {"tasks": names_of(schema["tasks"])}
    was |= {kind: sorted(names_of(schema.get(kind, ()))) for kind in given}
    now = {"tasks": tasks, "group": model.group, "weight": weight, "funnel": model.funnel}
    now |= {kind: sorted(names_of(value)) for kind, value in given.items() if value is not None}
    for argument, value in now.items():
        if value is not None and value != was[argument]:
            has = f"init has {shown(was[argument])}, and its schema reads X"
            raise DataError(f"{argument}={shown(value)}: {has}; give the same, or fit without init")
    asked = dict(schema) if model.train_only is None else schema | {"train_only": list(model.train_only)}
    for kind in given.keys() & schema.keys():
        told = {names_of([one])[0]: one for one in given[kind] or () if len(one) > 1}
        asked[kind] = [told.get(names_of([one])[0], one) for one in schema[kind]]
    files = {"files": {"train": "X", "test": "X"}}
    was, now = (schema_of(one | files, "of these arguments").model_dump() for one in (schema, asked))
    for argument in (key for key in was if was[key] != now[key]):
        has = f"init has {shown(schema.get(argument))}, and its schema reads X"
        raise DataError(f"{argument}={shown(asked[argument])}: {has}; give the same, or fit without init")
    return schema
