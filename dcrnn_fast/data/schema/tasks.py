"""The part of a schema that says of a row whether an event happened: the rule of a task, and the task."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ...errors import shown
from .files import Column, Strict

TASK_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"


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
