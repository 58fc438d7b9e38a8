"""The part of a schema that makes categories of a column: how its ids are made, and how many values a cell holds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .derived import MAX_VALUES, Derived
from .files import Column, Strict


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

    def pooled(self) -> dict[str, Any]:
        """The entry of a field with several values in `pooled`: its columns and its pooling."""
        return {"columns": list(self.value_columns), "pooling": self.pooling or "mean"}
