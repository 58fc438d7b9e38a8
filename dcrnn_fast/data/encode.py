"""Turn table columns into embedding ids and dense values. What is learned from data is learned from the train split alone.

categorical  id 0: out of vocabulary (unseen, or rarer than min_count in train); then the categories, the most frequent first
buckets      id 0: missing; then 1 + the index of the value's bucket
dense        (x - mean) / std of the value, or of its signed log1p, sign(x) * log(1 + |x|); missing becomes 0, the train mean
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError
from .columns import FloatArray, numbers_of, reserved_apart, row_of, texts_of
from .meta import OOV
from .schema import Numeric, TableSchema, Task

__all__ = ["Encoder", "bucket_edges"]


def bucket_edges(values: FloatArray, buckets: int) -> FloatArray:
    """Rising edges e that cut the numbers into len(e) + 1 buckets; x falls into bucket `searchsorted(e, x, side="right")`.

    A value that fills a bucket's share of the rows (most often zero) gets a bucket of its own; the other values share the remaining buckets
    by quantiles. If there are no more distinct values than buckets, each value has its own. The result has about `buckets` buckets: a
    frequent value can split a quantile bucket in two, and repeated values can make quantiles coincide. `values` must hold no NaN.

    >>> edges = bucket_edges(np.array([0.0, 0.0, 0.0, 1.0, 2.0, 3.0]), buckets=3)
    >>> np.searchsorted(edges, [0.0, 1.0, 2.0, 3.0], side="right").tolist()
    [0, 1, 2, 2]
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= buckets:
        return distinct[1:]
    heavy = np.zeros(len(distinct), dtype=bool)
    while True:
        left = max(1, buckets - int(heavy.sum()))
        share = counts[~heavy].sum() / left
        more = ~heavy & (counts > share)
        if left == 1 or not more.any():
            break
        heavy |= more
    light = np.where(heavy, 0, counts)
    quantile = np.floor((np.cumsum(light) - light / 2) / share).astype(np.int64)
    starts = (quantile[1:] != quantile[:-1]) & ~heavy[1:] & ~heavy[:-1]
    # The smallest normal number, not the smallest subnormal, separates zero: a CPU that flushes subnormals would take the latter for zero.
    with np.errstate(over="ignore"):  # Above the largest number lies infinity, which is no edge.
        above = np.maximum(np.nextafter(distinct, np.inf), distinct + np.finfo(np.float64).tiny)
    alone = heavy & ~np.append(heavy[1:], False)  # between two frequent neighbours lies no number that a bucket could hold
    edges = np.unique(np.concatenate([distinct[1:][starts], distinct[heavy], above[alone]]))
    return edges[(edges > distinct[0]) & (edges <= distinct[-1])]


@dataclass(frozen=True)
class CategoryCode:
    """A categorical field: `vocabulary[id]` is its text, `vocabulary[0]` the out-of-vocabulary entry."""

    column: str
    vocabulary: list[str]

    @classmethod
    def fit(cls, table: pa.Table, column: str, min_count: int) -> CategoryCode:
        coded = texts_of(table, column)
        counts = np.bincount(coded.codes, minlength=len(coded.texts))
        frequent = np.flatnonzero(counts >= min_count)
        kept = sorted(zip((-counts[frequent]).tolist(), coded.texts.take(pa.array(frequent)).to_pylist(), strict=True))
        return cls(column, [OOV, *(text for _, text in kept)])

    @property
    def num_embeddings(self) -> int:
        return len(self.vocabulary)

    def entries(self) -> list[str] | list[float]:
        return self.vocabulary

    def transform(self, table: pa.Table) -> npt.NDArray[np.int32]:
        coded = texts_of(table, self.column)
        known = pc.index_in(coded.texts, pa.array(self.vocabulary[1:], pa.string()))
        ids = pc.fill_null(pc.add(known, 1), 0).to_numpy(zero_copy_only=False).astype(np.int32)
        return np.asarray(ids[coded.codes], dtype=np.int32)


