"""The encoding of a table: learned from its train rows alone, or taken from another table, and applied to batches of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError, shown
from ..codes.numbers import float32
from ..codes.texts import constant_ids
from ..packed.arrays import Progress
from ..packed.meta import MISSING, OOV
from ..read.text_queries import hashes
from ..schema.fields import History, zoned_columns
from ..schema.table import TableSchema
from .cells_to_ids import BucketCode, CategoryCode, DenseScale, HashCode, Numbers, number_question
from .histories import HistoryIds
from .labels import check_funnel, label_values, labels_of
from .staging import Batch, BatchValues, StagedTable, TextColumn
from .train_rows import TextQuestion, TrainRows

Field = CategoryCode | HashCode | BucketCode
Collect = Callable[[History, BatchValues, BatchValues], HistoryIds]


@dataclass(frozen=True)
class FittedSchema:
    """A fitted schema. `fields` are in the order of the id columns: the categorical ones, then the buckets."""

    schema: TableSchema
    fields: tuple[Field, ...]
    dense: tuple[DenseScale, ...]
    zoned: Mapping[str, bool]
    """By column from which parts of times are derived: whether its times have a zone, or are numbers."""

    @property
    def derived(self) -> dict[str, dict[str, Any]]:
        """The definitions of the schema's derived columns, with what was learned of the times."""
        found = self.schema.derived_features
        for one in found.values():
            if "as" in one and one["column"] in self.zoned:
                one["zoned"] = self.zoned[one["column"]]
        return found

    @classmethod
    def fit(cls, schema: TableSchema, rows: TrainRows, zoned: Mapping[str, bool], progress: Progress) -> FittedSchema:
        """Learn vocabularies, edges and scales from the train rows. Raises DataError if a `positive` rule matches no train row.

        `zoned` says by column whether its times have a zone, or are numbers; a column whose cells are all missing is not in it.
        """
        ruled = [task for task in schema.tasks if task.positive is not None]
        shared, computed = schema.shared, schema.computed
        several = {column for pool in schema.pooled.values() for column in pool["columns"]}
        questions = dict[str, TextQuestion]()
        own = [c for c in schema.id_columns if c.same_ids_as is None]
        for c in (c for c in own if c.hash_buckets is None):
            alike = [c.column, *(name for name, owner in shared.items() if owner == c.column and name not in computed)]
            questions[c.column] = TextQuestion(alike, c.min_count or schema.min_count, several)
        answers = rows.texts([*(TextQuestion([task.column], 1) for task in ruled), *questions.values()])
        for task in ruled:
            texts = next(answers)
            if not (labels_of(task, pa.chunked_array([texts], pa.string())) == 1).any():
                raise DataError(
                    f"data set {schema.name!r}: task {task.name!r}: no train row has {task.column!r} in {list(task.positive or ())}; the "
                    f"column holds {sorted(set(texts[:20]) - {MISSING})} (at most 20 shown)"
                )
        numeric = rows.numbers([number_question(n) for n in schema.numeric])
        categories, learned, columns = dict[str, Field](), list[Numbers](), len(own) + len(numeric)
        try:
            for c in own:  # meanwhile, other threads learn from the numbers
                progress("learning columns", len(categories), columns)
                if c.hash_buckets is not None:
                    categories[c.column] = HashCode(c.column, c.hash_buckets)
                else:
                    texts = [text for text in next(answers) if text != MISSING or c.column not in several]
                    categories[c.column] = CategoryCode(c.column, [OOV, *texts])
            for one in numeric:
                progress("learning columns", len(own) + len(learned), columns)
                learned.append(one.result())
        finally:
            for one in numeric:  # after an error nobody wants them
                one.cancel()
        entries = {name: category.entries for name, category in categories.items()}
        sizes = {name: category.num_embeddings for name, category in categories.items()}
        for name, id_ in constant_ids(sizes, entries, schema.derived_features).items():
            if not id_:
                read = next(known.score_as for known in schema.train_only if known.column == name)
                held = f"expected one of its values in the train rows: {', '.join(map(str, entries[name][1:21]))}"
                raise DataError(f"data set {schema.name!r}: train_only: scoring reads {name!r} as {read!r}, {held}")
        buckets, scales = ([one for one in found if one is not None] for found in (zip(*learned, strict=True) if learned else ((), ())))
        return cls(schema, (*_with_shared(schema, categories), *buckets), tuple(scales), dict(zoned))

    @classmethod
    def restore(cls, schema: TableSchema, encoding: Mapping[str, Any]) -> FittedSchema:
        """The fitted schema of another table: `encoding` holds the `vocabulary` and `scaling` of that table's meta.json.

        Raises DataError for a column that the other table does not have, or uses in another way.
        """
        vocabulary, scaling = encoding["vocabulary"], encoding["scaling"]
        _check_alike(schema, "is read", "as", encoding.get("pooled", {}), schema.pooled)
        there, here = (_without_zoned(definitions) for definitions in (encoding.get("derived", {}), schema.derived_features))
        _check_alike(schema, "is derived", "by", there, here)
        _check_alike(schema, "has the ids", "of", encoding.get("shared", {}), schema.shared)
        categories: dict[str, Field] = {}
        for c in (c for c in schema.id_columns if c.same_ids_as is None):
            entries = vocabulary.get(c.column)
            if c.hash_buckets is not None:
                _check_kind(schema, c.column, "hashed", there=entries == [])
                categories[c.column] = HashCode(c.column, c.hash_buckets)
            else:
                _check_kind(schema, c.column, "categorical", there=bool(entries) and entries[0] == OOV)
                categories[c.column] = CategoryCode(c.column, entries)
        fields, dense = _with_shared(schema, categories), []
        for n in schema.numeric:
            entries, scale = vocabulary.get(n.column), scaling.get(n.column)
            if n.buckets is not None:
                _check_kind(schema, n.column, "bucketed", there=entries is not None and entries[:1] != [OOV])
                fields.append(BucketCode(n.column, list(map(float, entries))))
            if n.dense is not None:
                _check_kind(schema, n.column, f"dense ({n.dense})", there=scale is not None and scale["treatment"] == n.dense)
                dense.append(DenseScale(n.column, **scale))
        return cls(schema, tuple(fields), tuple(dense), zoned_columns(encoding.get("derived", {})))


