"""The part of a schema that says where a table's rows are: files, how CSV files are written, and which rows are train, valid and test."""

from __future__ import annotations

import codecs
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ...errors import did_you_mean, shown


def as_text(value: Any) -> Any:
    """The value, if it is text. Raises ValueError that says how YAML reads column names."""
    if not isinstance(value, str):
        raise ValueError(f"expected a column name as text, got {shown(value)}: put it in quotes (YAML reads 101 and 109_14 as numbers)")
    return value


def _as_list(value: Any) -> Any:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not values or not all(isinstance(item, str) and item for item in values):
        raise ValueError(f"expected a path, a pattern such as 'logs/*.parquet', a folder, or a list of these; got {shown(value)}")
    return tuple(values)


DECIMAL = r"^[.,]$"
Column = Annotated[str, BeforeValidator(as_text), Field(min_length=1)]
Paths = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class Strict(BaseModel):
    """A model that refuses unknown keys, and names the one that was meant or all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            unknown = [key for key in data if key not in known]
            if unknown:
                hint = did_you_mean(str(unknown[0]), known) or f"; the known keys are {', '.join(known)}"
                raise ValueError(f"unknown key {', '.join(map(shown, unknown[:5]))}{hint}")
        return data


class Files(Strict):
    """Either `train`, `test` and optionally `valid`, or `all` with `split_column`, `test_fraction` or the schema's `split`.

    `past` holds earlier rows, which are in no split: only histories read them. Each is a path, a pattern, a folder, or a list of these,
    relative to the YAML file. The files are CSV (`.csv`, `.csv.gz`) or Parquet.

    >>> Files(all="logs/*.parquet", test_fraction=0.2).roles()
    {'all': ('logs/*.parquet',)}
    """

    train: Paths | None = None
    valid: Paths | None = None
    test: Paths | None = None
    all: Paths | None = None
    past: Paths | None = None
    split_column: Column | None = None
    test_fraction: float | None = Field(default=None, gt=0, lt=1)
    test_seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> Files:
        if self.all is None:
            if self.train is None or self.test is None:
                raise ValueError("give `train` and `test` (and optionally `valid`), or files of all rows as `all`")
            if self.split_column is not None or self.test_fraction is not None:
                raise ValueError("`split_column` and `test_fraction` belong to files given as `all`")
        elif self.train or self.valid or self.test:
            raise ValueError("`all` and `train`/`valid`/`test` exclude each other")
        elif self.split_column is not None and self.test_fraction is not None:
            raise ValueError("`split_column` and `test_fraction` exclude each other")
        return self

    def roles(self) -> dict[str, tuple[str, ...]]:
        """The paths and patterns, as written, of each role ("past", "train", "valid", "test" or "all"); the rows of `past` come first."""
        return {role: paths for role in ("past", "train", "valid", "test", "all") if (paths := getattr(self, role)) is not None}


class Csv(Strict):
    """How the CSV files are written. `encoding` is any that Python knows.

    >>> Csv(delimiter=";", decimal=",").quote
    '"'
    """

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quote: str = Field(default='"', min_length=1, max_length=1)
    encoding: str = "utf-8"
    decimal: str = Field(default=".", pattern=DECIMAL)

    @model_validator(mode="after")
    def _readable(self) -> Csv:
        marks = {"delimiter": self.delimiter, "quote": self.quote, "decimal": self.decimal}
        for name, mark in marks.items():
            if mark in "\r\n\0" or not mark.isascii():
                raise ValueError(f"{name} is {mark!r}, expected one ASCII character that is not a line break")
        for one, other in (("delimiter", "quote"), ("delimiter", "decimal"), ("quote", "decimal")):
            if marks[one] == marks[other]:
                raise ValueError(f"{one} and {other} are both {marks[one]!r}, expected two different characters")
        try:
            "".encode(self.encoding)
            self.encoding_name  # noqa: B018 (it raises for an unknown one)
        except (LookupError, ValueError) as error:
            raise ValueError(f"encoding is {self.encoding!r}, expected one that Python knows, such as utf-8, latin-1 or cp1252") from error
        return self

    @property
    def encoding_name(self) -> str:
        """The encoding as Python spells it."""
        return codecs.lookup(self.encoding).name


class Split(Strict):
    """Which rows of `files: {all: ...}` are valid and test: the latest ones by `time`, or the rows with some values of the column `hash`.

    `valid` and `test` are parts of the rows (`time`) or of the values (`hash`). Without `valid`, `prepare` draws validation rows.

    >>> Split(time="day", valid=0.1, test=0.2).seed
    0
    """

    time: Column | None = None
    hash: Column | None = None
    valid: float | None = Field(default=None, ge=0, lt=1)
    test: float = Field(ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _one_way(self) -> Split:
        if (self.time is None) == (self.hash is None):
            raise ValueError("give either `time` (a column of times) or `hash` (a column such as a user's id)")
        if self.test + (self.valid or 0) >= 1:
            raise ValueError(f"valid and test are {self.valid} and {self.test}, expected parts whose sum is below 1")
        if self.time is not None and "seed" in self.model_fields_set:
            raise ValueError("`seed` belongs to `hash`: a split by time draws nothing")
        return self
