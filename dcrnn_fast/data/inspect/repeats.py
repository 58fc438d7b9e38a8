"""Columns of ids that say nothing new: one whose ids hardly repeat, and one that another column determines one to one. Needs NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ..packed.arrays import PackedSplit
from ..packed.meta import OOV, PackedMeta
from .oov import ASKED_ROWS, Counts, IdCounts, missing_id

NEARLY_UNIQUE = "nearly unique: it groups the rows and is not a feature"
FEW, OFTEN, HEAD = 50, 10, 0.2
"""A column of at most FEW ids costs little and is not judged. Where ids that OFTEN rows have are on HEAD of the rows, as in searches, it
tells something, however many others it has."""
ALIKE, GLANCE = 0.9, 1000
"""Of two columns one to one, ALIKE of the rows that have either id have both. Among about GLANCE rows, most pairs fail already."""
Ids = npt.NDArray[np.integer]


def nearly_unique(counts: Counts) -> bool:
    """Whether ids that so many rows have are seen less than twice on average, and few of them often. An id of count 0 is none."""
    rows = counts.sum()
    return bool(np.count_nonzero(counts) > max(FEW, rows / 2) and counts[counts >= OFTEN].sum() < HEAD * rows)


def one_to_one(columns: Mapping[str, Ids]) -> dict[str, str]:
    """By column that an earlier one determines, and that determines it: the earlier one. Id 0 is missing, or unknown."""
    sizes = {name: np.count_nonzero(np.bincount(ids)[1:]) for name, ids in columns.items()}
    judged = [name for name, ids in columns.items() if FEW < sizes[name] <= np.count_nonzero(ids) / 2]  # of fewer rows, chance is enough
    found: dict[str, str] = {}
    for other, name in combinations(judged, 2):
        a, b = columns[other], columns[name]
        if other not in found and all(_are_alike(a[::step], b[::step]) for step in (1 + len(a) // GLANCE, 1)):
            found[name] = other
    return found


def _are_alike(a: Ids, b: Ids) -> bool:
    both = (a > 0) & (b > 0)
    pair = a[both], b[both]
    return bool(both.sum() >= ALIKE * ((a > 0) | (b > 0)).sum()) and _determines(*pair) and _determines(*pair[::-1])


def _determines(a: Ids, b: Ids) -> bool:
    told = np.zeros(a.max(initial=0) + 1, b.dtype)
    told[a] = b
    return bool((told[a] == b).all())


def unique_fields(meta: PackedMeta, counts: IdCounts) -> list[str]:
    """The fields that are nearly unique in the train rows; what fields that share their embeddings hold counts together."""
    held = {field: np.where(own > 0, alike, 0) for field, own, alike in zip(meta.fields, *counts, strict=True)}
    return [field for field, (_, missing) in _one_id_a_row(meta).items() if nearly_unique(np.delete(held[field], [0, missing]))]


def same_fields(train: PackedSplit, meta: PackedMeta) -> dict[str, str]:
    """By field that an earlier one determines one to one in the train rows, judged by a million of them: the earlier one."""
    rows = np.asarray(train.ids[:: -(-len(train) // ASKED_ROWS) or 1])
    return one_to_one({field: rows[:, at] * (rows[:, at] != missing) for field, (at, missing) in _one_id_a_row(meta).items()})


def _one_id_a_row(meta: PackedMeta) -> dict[str, tuple[int, int]]:
    """By field with one id a row, which is not a bucket: its column, and the id of a missing cell."""
    first = meta.first_columns
    return {
        field: (at, missing_id(meta, field) or 0)
        for at, field in enumerate(meta.fields)
        if first.get(field) == field and meta.vocabulary.get(field, [])[:1] in ([], [OOV])
    }