@dataclass(frozen=True)
class BucketCode:
    """A numeric column as a field: id 0 is missing, id 1 + b is bucket b."""

    column: str
    edges: FloatArray

    @classmethod
    def fit(cls, table: pa.Table, numeric: Numeric) -> BucketCode:
        values = numbers_of(table, numeric.column)
        assert numeric.buckets is not None
        return cls(numeric.column, bucket_edges(values[~np.isnan(values)], numeric.buckets))

    @property
    def num_embeddings(self) -> int:
        return len(self.edges) + 2

    def entries(self) -> list[str] | list[float]:
        return [float(edge) for edge in self.edges]

    def transform(self, table: pa.Table) -> npt.NDArray[np.int32]:
        values = numbers_of(table, self.column)
        return np.where(np.isnan(values), 0, np.searchsorted(self.edges, values, side="right") + 1).astype(np.int32)


@dataclass(frozen=True)
class DenseScale:
    """A numeric column as one float: optionally signed log1p, then standardised with the train split's mean and deviation."""

    column: str
    treatment: str
    mean: float
    std: float

    @classmethod
    def fit(cls, table: pa.Table, numeric: Numeric) -> DenseScale:
        assert numeric.dense is not None
        values = numbers_of(table, numeric.column)
        treated = _treated(values[~np.isnan(values)], numeric.dense)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = (float(treated.mean()), float(treated.std())) if len(treated) else (0.0, 0.0)
        if not np.isfinite([mean, std]).all():
            largest = np.nanargmax(np.abs(values))
            raise DataError(
                f"column {numeric.column!r} holds numbers too large to standardise, such as {values[largest]:g} in row {largest + 1:,} of "
                f"{len(values):,}; correct them, or use `dense: log1p` or `buckets`"
            )
        return cls(numeric.column, numeric.dense, mean, std if std > 0 else 1.0)

    def transform(self, table: pa.Table) -> npt.NDArray[np.float32]:
        values = numbers_of(table, self.column)
        with np.errstate(over="ignore"):
            scaled = np.nan_to_num((_treated(values, self.treatment) - self.mean) / self.std, nan=0.0, posinf=np.inf, neginf=-np.inf)
        return _float32(scaled, values, self.column, "too far from the train rows' mean for float32; correct it, or use `buckets`")


def _treated(values: FloatArray, treatment: str) -> FloatArray:
    return np.sign(values) * np.log1p(np.abs(values)) if treatment == "log1p" else values


def _float32(values: FloatArray, cells: FloatArray, column: str, problem: str) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    infinite = np.isinf(result)
    if infinite.any():
        raise DataError(f"column {column!r}: {cells[infinite.argmax()]:g} in {row_of(infinite)} is {problem}")
    return result


def _labels(table: pa.Table, task: Task) -> npt.NDArray[np.float32]:
    if task.positive is not None:
        coded = texts_of(table, task.column)
        positive = reserved_apart(pa.array(task.positive, pa.string()))
        hit = pc.is_in(coded.texts, positive).to_numpy(zero_copy_only=False)[coded.codes]
        return np.where(coded.missing, np.nan, hit).astype(np.float32)
    values = numbers_of(table, task.column)
    if task.threshold is not None:
        return np.where(np.isnan(values), np.nan, values >= task.threshold).astype(np.float32)
    strange = ~np.isnan(values) & (values != 0) & (values != 1)
    if strange.any():
        examples = ", ".join(f"{value:g}" for value in np.unique(values[strange])[:5])
        raise DataError(
            f"task {task.name!r}: column {task.column!r} holds {examples}, expected 0 and 1 (empty: unknown); use `threshold` or `positive`"
        )
    return values.astype(np.float32)


