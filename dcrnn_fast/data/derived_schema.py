"""The part of a schema that derives columns: parts of a time, and crosses of columns."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from pydantic import Field, model_validator

from .file_schema import Column, Strict


class Derived(Strict):
    """A column that is computed from others: `as` a part of the time in `column`, or the `cross` of several columns.

    Numbers count from 1970-01-01 UTC in `unit`, seconds by default. Times that have a zone, and numbers, are told in `timezone`, by default
    UTC; times without one are taken as they are written.

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
    cross: tuple[Column, ...] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Derived:
        if self.cross is not None:
            given = [key for key, value in self._of_time().items() if value is not None]
            if given:
                raise ValueError(f"derived column {self.name!r}: `cross` and {', '.join(given)} exclude each other")
            if len(self.cross) < 2 or len(set(self.cross)) < len(self.cross):
                raise ValueError(f"derived column {self.name!r}: `cross` is {list(self.cross)}, expected two or more different columns")
        elif self.column is None or self.part is None:
            raise ValueError(f"derived column {self.name!r} needs a `column` with `as` (hour, weekday or day), or a `cross` of columns")
        if self.timezone is not None and not _is_zone(self.timezone):
            raise ValueError(f"derived column {self.name!r}: timezone is {self.timezone!r}, expected a known one, such as Europe/Berlin")
        return self

    def _of_time(self) -> dict[str, str | None]:
        return {"`column`": self.column, "`as`": self.part, "`unit`": self.unit, "`timezone`": self.timezone}

    def sources(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return self.cross if self.cross is not None else (str(self.column),)

    def definition(self) -> dict[str, Any]:
        """What the schema says of it but for its name, as JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"name"})


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def derived_columns(definitions: Mapping[str, Mapping[str, Any]]) -> tuple[Derived, ...]:
    """The derived columns of a :attr:`dcrnn_fast.data.PackedMeta.derived`, as :func:`dcrnn_fast.data.derived.with_derived` takes them.

    Raises ValueError for what defines none.

    >>> [one.name for one in derived_columns({"a": {"cross": ["hour", "city"]}, "hour": {"column": "time", "as": "hour"}})]
    ['hour', 'a']
    """
    return in_order([Derived.model_validate({**definition, "name": name}) for name, definition in definitions.items()])


def in_order(derived: Sequence[Derived]) -> tuple[Derived, ...]:
    """Each behind those that it reads. Raises ValueError for a name that is there twice, and for columns that need themselves."""
    by_name = {one.name: one for one in derived}
    twice = sorted({one.name for one in derived if by_name[one.name] is not one})
    if twice:
        raise ValueError(f"derived column named twice: {', '.join(twice)}")
    for one in derived:
        if one.column in by_name:
            raise ValueError(
                f"derived column {one.name!r} is a part of {one.column!r}, which is derived and no time; name a column of the files"
            )
    try:
        order = TopologicalSorter({one.name: [name for name in one.sources() if name in by_name] for one in derived}).static_order()
        return tuple(by_name[name] for name in order)
    except CycleError as error:
        circle = " is read by ".join(map(repr, error.args[1]))
        raise ValueError(f"derived columns need themselves: {circle}; give one another name") from None
