"""meta.json of a packed folder: what it holds, and how it is read and checked. Needs the standard library only."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...errors import DataError, shown
from ...support import strict_json
from ...support.fields import first_columns, pooling_problem
from ...support.strict_json import fits

META, SCHEMA = "meta.json", "schema.yaml"
"""Files of a packed folder: its description, and the schema that `prepare` read its rows by, which may be absent."""
FORMAT_VERSION = 1
DTYPES = {"ids": "int32", "dense": "float32", "labels": "float32", "weight": "float32", "group": "int64"}
SPLITS = ("train", "valid", "test")
OOV, MISSING = "<oov>", "<missing>"
"""How a vocabulary spells the categories that it does not know, and a cell without a value."""
RESERVED = rf"\\*(?:{OOV}|{MISSING})"
"""The texts before which a vocabulary puts a backslash, as a regular expression: what would otherwise read as one of these two."""
WHOLE = r"(0|-?[1-9][0-9]*)\.0+"
"""A text that is a whole number with a point, as a float is written; a vocabulary spells it as the group."""


class UnreadableError(DataError):
    """The system does not open or read a file of a packed folder now, for example for want of permission. The file may be whole."""


def unreadable(file: Path, error: OSError) -> UnreadableError:
    """The error for a file that is there and is not read."""
    return UnreadableError(f"{file} cannot be read: {error.strerror or error}; check its permissions and its disk, then try again")


@dataclass(frozen=True)
class PackedMeta:
    """The contents of a packed data set.

    `fields` maps each id column, in order, to its number of ids. `vocabulary[field]` holds the text of each id for a categorical field, and
    the rising bucket edges for a numeric one. `scaling[column]` is {"treatment", "mean", "std"} of a dense column. `digest` identifies
    the content: it covers every other entry, and through `checksums` every array. `shared` maps a field to the field whose ids, and
    embeddings, it has. `derived` says how columns that the files lack were computed, as in the schema. `pooled` maps a field with several
    values to its `columns` in `fields`, one for each value, and to its `pooling`, "mean" or "sum"; there id 0 is not a value. `shards` maps
    the parts of a data set in parts, paths of packed folders, to their `rows`. Where these four are empty, neither the file nor the
    digest has them.

    >>> meta = PackedMeta(
    ...     name="shop", tasks=("click",), funnel=False, relation="independent", fields={"city": 3}, dense=(), group=None,
    ...     has_weight=False, rows={"train": 8}, vocabulary={"city": ["<oov>", "a", "b"]}, scaling={}, checksums={}, format_version=1,
    ... )
    >>> meta.arrays("train")
    {'ids': (8, 1), 'labels': (8, 1)}
    """

    name: str
    tasks: tuple[str, ...]
    funnel: bool
    relation: str
    fields: dict[str, int]
    dense: tuple[str, ...]
    group: str | None
    has_weight: bool
    rows: dict[str, int]
    vocabulary: dict[str, list[str] | list[float]]
    scaling: dict[str, dict[str, Any]]
    checksums: dict[str, str]
    format_version: int
    digest: str = ""
    shared: dict[str, str] = field(default_factory=dict)
    derived: dict[str, dict[str, Any]] = field(default_factory=dict)
    pooled: dict[str, dict[str, Any]] = field(default_factory=dict)
    shards: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def first_columns(self) -> dict[str, str]:
        """The fields as the schema names them, with the column of each in `fields`: of one with several values, the first."""
        return first_columns(self.pooled, list(self.fields))

    @property
    def encoding(self) -> dict[str, Any]:
        """How columns became ids and dense values; `prepare(other, encoding=...)` takes it.

        It holds `vocabulary` and `scaling`, and `shared`, `derived` and `pooled` where they are not empty. As in the file, columns of a
        field with several values have no vocabulary where they share another one's.
        """
        given = {key: getattr(self, key) for key in _OF_ENCODING if getattr(self, key)}
        return {"vocabulary": self._once(), "scaling": self.scaling} | given

    @property
    def train_only(self) -> tuple[str, ...]:
        """The fields that are known in training alone."""
        return tuple(name for name, definition in self.derived.items() if "constant" in definition)

    def _once(self) -> dict[str, list[str] | list[float]]:
        again = {column for pool in self.pooled.values() for column in pool["columns"] if column in self.shared}
        return {name: entries for name, entries in self.vocabulary.items() if name not in again}

    def content(self) -> dict[str, Any]:
        """The content of meta.json."""
        content = vars(self) | {"vocabulary": self._once()}
        return {key: value for key, value in content.items() if value or key not in _OPTIONAL}

    def computed_digest(self) -> str:
        """The digest of this content."""
        content = self.content()
        del content["digest"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def arrays(self, split: str) -> dict[str, tuple[int, ...]]:
        """The shape that each kind of array must have in `split`."""
        rows = self.rows[split]
        shapes: dict[str, tuple[int, ...]] = {"ids": (rows, len(self.fields)), "labels": (rows, len(self.tasks))}
        if self.dense:
            shapes["dense"] = (rows, len(self.dense))
        if self.has_weight:
            shapes["weight"] = (rows,)
        if self.group is not None:
            shapes["group"] = (rows,)
        return shapes


def read_meta(file: Path, text: bytes | None = None) -> PackedMeta:
    """Read and check meta.json, or the `text` of one. Raises DataError that names the file and the entry, and says what to do."""
    remedy = f"delete {file.parent} and prepare the data again"
    try:
        content = strict_json.load(file) if text is None else strict_json.parse(text.decode())
    except FileNotFoundError as error:
        raise DataError(f"{file.parent} is not a packed data set: it has no meta.json") from error
    except (NotADirectoryError, IsADirectoryError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}; {remedy}") from error
    except OSError as error:
        raise unreadable(file, error) from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{file} has format_version {shown(version)}, expected {FORMAT_VERSION}; {remedy}")
    unlike = sorted(content.keys() ^ (_ENTRIES.keys() - (_OPTIONAL - content.keys())))
    if unlike:
        raise DataError(f"{file} lacks an entry or has an unknown one ({shown(unlike[0])}); {remedy}")
    if problem := _problem(content):
        raise DataError(f"{file}: {problem}; {remedy}")
    made = {"vocabulary": whole_vocabulary(content), "tasks": tuple(content["tasks"]), "dense": tuple(content["dense"])}
    meta = PackedMeta(**{**content, **made})
    if meta.digest != meta.computed_digest():
        raise DataError(f"{file} does not match its own digest: it was changed after it was written; {remedy}")
    for path, rows in meta.shards.items():
        if rows.keys() != meta.rows.keys():
            raise DataError(f"{file}: shards gives {path} the splits {shown(sorted(rows))}, expected {shown(sorted(meta.rows))}; {remedy}")
    if meta.shards and any(sum(rows[split] for rows in meta.shards.values()) != count for split, count in meta.rows.items()):
        raise DataError(f"{file}: the rows of its shards are not {shown(meta.rows)} together; {remedy}")
    names = [f"{split}.{kind}.npy" for split in meta.rows for kind in meta.arrays(split)] + [META] * bool(meta.shards)
    if meta.checksums.keys() != (files := {os.path.join(path, name) for path in meta.shards or [""] for name in names}):
        raise DataError(f"{file}: checksums names {shown(sorted(meta.checksums))}, expected {shown(sorted(files))}; {remedy}")
    return meta


def check_encoding(encoding: Any) -> None:
    """Raise DataError unless `encoding` is the :attr:`PackedMeta.encoding` of some data."""
    if not isinstance(encoding, Mapping) or set(encoding).difference(_OF_ENCODING) != {"vocabulary", "scaling"}:
        raise DataError(
            f"encoding is {shown(encoding)}, expected the vocabulary and scaling of another data set's meta, and its shared, derived and "
            "pooled if it has them: `meta.encoding`"
        )
    if problem := _problem(encoding):
        raise DataError(f"encoding: {problem}")


def whole_vocabulary(encoding: Mapping[str, Any]) -> dict[str, Any]:
    """The vocabulary of every column, also of columns that share one in a field with several values, which an encoding leaves out."""
    vocabulary, shared = encoding["vocabulary"], encoding.get("shared", {})
    columns = [column for pool in encoding.get("pooled", {}).values() for column in pool["columns"] if column not in vocabulary]
    return {**vocabulary, **{column: vocabulary[shared[column]] for column in columns if shared.get(column) in vocabulary}}


def _problem(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the entries of meta.json, or with those of an encoding, in which the fields' order and sizes are not known."""
    for key, value in content.items():
        expected, shape = _ENTRIES[key]
        if not fits(value, shape):
            return f"{key} is {shown(value)}, expected {expected}"
    vocabulary, shared, pooled = whole_vocabulary(content), content.get("shared", {}), content.get("pooled", {})
    several = [column for pool in pooled.values() for column in pool["columns"]]
    if problem := pooling_problem(pooled, list(content.get("fields", several)), shared):
        return f"pooled{problem}"
    if others := [column for column in several if vocabulary.get(column, [0])[:1] not in ([OOV], [])]:
        return f"pooled says that {shown(others[0])} holds one of several values, but its ids are not categories"
    sizes = content.get("fields", vocabulary)
    for name, owner in shared.items():
        if not {name, owner} <= sizes.keys() or owner in shared:
            return f"shared says that {shown(name)} has the ids of {shown(owner)}, expected a field and another one that has its own"
        if sizes[name] != sizes[owner] or vocabulary.get(name) != vocabulary.get(owner):
            return f"shared says that {shown(name)} has the ids of {shown(owner)}, but their vocabularies differ"
    return None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_vocabulary(value: Any) -> bool:
    return fits(value, [str]) or (fits(value, [_is_finite]) and all(a < b for a, b in pairwise(value)))


