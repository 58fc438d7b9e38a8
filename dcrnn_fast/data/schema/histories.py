"""The part of a schema that makes fields of what came before a row: the last items of its user."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from .categories import Categorical
from .derived import MAX_VALUES
from .files import Column, Strict
from .tasks import Rule


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

    def field(self, owner: str) -> Categorical:
        """The field that it is, one of several values with the ids of the column `owner`."""
        return Categorical(column=self.name, max_values=self.last, same_ids_as=owner, pooling=self.pooling)


def check_histories(
    histories: Sequence[History], categorical: Sequence[Categorical], tasks: Sequence[str], columns: Collection[str]
) -> None:
    """Raise ValueError for a history of what is no categorical column of one value, of an unknown task, or with the name of a column.

    `columns` are the columns that the schema reads or derives.
    """
    single = [c.column for c in categorical if c.max_values is None]
    for one in histories:
        if one.name in columns:
            raise ValueError(f"history {one.name!r} has the name of a column that the schema reads or derives; give it another name")
        if one.of not in single:
            several = any(c.column == one.of for c in categorical)
            has = "has several values a row" if several else "is no categorical column"
            raise ValueError(f"history {one.name!r}: `of` names {one.of!r}, which {has}; expected one of {', '.join(single) or 'none'}")
        if isinstance(one.where, str) and one.where not in tasks:
            raise ValueError(
                f"history {one.name!r}: `where` names the task {one.where!r}, expected one of {', '.join(tasks)}; or give a rule, such as "
                "`where: {column: event, positive: [view]}`"
            )
