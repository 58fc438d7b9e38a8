"""What `fit` of a :class:`~dcrnn_fast.FunnelClassifier` says of the columns: which it reads, as what, and which it leaves out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa

from ..data.inspect.draft import IS_LABEL, IS_SPAN, Draft
from ..data.inspect.repeats import NEARLY_UNIQUE
from .arguments import names_of


def notes_of(
    drafted: Draft, schema: Mapping[str, Any], given: Mapping[str, Any], kinds: Mapping[str, pa.DataType], aside: Collection[str | None]
) -> Iterator[str]:
    """A line for each thing that a person should know of ``schema``: the draft, but for the fields that the arguments name.

    These are ``given`` by their key in a schema, None for one that no argument gives. ``kinds`` are the types of the table's columns, and
    ``aside`` the columns of the time, the weight and the group.
    """
    read = list(dict.fromkeys(names_of(one for kind in given for one in schema[kind])))
    categories, named = names_of(schema["categorical"]), names_of(given["numeric"] or ())
    numbers = [name for name in names_of(schema["numeric"]) if name not in named]
    codes, events = [one for one in numbers if one in categories], [one for one in read if drafted.remarks.get(one) == IS_LABEL]
    whole = [name for name in numbers if name not in categories and pa.types.is_integer(kinds.get(name, pa.null()))]
    remarks = {
        "": read,
        " as codes and as numbers: name one in categorical or numeric to read it in one way": codes,
        " as numbers: name those that are codes, such as of a city, in categorical too": whole,
        ", each of two values: leave out those that are known only after the event": events,
        f" as categories, which hold {IS_SPAN}": [name for name in categories if drafted.remarks.get(name) == IS_SPAN],
    }
    yield from (f"reads {', '.join(names)}{remark}" for remark, names in remarks.items() if names)
    found = dict.fromkeys(names_of(one for kind in given for one in drafted.schema.get(kind, ())))
    if unnamed := [name for name in found if name not in (*read, *aside)]:
        yield f"leaves out {', '.join(unnamed)}: categorical and numeric, if given, name all columns of their kind"
    yield from (f"calls the task of column {one['column']!r} {one['name']}" for one in schema["tasks"] if one["name"] != one["column"])
    if "funnel" not in schema and len(schema["tasks"]) > 1:
        yield "takes the tasks for independent: some row has a later event without the one before it, or none has the last"
    for name, why in drafted.left.items():
        if name not in read:
            yield f"{name} is {NEARLY_UNIQUE}" if why == NEARLY_UNIQUE else f"leaves out {drafted.left_out(name)}"
