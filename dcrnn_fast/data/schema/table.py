"""The schema of a table, a YAML file: where its files are, what its columns mean, which columns are the tasks.

docs/guide/schema.md explains it by example. Every unknown key is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from ...errors import DataError, shown
from ...support import strict_yaml
from .fields import TASK_NAME, Categorical, Derived, History, Rule, Task, TrainOnly, in_order
from .files import DECIMAL, Column, Csv, Files, Split, Strict


def _column_shorthand(value: Any) -> Any:
    return value if isinstance(value, (dict, BaseModel)) else {"column": value}


NAME = r"^[a-z0-9][a-z0-9._-]*$"
_EXPECTED = {
    NAME: "lower-case letters, digits and . _ -, a letter or digit first",
    TASK_NAME: "letters, digits and _, a letter first",
    DECIMAL: "a point or a comma",
}


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

    name: str = Field(pattern=NAME)
    files: Files
    csv: Csv = Csv()
    split: Split | None = None
    derived: Annotated[tuple[Derived, ...], AfterValidator(in_order)] = ()
    categorical: tuple[Annotated[Categorical, BeforeValidator(_column_shorthand)], ...] = ()
    histories: tuple[History, ...] = ()
    numeric: tuple[Numeric, ...] = ()
    train_only: tuple[TrainOnly, ...] = ()
    tasks: tuple[Task, ...] = Field(min_length=1)
    group: Column | None = None
    weight: Column | None = None
    funnel: bool = False
    relation: Literal["chain", "independent", "transfer"] | None = None
    min_count: int = Field(default=1, ge=1)
    missing_values: tuple[str, ...] = ("",)
    max_rejects: int = Field(default=0, ge=0)
    forget: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> TableSchema:
        by_files = [key for key in ("split_column", "test_fraction") if getattr(self.files, key) is not None]
        if self.split is not None and (self.files.all is None or by_files):
            raise ValueError(f"`split` cuts `files: {{all: ...}}`, and excludes {', '.join(by_files) or '`train` and `test`'} in `files`")
        if self.split is None and self.files.all is not None and not by_files:
            raise ValueError(
                "files given as `all` need a `split`, or in `files` a `split_column` (values train, valid, test) or `test_fraction`"
            )
        if self.files.past is not None and not self.histories:
            raise ValueError("`past` in `files` holds rows that histories alone read, and there are no `histories`: leave it out")
        fields = [c.column for c in (*self.categorical, *self._of_histories)] + [n.column for n in self.numeric if n.buckets is not None]
        dense = [n.column for n in self.numeric if n.dense is not None]
        if not fields:
            raise ValueError("no field: give at least one categorical column, or one numeric column with `buckets`")
        for kind, names in (("field", fields), ("dense", dense), ("task", [t.name for t in self.tasks])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} named twice: {', '.join(twice)}")
        split_by = None if self.split is None else self.split.time or self.split.hash
        for use, name in (("group", self.group), ("weight", self.weight), ("split", split_by)):
            if name is not None and (labels := {t.column for t in self.tasks} & self._behind(name)):
                origin = "" if name in labels else f", from which {name!r} is derived"
                raise ValueError(f"`{use}` and `tasks` both name column {min(labels)!r}{origin}: a label cannot be both; name another one")
        not_features = {t.column: "a label" for t in self.tasks}
        if self.weight is not None:
            not_features[self.weight] = "the weight"
        if self.files.split_column is not None:
            not_features[self.files.split_column] = "the split column"
        of_histories = [column for one in self.histories for column in (one.by, one.time)]
        for name in [*fields, *dense, *of_histories]:
            for column in self._behind(name):
                if column in not_features:
                    origin = "" if column == name else f", from which {name!r} is derived,"
                    raise ValueError(f"column {column!r}{origin} is {not_features[column]} and cannot be a feature")
        self._check_sharing()
        self._check_train_only()
        self._check_histories()
        self._check_values(fields)
        self._check_derived()
        if self.funnel and len(self.tasks) < 2:
            raise ValueError("`funnel: true` needs at least two tasks, in the order of the funnel")
        return self

    def _check_sharing(self) -> None:
        shared = {c.column: c.same_ids_as for c in self.categorical if c.same_ids_as is not None}
        columns = [c.column for c in self.categorical]
        for name, owner in shared.items():
            if owner not in columns or owner in shared:
                has = f"has the ids of {shared[owner]!r} itself" if owner in shared else "is not a categorical column"
                own = [column for column in columns if column not in shared]
                raise ValueError(f"column {name!r}: `same_ids_as` names {owner!r}, which {has}; expected one of {', '.join(own) or 'none'}")

    def _check_train_only(self) -> None:
        shared = {c.same_ids_as for c in self.categorical}
        plain = [c.column for c in self.categorical if c.max_values is None and c.same_ids_as is None and c.column not in shared]
        plain = [name for name in plain if name not in {one.name for one in self.derived} | {one.of for one in self.histories}]
        names = [one.column for one in self.train_only]
        for name in names:
            if name not in plain or names.count(name) > 1:
                allowed = ", ".join(plain) or "none"
                raise ValueError(f"`train_only` names {name!r}, expected, once, a categorical column with ids of its own: {allowed}")
            if readers := [one.name for one in self.derived if name in one.sources()]:
                raise ValueError(f"`train_only` names {name!r}, from which {readers[0]!r} is derived: scoring could not make that")
            if name in self.number_columns():
                raise ValueError(f"`train_only` names {name!r}, which is a number too: name it as categorical alone")

    def _check_histories(self) -> None:
        known, tasks = self._used | {one.name for one in self.all_derived}, [task.name for task in self.tasks]
        several = {c.column: c.max_values is not None for c in self.categorical}
        for one in self.histories:
            if one.name in known:
                raise ValueError(f"history {one.name!r} has the name of a column that the schema reads or derives; give it another name")
            if several.get(one.of, True):
                has = "has several values a row" if one.of in several else "is not a categorical column"
                single = ", ".join(column for column in several if not several[column])
                raise ValueError(f"history {one.name!r}: `of` names {one.of!r}, which {has}; expected one of {single or 'none'}")
            if isinstance(one.where, str) and one.where not in tasks:
                rule = "or give a rule, such as `where: {column: event, positive: [view]}`"
                raise ValueError(f"history {one.name!r}: `where` names the task {one.where!r}, expected one of {', '.join(tasks)}; {rule}")

    def _check_derived(self) -> None:
        if constants := [one.name for one in self.derived if one.constant is not None]:
            raise ValueError(f"derived column {constants[0]!r}: `constant` is for columns that `train_only` names; leave it out")
        crosses = {one.name for one in self.derived if one.cross is not None}
        for column in sorted(self.number_columns()):
            if column in crosses:
                raise ValueError(f"column {column!r} is a cross, whose values are texts: use it as categorical, not as a number")
        used = self._used
        for one in self.derived:
            if one.name not in used:
                raise ValueError(f"derived column {one.name!r} is used nowhere: name it as categorical or numeric, or leave it out")

    def _check_values(self, fields: Sequence[str]) -> None:
        made = {column for c in (*self._several, *self._of_histories) for column in c.value_columns}
        derived = {one.name for one in self.derived}
        if clash := sorted(made.intersection({*fields, *derived})):
            raise ValueError(f"column {clash[0]!r} has the name of a value of a field with `max_values` or of a history; rename one")
        for c in self._several:
            if c.column in derived:
                raise ValueError(f"column {c.column!r} is derived and has one value a row: leave out `max_values`")

    @property
    def _several(self) -> list[Categorical]:
        return [c for c in self.categorical if c.max_values is not None]

    @property
    def _of_histories(self) -> list[Categorical]:
        owners = {c.column: c.same_ids_as or c.column for c in self.categorical}
        return [
            Categorical(column=one.name, max_values=one.last, same_ids_as=owners.get(one.of, one.of), pooling=one.pooling)
            for one in self.histories
        ]

    @property
    def _rules(self) -> list[Rule]:
        return [*self.tasks, *(one.where for one in self.histories if isinstance(one.where, Rule))]

    @property
    def _used(self) -> set[str]:
        """The columns that become an input, a label or a weight, and the columns that others are derived from."""
        sources = {source for one in self.derived for source in one.sources()}
        return self.text_columns() | self.number_columns() | self.time_columns() | sources

    def _behind(self, name: str) -> set[str]:
        """A column and all those from which it is derived."""
        behind = {name}
        for one in reversed(self.derived):  # the columns that it reads come before it
            if one.name in behind:
                behind.update(one.sources())
        return behind

    @property
    def id_columns(self) -> tuple[Categorical, ...]:
        """The categorical columns of ids: first `categorical`, then the values of `histories`.

        Of one with several values there is a column for each; these share ids.
        """
        first = {c.column: c.value_columns[0] for c in self.categorical}
        return tuple(one for c in (*self.categorical, *self._of_histories) for one in c.columns(first.get(c.same_ids_as or "")))

    @property
    def computed(self) -> set[str]:
        """The columns of ids that no file holds: the values of histories."""
        return {column for c in self._of_histories for column in c.value_columns}

    @property
    def all_derived(self) -> tuple[Derived, ...]:
        """`derived`, and the single values of the files' columns that hold several."""
        return *self.derived, *(one for c in self._several for one in c.derived())

    @property
    def pooled(self) -> dict[str, dict[str, Any]]:
        """By field with several values: its columns of ids, and its pooling."""
        fields = (*self._several, *self._of_histories)
        return {c.column: {"columns": list(c.value_columns), "pooling": c.pooling or "mean"} for c in fields}

    @property
    def shared(self) -> dict[str, str]:
        """By column that has the ids of another column: that other column."""
        return {c.column: c.same_ids_as for c in self.id_columns if c.same_ids_as is not None}

    @property
    def derived_features(self) -> dict[str, dict[str, Any]]:
        """By name, the definitions of the derived columns that fields and dense values are made of.

        Those of a history say how its columns of ids are made of lists, which rows in memory hold; those of a column that is known in
        training alone are a constant.
        """
        features = [c.column for c in self.categorical] + [n.column for n in self.numeric]
        needed = {column for name in features for column in self._behind(name)}
        needed.update(column for c in self._several for column in c.value_columns)
        found = {one.name: one.definition() for one in self.all_derived if one.name in needed}
        found |= {one.column: {"constant": one.score_as} for one in self.train_only}
        return found | {one.name: one.definition() for c in self._of_histories for one in c.derived()}

    @property
    def suggested_relation(self) -> str:
        """`relation`, by default "chain" for a funnel and "independent" otherwise."""
        return self.relation or ("chain" if self.funnel else "independent")

    def to_yaml(self) -> str:
        """The schema as a YAML file, with the keys that were given."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True, exclude_unset=True), sort_keys=False, allow_unicode=True)

    def event_rule(self, history: History) -> Rule | None:
        """The rule by which a row is an event of a history, its `where`; None if every row is one."""
        return next((task for task in self.tasks if task.name == history.where), None) if isinstance(history.where, str) else history.where

    def shows_labels(self, history: History) -> bool:
        """Whether a history's `where` depends on a column that a label is made of."""
        rule, labels = self.event_rule(history), {task.column for task in self.tasks}
        return rule is not None and not labels.isdisjoint(self._behind(rule.column))

    def history_columns(self) -> set[str]:
        """The columns of the files that histories are made of."""
        rules = [rule.column for rule in map(self.event_rule, self.histories) if rule is not None]
        read = [column for one in self.histories for column in (one.by, one.of, one.time)]
        return set().union(*map(self._behind, read + rules)) - {one.name for one in self.derived}

    def file_columns(self) -> tuple[set[str], set[str]]:
        """The columns that the files must have: those read as text, from which times are read too, and those read as numbers alone."""
        derived, sources = {one.name for one in self.all_derived}, {source for one in self.all_derived for source in one.sources()}
        text = self.text_columns() | self.time_columns() | sources
        return text - derived, self.number_columns() - derived - text

    def text_columns(self) -> set[str]:
        """Columns compared as text: 007 in a CSV file stays 007."""
        columns = {c.column for c in self.id_columns} - self.computed | {rule.column for rule in self._rules if rule.positive is not None}
        by = (self.group, self.files.split_column, None if self.split is None else self.split.hash, *(one.by for one in self.histories))
        return columns | {c for c in by if c is not None}

    def time_columns(self) -> set[str]:
        """Columns read as times or numbers."""
        columns = {one.time for one in self.histories}
        return columns | ({self.split.time} if self.split is not None and self.split.time is not None else set())

    def label_columns(self) -> set[str]:
        """Columns that are labels as they are, or as such a rule of a history: numbers, or true and false."""
        return {rule.column for rule in self._rules if rule.positive is None and rule.threshold is None}

    def number_columns(self) -> set[str]:
        """Columns read as numbers."""
        columns = {n.column for n in self.numeric} | {rule.column for rule in self._rules if rule.positive is None}
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
        held = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise DataError(f"schema {path} {held}, expected a mapping with name, files, tasks, ... (see docs/guide/schema.md)")
    return schema_of(content, str(path))


def schema_of(content: Mapping[str, Any], source: str) -> TableSchema:
    """The schema that a YAML file of this content has. Raises DataError as :func:`load_schema` does; it names the `source`."""
    try:
        return TableSchema.model_validate({key: value for key, value in content.items() if value is not None})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'top level'}: {_in_words(e)}" for e in error.errors()]
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(f"schema {source} is not valid (see docs/guide/schema.md): {'; '.join(problems[:5])}{more}") from error


def _in_words(error: Any) -> str:
    """A problem that pydantic found, in words, with the value that came where pydantic does not show it."""
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return "it is required, and not there"
    if error["type"] == "string_pattern_mismatch":
        return f"got {shown(error['input'])}, expected {_EXPECTED[error['ctx']['pattern']]}"
    return f"got {shown(error['input'])}: {error['msg'][:1].lower()}{error['msg'][1:].replace('tuple', 'list')}"