class EncodedRows:
    """The rows of a staged table as an encoder makes them, a batch at a time.

    `collect` makes one of its schema's histories of the ids of its items and of the numbers of its users.
    """

    def __init__(
        self, encoder: FittedSchema, staged: StagedTable, database: duckdb.DuckDBPyConnection, collect: Collect | None = None
    ) -> None:
        schema = encoder.schema
        self.encoder, self.staged = encoder, staged
        self._labels = [label_values(staged, task) for task in schema.tasks]
        named = {one.by for one in schema.histories} | ({schema.group} if schema.group is not None else set())
        groups = {name: _groups(staged.texts[name], database) for name in sorted(named)}
        self._group = None if schema.group is None else groups[schema.group]
        computed, pooled = schema.computed, schema.pooled
        in_files = {field.column: field for field in encoder.fields if field.column not in computed}
        in_pool = {name: staged.pool.submit(field.bound, staged) for name, field in in_files.items() if not isinstance(field, HashCode)}
        bound = {name: field.bound(staged, database) for name, field in in_files.items() if isinstance(field, HashCode)}
        bound |= {name: one.result() for name, one in in_pool.items()}
        histories = dict[str, HistoryIds]()
        if collect is not None:
            histories |= {pooled[one.name]["columns"][0]: collect(one, bound[one.of], groups[one.by]) for one in schema.histories}
        self._ids: list[tuple[int | slice, BatchValues]] = []
        """Columns of the ids, and what makes them of a batch."""
        for position, field in enumerate(encoder.fields):
            if field.column in histories:
                history = histories[field.column]
                self._ids.append((slice(position, position + history.last), history.values))
            elif field.column in bound:
                self._ids.append((position, bound[field.column]))

    def arrays(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        """The arrays of a batch by kind, as the packed format holds them. Raises DataError for rows that break the schema."""
        schema, staged, dense = self.encoder.schema, self.staged, self.encoder.dense
        ids = np.empty((batch.rows, len(self.encoder.fields)), np.int32)
        for columns, source in self._ids:
            ids[:, columns] = source(batch)
        arrays: dict[str, npt.NDArray[Any]] = {"ids": ids}
        if dense:
            arrays["dense"] = np.column_stack([scale.transform(staged, batch) for scale in dense])
        arrays["labels"] = np.column_stack([label(batch) for label in self._labels])
        if schema.funnel:
            check_funnel(schema, arrays["labels"], batch.place)
        if schema.weight is not None:
            arrays["weight"] = _weight(staged, batch, schema.weight)
        if self._group is not None:
            arrays["group"] = self._group(batch)
        return arrays


def _with_shared(schema: TableSchema, categories: Mapping[str, Field]) -> list[Field]:
    """The categorical fields in the schema's order: one that has the ids of another is that field for its own column."""
    several = {column for pool in schema.pooled.values() for column in pool["columns"]}
    fields: list[Field] = []
    for c in schema.id_columns:
        field = replace(categories[c.same_ids_as or c.column], column=c.column)
        fields.append(replace(field, several=c.column in several) if isinstance(field, CategoryCode) else field)
    return fields


def _weight(staged: StagedTable, batch: Batch, column: str) -> npt.NDArray[np.float32]:
    weight = staged.numbers[column].values(batch)
    bad = ~(weight >= 0)
    if bad.any():
        row = bad.argmax()
        held = "no value" if np.isnan(weight[row]) else f"{weight[row]:g}"
        raise batch.place.error(f"holds {held}, expected a weight, a number >= 0", row, column)
    return float32(weight, weight, column, batch.place, "too large for float32; give smaller weights")


def _groups(column: TextColumn, database: duckdb.DuckDBPyConnection) -> BatchValues:
    """A number for each distinct text, the same in every table: 63 bits of its hash; -1 where missing."""

    def numbers(texts: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        return np.where(pc.equal(texts, MISSING).to_numpy(), -1, (hashes(database, texts) >> np.uint64(1)).astype(np.int64))

    return column.map(numbers, np.int64)


def _without_zoned(definitions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: {key: value for key, value in one.items() if key != "zoned"} for name, one in definitions.items()}


def _check_alike(schema: TableSchema, what: str, by: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            ours, theirs = (shown(known[name]) if name in known else "none" for known in (here, there))
            raise DataError(
                f"data set {schema.name!r}: column {name!r} {what} {by} {ours} in its schema, and {by} {theirs} in the data "
                "whose encoding is asked for; give a schema of the same columns"
            )


def _check_kind(schema: TableSchema, column: str, kind: str, *, there: bool) -> None:
    if not there:
        raise DataError(
            f"data set {schema.name!r}: column {column!r} is {kind} in its schema, and not in the data whose encoding is asked for; "
            "give a schema of the same columns"
        )
