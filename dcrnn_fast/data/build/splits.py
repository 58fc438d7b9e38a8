"""Which split each row of a staged table belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...errors import DataError
from ..codes.numbers import Place
from ..packed.meta import MISSING, SPLITS
from ..read.columns import check_one_unit
from ..read.text_queries import hashes
from ..schema.files import Split
from ..schema.table import TableSchema
from .staging import BatchValues, StagedTable

PAST, TRAIN, VALID, TEST = range(-1, 3)
SplitArray = npt.NDArray[np.int8]
"""For each row, the index of its split in SPLITS, or PAST if it is in none."""


def split_rows(
    schema: TableSchema,
    staged: StagedTable,
    roles: Mapping[str, int],
    database: duckdb.DuckDBPyConnection,
    *,
    seed: int,
    valid_fraction: float,
    learns: bool,
) -> SplitArray:
    """The split of every row; `roles` holds the rows of each role, in the order of the table, those of the past first.

    Without validation rows of its own, `valid_fraction` of the train rows, drawn with `seed`, become the validation split. A
    `test_fraction` is drawn with the schema's `test_seed`, so `seed` never changes the test rows. Raises DataError if no train row is left
    where an encoding `learns` from them, for another value than train, valid and test in a split column, and for a missing time.
    """
    past, has_valid = roles.get("past", 0), "valid" in roles
    if "all" not in roles:
        given = {role: rows for role, rows in roles.items() if role != "past"}
        splits = np.repeat(np.array([SPLITS.index(role) for role in given], np.int8), list(given.values()))
    elif (rule := schema.split) is not None:
        if rule.time is not None:
            splits = _by_time(schema.name, rule, rule.time, staged, past, learns=learns)
        else:
            splits = _of_rows(staged, staged.texts[str(rule.hash)].map(lambda texts: splits_by_hash(rule, texts, database), np.int8))[past:]
        has_valid = rule.valid is not None
    elif schema.files.split_column is not None:
        splits = _by_column(schema, staged, schema.files.split_column, past)
        has_valid = bool((splits == VALID).any())
    else:
        splits = np.zeros(staged.rows - past, np.int8)
        assert schema.files.test_fraction is not None
        _draw(splits, schema.files.test_fraction, schema.files.test_seed, TEST)
    train = int((splits == TRAIN).sum())
    if not train and learns:
        raise DataError(
            f"data set {schema.name!r}: no train rows in {', '.join(schema.files.roles().get('train', schema.files.all or ()))}"
        )
    if not has_valid:
        _draw(splits, valid_fraction, seed, VALID)
        if train and not (splits == TRAIN).any():
            raise DataError(f"data set {schema.name!r}: valid_fraction {valid_fraction} leaves no train row of {train}")
    return np.concatenate([np.full(past, PAST, np.int8), splits]) if past else splits


def _draw(splits: SplitArray, fraction: float, seed: int, to: int) -> None:
    """Move a part of the train rows."""
    rows = np.flatnonzero(splits == TRAIN)
    splits[rows[np.random.default_rng(seed).permutation(len(rows))[: round(len(rows) * fraction)]]] = to


def _by_column(schema: TableSchema, staged: StagedTable, name: str, past: int) -> SplitArray:
    column = staged.texts[name]
    found = set(column.texts().unique().to_pylist())
    splits = _of_rows(staged, column.map(splits_by_name, np.int8))[past:]
    if (splits < 0).any() or not {TRAIN, TEST} <= set(np.unique(splits).tolist()):
        names = sorted(found - {MISSING})[:10] + ([MISSING] if (splits < 0).any() and MISSING in found else [])
        raise DataError(
            f"data set {schema.name!r}: split column {name!r} holds {', '.join(names)} (at most 10 shown), expected train, test and "
            "optionally valid"
        )
    return splits


def _by_time(data_set: str, split: Split, column: str, staged: StagedTable, past: int, *, learns: bool) -> SplitArray:
    times = _of_rows(staged, staged.times[column].values)[past:]
    missing = np.isnan(times)
    if missing.any():
        row = past + int(missing.argmax())
        batch = next(batch for batch in staged.batches if row < batch.start + batch.rows)
        raise no_time(batch.place, row - batch.start, column)
    table, used = f"data set {data_set!r}", "splits the rows by time"
    if not staged.times[column].moments:
        check_one_unit(times, used, column, table)
    splits = np.zeros(len(times), np.int8)
    in_order = np.sort(times)
    for place, to in zip(first_places(split, len(times)), (VALID, TEST), strict=True):
        if place < len(times):  # rows of one time stay together, in the later split
            splits[times >= in_order[place]] = to
    if learns and len(times) and (splits != TRAIN).all():
        held = f"{int((times == in_order[0]).sum()):,} of the {len(times):,} rows have its first time"
        held = "all rows have one time" if in_order[0] == in_order[-1] else held
        problem = f"{used}, but {held}, and rows of one time stay together, so that none are left to train on"
        raise DataError(f"{problem}; split by another column, or give the rows of each split apart", table=table, column=column)
    return splits


def no_time(place: Place, row: int, column: str) -> DataError:
    """The error for a row of a batch that has none."""
    return place.error("splits the rows by time and is empty; fill it, or leave the row out", row, column)


def first_places(split: Split, rows: int) -> tuple[int, int]:
    """Where the validation and the test rows begin in so many rows by time; behind all of them where there are none."""
    parts = split.test + (split.valid or 0), split.test
    valid, test = (min(round(rows * (1 - part)), rows - 1) if part else rows for part in parts)
    return valid, test


def splits_by_hash(split: Split, texts: pa.ChunkedArray, database: duckdb.DuckDBPyConnection) -> npt.NDArray[Any]:
    """The split of the rows that hold each text."""
    part = hashes(database, texts, f"{split.seed}:") / 2.0**64
    return np.where(part < split.test, TEST, np.where(part < split.test + (split.valid or 0), VALID, TRAIN))


def splits_by_name(texts: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The split that each text names, or -1."""
    return np.array([SPLITS.index(text) if text in SPLITS else -1 for text in texts.to_pylist()])


def _of_rows(staged: StagedTable, values: BatchValues) -> npt.NDArray[Any]:
    return np.concatenate([values(batch) for batch in staged.batches]) if staged.batches else np.zeros(0, np.int8)
