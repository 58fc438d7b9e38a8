"""The schema of a table, a YAML file: where its files are, what its columns mean, which columns are the tasks.

docs/data-format.md explains it by example. Every unknown key is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .. import strict_yaml
from ..errors import DataError, shown


def _as_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"expected a column name as text, got {shown(value)}: put it in quotes (YAML reads 101 and 109_14 as numbers)")
    return value


def _label_text(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, (str, int)) or isinstance(item, bool):
            raise ValueError(f"`positive` takes text or integers, got {shown(item)}: put it in quotes (YAML reads yes and no as booleans)")
    return tuple(str(item) for item in values)


def _column_shorthand(value: Any) -> Any:
    return value if isinstance(value, (dict, BaseModel)) else {"column": value}


Column = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]


class Strict(BaseModel):
    """A model that refuses unknown keys and names the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = [key for key in data if key not in cls.model_fields]
            if unknown:
                raise ValueError(f"unknown key {', '.join(map(shown, unknown[:5]))}; the known keys are {', '.join(cls.model_fields)}")
        return data


class Files(Strict):
    """Either `train`, `test` and optionally `valid`, or `all` with `split_column` or `test_fraction`.

    Paths are relative to the YAML file. The files are CSV (`.csv`, `.csv.gz`) or Parquet.

    >>> Files(all="log.parquet", test_fraction=0.2).paths()
    {'all': 'log.parquet'}
    """

    train: str | None = None
    valid: str | None = None
    test: str | None = None
    all: str | None = None
    split_column: Column | None = None
    test_fraction: float | None = Field(default=None, gt=0, lt=1)
    test_seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> Files:
        if self.all is None:
            if self.train is None or self.test is None:
                raise ValueError("give `train` and `test` (and optionally `valid`), or one file as `all`")
            if self.split_column is not None or self.test_fraction is not None:
                raise ValueError("`split_column` and `test_fraction` belong to a single file given as `all`")
        elif self.train or self.valid or self.test:
            raise ValueError("`all` and `train`/`valid`/`test` exclude each other")
        elif (self.split_column is None) == (self.test_fraction is None):
            raise ValueError("a single file needs either `split_column` (values train, valid, test) or `test_fraction`")
        return self

    def paths(self) -> dict[str, str]:
        """The path, as written, of each role ("train", "valid", "test" or "all")."""
        roles = {"train": self.train, "valid": self.valid, "test": self.test, "all": self.all}
        return {role: path for role, path in roles.items() if path is not None}


class Categorical(Strict):
    """A column whose values are categories, compared as text. `min_count` overrides the schema's.

    >>> Categorical(column="city", min_count=10).column
    'city'
    """

    column: Column
    min_count: int | None = Field(default=None, ge=1)


class Numeric(Strict):
    """A column of numbers, as a bucketed field (`buckets`), as a dense value (`dense`), or both.

    >>> Numeric(column="price", buckets=16, dense="log1p").buckets
    16
    """

    column: Column
    buckets: int | None = Field(default=None, ge=2, le=65536)
    dense: Literal["standardise", "log1p"] | None = None

    @model_validator(mode="after")
    def _used(self) -> Numeric:
        if self.buckets is None and self.dense is None:
            raise ValueError(f"numeric column {self.column!r} needs `buckets`, `dense` or both")
        return self


class Task(Strict):
    """A 0/1 label: the column as it is, or `column in positive`, or `column >= threshold`. A missing value is an unknown label.

    >>> Task(name="long_view", column="seconds", threshold=18).threshold
    18.0
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    column: Column
    positive: Annotated[tuple[str, ...], BeforeValidator(_label_text)] | None = None
    threshold: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_rule(self) -> Task:
        if self.positive is not None and self.threshold is not None:
            raise ValueError(f"task {self.name!r}: `positive` and `threshold` exclude each other")
        if self.positive == ():
            raise ValueError(f"task {self.name!r}: `positive` is empty")
        return self


class TableSchema(Strict):
    """Everything that encodes a table. `funnel: true` states that a task's event implies the event of the task before it.

    >>> schema = TableSchema(
    ...     name="shop",
    ...     files={"train": "train.csv", "test": "test.csv"},
    ...     categorical=["city"],
    ...     numeric=[{"column": "price", "dense": "log1p"}],
    ...     tasks=[{"name": "click", "column": "clicked"}, {"name": "order", "column": "ordered"}],
    ...     funnel=True,
    ... )
    >>> schema.suggested_relation, sorted(schema.number_columns())
    ('chain', ['clicked', 'ordered', 'price'])
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    files: Files
    categorical: tuple[Annotated[Categorical, BeforeValidator(_column_shorthand)], ...] = ()
    numeric: tuple[Numeric, ...] = ()
    tasks: tuple[Task, ...] = Field(min_length=1)
    group: Column | None = None
    weight: Column | None = None
    funnel: bool = False
    relation: Literal["chain", "independent", "transfer"] | None = None
    min_count: int = Field(default=5, ge=1)
    missing_values: tuple[str, ...] = ("",)

    @model_validator(mode="after")
    def _consistent(self) -> TableSchema:
        fields = [c.column for c in self.categorical] + [n.column for n in self.numeric if n.buckets is not None]
        dense = [n.column for n in self.numeric if n.dense is not None]
        if not fields:
            raise ValueError("no field: give at least one categorical column, or one numeric column with `buckets`")
        for kind, names in (("field", fields), ("dense", dense), ("task", [t.name for t in self.tasks])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} named twice: {', '.join(twice)}")
        not_features = {t.column: "a label" for t in self.tasks}
        if self.weight is not None:
            not_features[self.weight] = "the weight"
        if self.files.split_column is not None:
            not_features[self.files.split_column] = "the split column"
        for name in [*fields, *dense]:
            if name in not_features:
                raise ValueError(f"column {name!r} is {not_features[name]} and cannot be a feature")
        if self.funnel and len(self.tasks) < 2:
            raise ValueError("`funnel: true` needs at least two tasks, in the order of the funnel")
        return self

    @property
    def suggested_relation(self) -> str:
        """`relation`, by default "chain" for a funnel and "independent" otherwise."""
        return self.relation or ("chain" if self.funnel else "independent")

    def text_columns(self) -> set[str]:
        """Columns compared as text: 007 in a CSV file stays 007."""
        columns = {c.column for c in self.categorical} | {t.column for t in self.tasks if t.positive is not None}
        return columns | {c for c in (self.group, self.files.split_column) if c is not None}

    def number_columns(self) -> set[str]:
        """Columns read as numbers."""
        columns = {n.column for n in self.numeric} | {t.column for t in self.tasks if t.positive is None}
        return columns | ({self.weight} if self.weight is not None else set())


def load_schema(path: Path) -> TableSchema:
    """Read a schema YAML. Raises DataError that names the file, the place in it, the value and what is allowed there."""
    try:
        content = strict_yaml.load(path)
    except OSError as error:
        raise DataError(f"schema {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"schema {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise DataError(
            f"schema {path} holds a {type(content).__name__}, expected a mapping with name, files, tasks, ... (see docs/data-format.md)"
        )
    try:
        return TableSchema.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(f"schema {path} is not valid (see docs/data-format.md): {'; '.join(problems[:5])}{more}") from error
