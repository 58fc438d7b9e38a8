"""The part of a schema that derives columns: parts of a time, values of cells that hold several, and crosses of columns."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from pydantic import Field, model_validator

from .files import Column, Strict

MAX_VALUES = 1000
"""The most values that a field may have."""

_KEYS = {"as": "as", "unit": "as", "timezone": "as", "value": "value", "separator": "value"}
"""By key of a column that is made of one other: the key that it needs."""


class Derived(Strict):
    """A column that is computed from others: `as` a part of the time in `column`, a `value` of its cells, or the `cross` of columns.

    Numbers count from 1970-01-01 UTC in `unit`, seconds by default. Times that have a zone, and numbers, are told in `timezone`, by default
    UTC; times without one are taken as they are written. Values count from 0; `separator` cuts cells of text.

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
    value: int | None = Field(default=None, ge=0, lt=MAX_VALUES, strict=True)
    separator: str | None = Field(default=None, min_length=1)
    cross: tuple[Column, ...] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Derived:
        if self.cross is not None:
            given = [f"`{key}`" for key in ("column", *_KEYS) if self._is_given(key)]
            if given:
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
        return self.cross if self.cross is not None else (str(self.column),)

    def definition(self) -> dict[str, Any]:
        """Its keys in the schema but for the name, as JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"name"})


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


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
