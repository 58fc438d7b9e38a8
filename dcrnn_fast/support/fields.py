"""Which columns of ids share embeddings, and which form a field with several values, whose embeddings a model adds up or averages.

`pooled` maps each field with several values to its columns, which follow each other and read one embedding, and to how they become a
vector: `{"genres": {"columns": ["genres[0]", "genres[1]"], "pooling": "mean"}}`. Id 0 is not a value.
Needs the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import shown

POOLINGS = ("mean", "sum")


def pooling_problem(pooled: Mapping[Any, Any], columns: Sequence[str], shared: Mapping[str, str]) -> str | None:
    """The problem with `pooled`, as a message states it behind the name; None where it fits a model's columns.

    >>> from dcrnn_fast.support.fields import pooling_problem
    >>> pooling_problem({"a": {"columns": ["a[0]", "a[1]"], "pooling": "mean"}}, ["a[0]", "city", "a[1]"], {"a[1]": "a[0]"})
    "['a']: its columns 'a[0]', 'a[1]' do not follow each other"
    """
    position = {column: place for place, column in enumerate(columns)}
    taken: set[str] = set()
    for name, pool in pooled.items():
        if not isinstance(name, str) or name in position:
            return f" names the field {shown(name)}, expected a name that no column of ids has"
        if not isinstance(pool, Mapping) or pool.keys() != {"columns", "pooling"}:
            return f"[{name!r}] is {shown(pool)}, expected a mapping with columns and pooling"
        own = pool["columns"]
        if not isinstance(own, (list, tuple)) or not own or not all(isinstance(column, str) and column in position for column in own):
            return f"[{name!r}]: its columns are {shown(own)}, expected a list of columns of ids"
        if pool["pooling"] not in POOLINGS:
            return f"[{name!r}]: its pooling is {shown(pool['pooling'])}, expected one of {', '.join(map(repr, POOLINGS))}"
        its_columns = f"its columns {', '.join(map(repr, own[:3]))}{', ...' if len(own) > 3 else ''}"
        if [position[column] for column in own] != list(range(position[own[0]], position[own[0]] + len(own))):
            return f"[{name!r}]: {its_columns} do not follow each other"
        if taken.intersection(own):
            return f"[{name!r}]: {its_columns} belong to another field too"
        if len({shared.get(column, column) for column in own}) > 1:
            return f"[{name!r}]: {its_columns} have embeddings of their own, expected one that they share"
        taken.update(own)
    return None


def first_columns(pooled: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """By field, in the order of the columns: its column, or the first of its columns where it has several values.

    >>> from dcrnn_fast.support.fields import first_columns
    >>> first_columns({"genres": {"columns": ["genres[0]", "genres[1]"], "pooling": "sum"}}, ["city", "genres[0]", "genres[1]"])
    {'city': 'city', 'genres': 'genres[0]'}
    """
    field_of = {column: name for name, pool in pooled.items() for column in pool["columns"]}
    first: dict[str, str] = {}
    for column in columns:
        first.setdefault(field_of.get(column, column), column)
    return first


def table_rows(names: Sequence[str], sizes: Sequence[int], shared: Mapping[str, str]) -> tuple[int, list[int]]:
    """The number of rows of the merged table, and the row at which each field's start: of a field in ``shared``, those of another one.

    >>> from dcrnn_fast.support.fields import table_rows
    >>> table_rows(["user", "last_item", "item"], [3, 5, 5], {"last_item": "item"})
    (8, [0, 3, 3])
    """
    rows, start = 0, {}
    for name, size in zip(names, sizes, strict=True):
        if name not in shared:
            start[name] = rows
            rows += size
    return rows, [start[shared.get(name, name)] for name in names]