@dataclass(frozen=True)
class Encoder:
    """A fitted schema. `fields` are in the order of the id columns: the categorical ones, then the buckets."""

    schema: TableSchema
    fields: tuple[CategoryCode | BucketCode, ...]
    dense: tuple[DenseScale, ...]

    @classmethod
    def fit(cls, schema: TableSchema, train: pa.Table) -> Encoder:
        """Learn vocabularies, edges and scales from the train rows. Raises DataError if a `positive` rule matches no train row."""
        for task in schema.tasks:
            if task.positive is not None and not np.nansum(_labels(train, task)):
                raise DataError(
                    f"task {task.name!r}: no train row has {task.column!r} in {list(task.positive)}; the column holds "
                    f"{texts_of(train, task.column).present()[:20]} (at most 20 shown)"
                )
        categories = [CategoryCode.fit(train, c.column, c.min_count or schema.min_count) for c in schema.categorical]
        buckets = [BucketCode.fit(train, n) for n in schema.numeric if n.buckets is not None]
        return cls(schema, (*categories, *buckets), tuple(DenseScale.fit(train, n) for n in schema.numeric if n.dense is not None))

    @classmethod
    def restore(cls, schema: TableSchema, encoding: Mapping[str, Any]) -> Encoder:
        """The encoder of another table: `encoding` holds the `vocabulary` and `scaling` of that table's meta.json.

        Raises DataError for a column that the other table does not have, or uses in another way.
        """
        vocabulary, scaling = encoding["vocabulary"], encoding["scaling"]
        fields: list[CategoryCode | BucketCode] = []
        for category in schema.categorical:
            if vocabulary.get(category.column, [])[:1] != [OOV]:
                raise _foreign(schema, category.column, "categorical")
            fields.append(CategoryCode(category.column, vocabulary[category.column]))
        for numeric in (n for n in schema.numeric if n.buckets is not None):
            if vocabulary.get(numeric.column, [OOV])[:1] == [OOV]:
                raise _foreign(schema, numeric.column, "bucketed")
            fields.append(BucketCode(numeric.column, np.asarray(vocabulary[numeric.column], dtype=np.float64)))
        dense = []
        for numeric in (n for n in schema.numeric if n.dense is not None):
            scale = scaling.get(numeric.column)
            if scale is None or scale["treatment"] != numeric.dense:
                raise _foreign(schema, numeric.column, f"dense ({numeric.dense})")
            dense.append(DenseScale(numeric.column, **scale))
        return cls(schema, tuple(fields), tuple(dense))

    def transform(self, table: pa.Table) -> dict[str, npt.NDArray[Any]]:
        """The arrays of one split by kind, as the packed format holds them. Raises DataError for rows that break the schema."""
        schema = self.schema
        labels = np.column_stack([_labels(table, task) for task in schema.tasks])
        if schema.funnel:
            self._check_funnel(labels)
        arrays = {
            "ids": np.column_stack([field.transform(table) for field in self.fields]),
            "dense": np.column_stack([scale.transform(table) for scale in self.dense]) if self.dense else None,
            "labels": labels,
            "weight": _weight(table, schema.weight) if schema.weight is not None else None,
            "group": _groups(table, schema.group) if schema.group is not None else None,
        }
        return {kind: array for kind, array in arrays.items() if array is not None}

    def _check_funnel(self, labels: npt.NDArray[np.float32]) -> None:
        # Every pair, not neighbours alone: a label between the two may be unknown.
        for s, t in combinations(range(labels.shape[1]), 2):
            broken = int(((labels[:, t] == 1) & (labels[:, s] == 0)).sum())
            if broken:
                later, earlier = self.schema.tasks[t].name, self.schema.tasks[s].name
                raise DataError(
                    f"the data set is declared a funnel, yet {broken} rows have {later} = 1 and {earlier} = 0; "
                    "correct the rows, or set `funnel: false`"
                )


def _weight(table: pa.Table, column: str) -> npt.NDArray[np.float32]:
    weight = numbers_of(table, column)
    bad = int((~(weight >= 0)).sum())
    if bad:
        raise DataError(f"weight column {column!r}: {bad} rows are negative or missing; expected numbers >= 0")
    return _float32(weight, weight, column, "too large for float32; give smaller weights")


def _foreign(schema: TableSchema, column: str, kind: str) -> DataError:
    return DataError(
        f"data set {schema.name!r}: column {column!r} is {kind} in its schema, and not in the data whose encoding is asked for; "
        "give a schema of the same columns"
    )


def _groups(table: pa.Table, column: str) -> npt.NDArray[np.int64]:
    """A number for each distinct value, valid in this split only; -1 where missing."""
    coded = texts_of(table, column)
    return np.where(coded.missing, np.int64(-1), coded.codes)
