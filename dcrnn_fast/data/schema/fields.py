"""The parts of a schema: columns that are derived from others, categories, tasks, and histories of what came before a row."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ...errors import shown
from .files import Column, Strict

MAX_VALUES = 1000
"""The most values that a field may have."""

_KEYS = {"as": "as", "unit": "as", "timezone": "as", "zoned": "as", "value": "value", "separator": "value"}
"""By key of a column that is made of one other: the key that it needs."""
TASK_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"


class Derived(Strict):
    """A column that is computed from others: `as` a part of the time in `column`, a `value` of its cells, or the `cross` of columns.

    Numbers count from 1970-01-01 UTC in `unit`, seconds by default. Times that have a zone, and numbers, are told in `timezone`, by default
    UTC; times without one are taken as they are written. `zoned` says which of these the times are, in all rows; `prepare` learns it.
    Values count from 0; `separator` cuts cells of text.

    >>> Derived(**{"name": "hour", "column": "time", "as": "hour"}).sources()
    ('time',)
    >>> Derived(name="city_x_device", cross=["city", "device"]).sources()
    ('city', 'device')
    """

    name: Column
    column: Column | None = None
    part: Literal["hour", "weekday", "day"] | None = Field(default=None, alias="as")
    unit: Literal["s", "ms", "us", "ns"] | None = None
    timezone: str | None = None
    zoned: bool | None = Field(default=None, strict=True)
    value: int | None = Field(default=None, ge=0, lt=MAX_VALUES, strict=True)
    separator: str | None = Field(default=None, min_length=1)
    cross: tuple[Column, ...] | None = None
    constant: str | None = None
    """What an encoder of rows in memory reads in every row; a schema states it under `train_only`."""

    @model_validator(mode="after")
    def _one_way(self) -> Derived:
        if self.constant is not None:
            if given := [key for key in ("column", "cross", *_KEYS) if self._is_given(key)]:
                raise ValueError(f"derived column {self.name!r}: `constant` and `{given[0]}` exclude each other")
            return self
        if self.cross is not None:
            if given := [f"`{key}`" for key in ("column", *_KEYS) if self._is_given(key)]:
                raise ValueError(f"derived column {self.name!r}: `cross` and {', '.join(given)} exclude each other")
            if len(self.cross) < 2 or len(set(self.cross)) < len(self.cross):
                raise ValueError(f"derived column {self.name!r}: `cross` is {list(self.cross)}, expected two or more different columns")
        elif self.column is None or (self.part is None) == (self.value is None):
            raise ValueError(
                f"derived column {self.name!r} needs a `column` with `as` (hour, weekday or day) or with `value`, or a `cross` of columns"
            )
        way = "as" if self.value is None else "value"
        if stray := [f"`{key}`" for key, belongs in _KEYS.items() if belongs != way and self._is_given(key)]:
            raise ValueError(f"derived column {self.name!r}: {', '.join(stray)} and `{way}` exclude each other")
        if self.timezone is not None and not _is_zone(self.timezone):
            raise ValueError(f"derived column {self.name!r}: timezone is {self.timezone!r}, expected a known one, such as Europe/Berlin")
        return self

    def _is_given(self, key: str) -> bool:
        return getattr(self, "part" if key == "as" else key) is not None

    def sources(self) -> tuple[str, ...]:
        """The columns that it reads."""
        if self.constant is not None:
            return ()
        return self.cross if self.cross is not None else (str(self.column),)

    def definition(self) -> dict[str, Any]:
        """Its keys in the schema without the name, as JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"name"})


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def zoned_columns(definitions: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """By column of times, whether they have a zone or are numbers, as far as the definitions of derived columns say."""
    return {one["column"]: one["zoned"] for one in definitions.values() if "zoned" in one}


def derived_columns(definitions: Mapping[str, Mapping[str, Any]]) -> tuple[Derived, ...]:
    """The derived columns of a :attr:`dcrnn_fast.data.PackedMeta.derived`, as :func:`dcrnn_fast.data.read.derive.with_derived` takes them.

    Raises ValueError for what defines none.

    >>> [one.name for one in derived_columns({"a": {"cross": ["hour", "city"]}, "hour": {"column": "time", "as": "hour"}})]
    ['hour', 'a']
    """
    return in_order([Derived.model_validate({**definition, "name": name}) for name, definition in definitions.items()])


def in_order(derived: Sequence[Derived]) -> tuple[Derived, ...]:
    """The derived columns, each behind the ones that it reads. Raises ValueError for a repeated name and for a circle of columns."""
    by_name = {one.name: one for one in derived}
    twice = sorted({one.name for one in derived if by_name[one.name] is not one})
    if twice:
        raise ValueError(f"derived column named twice: {', '.join(twice)}")
    for one in derived:
        if one.column in by_name:
            raise ValueError(
                f"derived column {one.name!r} is a part of {one.column!r}, which is derived and no time or list; name a column of the files"
            )
    try:
        order = TopologicalSorter({one.name: [name for name in one.sources() if name in by_name] for one in derived}).static_order()
        return tuple(by_name[name] for name in order)
    except CycleError as error:
        circle = " is read by ".join(map(repr, error.args[1]))
        raise ValueError(f"derived columns need themselves: {circle}; give one another name") from None


class TrainOnly(Strict):
    """A categorical column that is known in training alone, such as the position of an item: scoring reads it as `score_as` in every row.

    >>> TrainOnly(column="position", score_as=1).score_as
    '1'
    """

    column: Column
    score_as: Annotated[str, BeforeValidator(lambda value: _spelled(value))]


def _spelled(value: Any) -> Any:
    """A truth value or whole number as a vocabulary spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value


class Categorical(Strict):
    """A column whose values are categories, compared as text. `min_count` overrides the schema's. `hash_buckets` learns no vocabulary.

    `same_ids_as` names another categorical column: a text then has the same id, and the same embedding, in both. With `max_values` a cell
    holds several values, a list or text with a `separator`, of which the first `max_values` count; `pooling`, "mean" by default, or "sum"
    says how a model makes one vector of their embeddings.

    >>> Categorical(column="city", min_count=10).column
    'city'
    >>> Categorical(column="tags", max_values=2, separator="|").value_columns
    ('tags[0]', 'tags[1]')
    """

    column: Column
    min_count: int | None = Field(default=None, ge=1)
    hash_buckets: int | None = Field(default=None, ge=2, le=2**31 - 2)
    same_ids_as: Column | None = None
    max_values: int | None = Field(default=None, ge=1, le=MAX_VALUES, strict=True)
    separator: str | None = Field(default=None, min_length=1)
    pooling: Literal["mean", "sum"] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Categorical:
        if self.same_ids_as is not None and (self.min_count is not None or self.hash_buckets is not None):
            raise ValueError(
                f"column {self.column!r} has the ids of {self.same_ids_as!r}: state `min_count` or `hash_buckets` there, for both columns"
            )
        if self.min_count is not None and self.hash_buckets is not None:
            raise ValueError(f"column {self.column!r}: `min_count` and `hash_buckets` exclude each other: a hashed field counts nothing")
        stray = [f"`{key}`" for key in ("separator", "pooling") if getattr(self, key) is not None]
        if self.max_values is None and stray:
            raise ValueError(f"column {self.column!r}: {' and '.join(stray)} need `max_values`, the most values of a cell")
        return self

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The names of its columns of ids: one for each value, or its own."""
        return (self.column,) if self.max_values is None else tuple(f"{self.column}[{place}]" for place in range(self.max_values))

    def columns(self, owner: str | None) -> tuple[Categorical, ...]:
        """Its columns of ids as categorical columns; `owner` is the column that has the ids of `same_ids_as`.

        >>> [one.same_ids_as for one in Categorical(column="tags", max_values=3).columns(None)]
        [None, 'tags[0]', 'tags[0]']
        """
        first, *others = self.value_columns
        own = Categorical(column=first, min_count=self.min_count, hash_buckets=self.hash_buckets, same_ids_as=owner)
        return own, *(Categorical(column=column, same_ids_as=owner or first) for column in others)

    def derived(self) -> tuple[Derived, ...]:
        """Where it has several values: how each column of ids is made of its own."""
        if self.max_values is None:
            return ()
        return tuple(
            Derived(name=name, column=self.column, value=place, separator=self.separator) for place, name in enumerate(self.value_columns)
        )


def _positives(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, (str, int)):
            raise ValueError(f"`positive` takes text, integers, true and false, got {shown(item)}: put it in quotes")
    return tuple(item if isinstance(item, bool) else str(item) for item in values)


class Rule(Strict):
    """A rule for events: the column as it is, or `column in positive`, or `column >= threshold`. A missing value is unknown.

    A column as it is holds 0 and 1, or true and false. In `positive`, True stands for the texts true, yes, on, t and y in any case.

    >>> Rule(column="seconds", threshold=18).threshold
    18.0
    """

    column: Column
    positive: Annotated[tuple[str | bool, ...], BeforeValidator(_positives)] | None = None
    threshold: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_rule(self) -> Rule:
        if self.positive is not None and self.threshold is not None:
            raise ValueError(f"{self.title}: `positive` and `threshold` exclude each other")
        if self.positive == ():
            raise ValueError(f"{self.title}: `positive` is empty")
        return self

    @property
    def title(self) -> str:
        """How a message names it."""
        return "a history's `where`"


class Task(Rule):
    """A 0/1 label by name; where its rule gives no event it is 0, and where the rule's column is missing it is unknown.

    >>> Task(name="long_view", column="seconds", threshold=18).title
    "task 'long_view'"
    """

    name: str = Field(pattern=TASK_NAME)

    @property
    def title(self) -> str:
        """How a message names it."""
        return f"task {self.name!r}"


def _kind(value: Any) -> str:
    return "rule" if isinstance(value, (dict, Rule)) else "task"


Where = Annotated[Annotated[Column, Tag("task")] | Annotated[Rule, Tag("rule")], Discriminator(_kind)]


class History(Strict):
    """A field of the `last` values that the categorical column `of` had in earlier rows with the same `by`, the most recent first.

    Earlier are the rows whose `time` is less than the row's own, by more than `lag` seconds. `where`, a task's name or a rule, counts only
    those rows in which its event happened. `unit` says what numbers in `time` count, seconds by default. `pooling` is that of a
    :class:`Categorical` with several values.

    >>> History(name="last_items", of="item_id", by="user_id", time="timestamp", last=20).pooling is None
    True
    """

    name: Column
    of: Column
    by: Column
    time: Column
    last: int = Field(ge=1, le=MAX_VALUES, strict=True)
    where: Where | None = None
    lag: float = Field(default=0.0, ge=0, allow_inf_nan=False, strict=True)
    unit: Literal["s", "ms", "us", "ns"] | None = None
    pooling: Literal["mean", "sum"] | None = None

    @model_validator(mode="after")
    def _unit_of_a_lag(self) -> History:
        if self.unit is not None and not self.lag:
            raise ValueError(
                f"history {self.name!r}: `unit` says what numbers in `time` count where there is a `lag`, and there is none: leave it out"
            )
        return self
