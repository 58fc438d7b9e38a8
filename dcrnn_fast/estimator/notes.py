"""What `fit` of a :class:`~dcrnn_fast.FunnelClassifier` says of the columns: which it reads, as what, and which it leaves out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
import yaml

from ..data.inspect.repeats import NEARLY_UNIQUE
from .arguments import names_of


def notes_of(
    draft: str, schema: Mapping[str, Any], given: Mapping[str, Any], kinds: Mapping[str, pa.DataType], aside: Collection[str | None]
) -> Iterator[str]:
    """A line for each thing that a person should know.

    Args:
        draft: the drafted schema as text, whose comments say what it found.
        schema: the schema that the rows are read by: the draft, but for what the arguments say.
        given: the fields that the arguments name, by their key in a schema; None for a key that no argument gives.
        kinds: the types of the table's columns.
        aside: the columns of the time, the weight and the group.
    """
    drafted = yaml.safe_load(draft)
    read = list(dict.fromkeys(names_of(one for kind in given for one in schema[kind])))
    yield f"reads {', '.join(read)}"
    numbers = [name for name in names_of(schema["numeric"]) if name not in names_of(given["numeric"] or ())]
    if codes := [name for name in numbers if name in names_of(schema["categorical"])]:
        yield f"reads {', '.join(codes)} as codes and as numbers: name one in categorical or numeric to read it in one way"
    if whole := [name for name in numbers if name not in codes and pa.types.is_integer(kinds.get(name, pa.null()))]:
        yield f"reads {', '.join(whole)} as numbers: name those that are codes, such as of a city, in categorical too"
    asked = [line.partition("column: ")[2] for line in draft.splitlines() if line.endswith(": is it a label?")]
    if events := [name for name in read if any(one.startswith(json.dumps(name, ensure_ascii=False)) for one in asked)]:
        yield f"reads {', '.join(events)}, each of two values: leave out those that are known only after the event"
    found = dict.fromkeys(names_of(one for kind in given for one in drafted.get(kind, ())))
    if unnamed := [name for name in found if name not in (*read, *aside)]:
        yield f"leaves out {', '.join(unnamed)}: categorical and numeric, if given, name all columns of their kind"
    for column, name in ((task["column"], task["name"]) for task in schema["tasks"]):
        if name != column:
            yield f"calls the task of column {column!r} {name}"
    if "funnel" not in schema and len(schema["tasks"]) > 1:
        yield "takes the tasks for independent: some row has a later event without the one before it, or none has the last"
    for line in draft.partition("# Left out:\n")[2].splitlines():
        if not line.startswith(tuple(f'#   "{name}": ' for name in read)):
            is_unique = line.endswith(f": {NEARLY_UNIQUE}")
            yield f"{json.JSONDecoder().raw_decode(line, 4)[0]} is {NEARLY_UNIQUE}" if is_unique else f"leaves out {line.strip('# ')}"
