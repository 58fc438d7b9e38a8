"""Which split each row of a staged table belongs to."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ..packed.meta import MISSING, SPLITS
from ..read.text_queries import hashes
from ..schema.table import TableSchema
from .staging import StagedTable

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
    elif schema.split is not None:
        splits = _by_time(schema, staged, past) if schema.split.time is not None else _by_hash(schema, staged, database)[past:]
        has_valid = schema.split.valid is not None
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
    splits = _of(staged, column.map(lambda texts: np.array([SPLITS.index(t) if t in SPLITS else -1 for t in texts.to_pylist()]), np.int8))
    splits = splits[past:]
    if (splits < 0).any() or not {TRAIN, TEST} <= set(np.unique(splits).tolist()):
        names = sorted(found - {MISSING})[:10] + ([MISSING] if (splits < 0).any() and MISSING in found else [])
        raise DataError(
            f"data set {schema.name!r}: split column {name!r} holds {', '.join(names)} (at most 10 shown), expected train, test and "
            "optionally valid"
        )
    return splits


def _by_time(schema: TableSchema, staged: StagedTable, past: int) -> SplitArray:
    split = schema.split
    assert split is not None
    assert split.time is not None
    times = staged.times[split.time].read(past, staged.rows - past)
    missing = np.isnan(times)
    if missing.any():
        row = past + int(missing.argmax())
        batch = next(batch for batch in staged.batches if row < batch.start + batch.rows)
        where = batch.place.row(row - batch.start)
        raise DataError(f"{where}: column {split.time!r} splits the rows by time and is empty; fill it, or leave the row out")
    splits = np.zeros(len(times), np.int8)
    in_order = np.sort(times)
    for part, to in ((split.test + (split.valid or 0), VALID), (split.test, TEST)):  # rows of one time stay together
        if len(times):
            splits[times >= in_order[min(round(len(times) * (1 - part)), len(times) - 1)]] = to
    return splits


def _by_hash(schema: TableSchema, staged: StagedTable, database: duckdb.DuckDBPyConnection) -> SplitArray:
    split = schema.split
    assert split is not None
    assert split.hash is not None
    test = split.test
    valid = test + (split.valid or 0)

    def split_of(texts):  # type: ignore[no-untyped-def]
        part = hashes(database, texts, f"{split.seed}:") / 2.0**64
        return np.where(part < test, TEST, np.where(part < valid, VALID, TRAIN))

    return _of(staged, staged.texts[split.hash].map(split_of, np.int8))


def _of(staged: StagedTable, splits) -> SplitArray:  # type: ignore[no-untyped-def]
    return np.concatenate([splits.values(batch) for batch in staged.batches]) if staged.batches else np.zeros(0, np.int8)