def _is_scale(value: Any) -> bool:
    return fits(value, {"treatment": str, "mean": _is_finite, "std": _is_finite}) and len(value) == 3 and value["std"] > 0


def _is_part(value: Any) -> bool:
    return type(value) in (str, bool) or _is_count(value) or fits(value, [str])


_ENTRIES: dict[str, tuple[str, Any]] = {
    "name": ("text", str),
    "tasks": ("a list of texts", [str]),
    "funnel": ("true or false", bool),
    "relation": ("text", str),
    "fields": ("the number of ids by column", {str: _is_count}),
    "dense": ("a list of texts", [str]),
    "group": ("text or null", lambda value: value is None or type(value) is str),
    "has_weight": ("true or false", bool),
    "rows": ("the number of rows of train, valid and test", lambda value: fits(value, {str: _is_count}) and set(value) <= set(SPLITS)),
    "vocabulary": ("a list of texts or of rising numbers by column", {str: _is_vocabulary}),
    "scaling": ("treatment, mean and std (above 0) by column", {str: _is_scale}),
    "checksums": ("text by file", {str: str}),
    "format_version": ("an integer", _is_count),
    "digest": ("text", str),
    "shared": ("a field by field", {str: str}),
    "derived": ("a definition by column", {str: {str: _is_part}}),
    "pooled": ("columns and pooling by field", {str: {"columns": [str], "pooling": str}}),
    "shards": ("the rows of each split by path", lambda value: fits(value, {str: {str: _is_count}}) and "\0" not in "".join(value)),
}
"""By entry of meta.json: what it is in words, and its shape."""
_OF_ENCODING = "shared", "derived", "pooled"  # in this order, so that equal data has equal bytes
_OPTIONAL = {*_OF_ENCODING, "shards"}
