"""Counts the cells of scored rows that a model does not know, and says which fields have lost what they had in the train rows."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data import Encoder
from ..data.inspect.oov import MIN_ROWS, lost_fields
from ..data.packed.meta import MISSING, OOV, whole_vocabulary
from ..errors import DataError
from ..support.pooled_fields import first_columns

WINDOW = 8192
"""Rates are those of about the last so many rows."""
REQUEST = 1000
"""A table of at most so many rows may be the candidates of one user."""
FEW = 32
"""So many calls of one row are counted together."""
_LOCK = threading.Lock()


class Cells(NamedTuple):
    """A field, its column among the ids, the id of a missing cell if there is one, and the rates of the train rows, or None."""

    field: str
    column: int
    missing_id: int | None
    oov: float | None
    missing: float | None


def cells_of(encoder: Encoder, encoding: Mapping[str, Any], shares: Mapping[str, Mapping[str, float | None]]) -> list[Cells]:
    """The fields of an encoder. ``encoding`` is what it was made of, ``shares`` the ``id_shares`` of the run's description."""
    names, vocabulary = list(encoder.num_embeddings), whole_vocabulary(encoding)
    found = []
    for field, column in first_columns(encoder.pooled, names).items():
        entries = vocabulary[column]
        missing: int | None = 0
        if entries[:1] == [OOV]:
            missing = entries.index(MISSING) if MISSING in entries and field not in encoder.pooled else None
        found.append(Cells(field, names.index(column), missing, shares[field]["oov"], shares[field]["missing"]))
    return found


def read_cells(rows: Any, columns: int) -> list[Cells]:
    """The fields that a file lists. Raises ValueError for what is no list of fields of so many columns."""
    for row in rows if isinstance(rows, list) else [rows]:
        field, column, missing_id, *shares = row if isinstance(row, list) and len(row) == 5 else [None] * 5
        is_id = missing_id is None or (type(missing_id) is int and missing_id >= 0)
        are_shares = all(share is None or (type(share) in (int, float) and 0 <= share <= 1) for share in shares)
        if not (isinstance(field, str) and type(column) is int and 0 <= column < columns and is_id and are_shares):
            raise ValueError(f"{row!r} is no field")
    return [Cells(*row) for row in rows]


class Unseen:
    """The cells of an encoder's rows that are out of vocabulary and missing, by field.

    A field is lost by the rule of :func:`dcrnn_fast.data.inspect.oov.lost_fields`. With ``strict`` the encoder then raises DataError, else
    ``news`` gets a line, once. An unknown text that all rows of a small table have counts once, since it may be one new user's; with
    ``by_request``, so does any cell that all rows of a call have.
    """

    def __init__(self, encoder: Encoder, cells: Sequence[Cells], *, strict: bool = False) -> None:
        self.cells, self.strict, self.by_request = list(cells), strict, False
        self.news: list[str] = []
        self._columns = list(encoder.num_embeddings)
        self._places: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}
        self._is_category = np.array([one.oov is not None for one in self.cells])
        self._missing_id = np.array([-1 if one.missing_id is None else one.missing_id for one in self.cells])
        self.clear()
        encoder.watch = self.add

    def clear(self) -> None:
        """Forget all rows."""
        self._totals = np.zeros((3, len(self.cells)))
        self._waiting: list[tuple[tuple[str, ...], npt.NDArray[np.int64]]] = []
        self._told: set[str] = set()

    def add(self, columns: tuple[str, ...], ids: npt.NDArray[np.int64], alike: npt.NDArray[np.bool_] | None) -> None:
        """Count rows of these columns; ``alike`` says of each column whether all its cells are one."""
        with _LOCK:
            if len(ids) > 1:
                self._count(columns, ids, alike)
            else:
                self._waiting.append((columns, ids.copy()))
                if len(self._waiting) < FEW:
                    return
                self._count_waiting()
            lines = self._lost()
        if lines and self.strict:
            raise DataError(next(iter(lines.values())))
        self.news += [line for field, line in lines.items() if field not in self._told]
        self._told.update(lines)

    def rates(self) -> dict[str, dict[str, float]]:
        """By field, the parts "oov" and "missing" of the cells counted so far, where the field has such cells."""
        with _LOCK:
            self._count_waiting()
            return {one.field: self._shares(at) for at, one in enumerate(self.cells)}

    def trained(self) -> dict[str, dict[str, float]]:
        """By field, the same of the train rows."""
        return {
            one.field: {kind: share for kind, share in (("oov", one.oov), ("missing", one.missing)) if share is not None}
            for one in self.cells
        }

    def warn(self) -> None:
        """Give the news as Python's warnings."""
        while self.news:
            warnings.warn(self.news.pop(0), stacklevel=3)

    def _count_waiting(self) -> None:
        by_columns: dict[tuple[str, ...], list[npt.NDArray[np.int64]]] = {}
        for columns, ids in self._waiting:
            by_columns.setdefault(columns, []).append(ids)
        self._waiting = []
        for columns, rows in by_columns.items():
            self._count(columns, np.concatenate(rows), None)

    def _count(self, columns: tuple[str, ...], ids: npt.NDArray[np.int64], alike: npt.NDArray[np.bool_] | None) -> None:
        if columns not in self._places:
            here = [(at, columns.index(name)) for at, one in enumerate(self.cells) if (name := self._columns[one.column]) in columns]
            self._places[columns] = [at for at, _ in here], [place for _, place in here]
        at, places = self._places[columns]
        block = ids[:, places]
        missing = (block == self._missing_id[at]).sum(0)
        unknown = np.where(self._is_category[at], (block == 0).sum(0), 0)
        weight = np.ones(len(at))
        if alike is not None and (self.by_request or len(ids) <= REQUEST):
            weight[alike[places] & (self.by_request | (missing == 0))] /= len(ids)
        new = np.stack([np.full(len(at), len(ids)), unknown, missing]) * weight
        before = self._totals[:, at]
        room = np.maximum(WINDOW - new[0], 0)
        self._totals[:, at] = before * np.minimum(1, room / np.maximum(before[0], 1)) + new

    def _shares(self, at: int) -> dict[str, float]:
        rows, unknown, missing = self._totals[:, at].tolist()
        one = self.cells[at]
        kinds = (("oov", unknown, one.oov), ("missing", missing, one.missing))
        return {kind: count / rows for kind, count, trained in kinds if rows and trained is not None}

    def _lost(self) -> dict[str, str]:
        rows, unknown, missing = self._totals
        lines: dict[str, str] = {}
        for at in map(int, np.flatnonzero((rows >= MIN_ROWS) & (unknown + missing >= 0.9 * rows))):
            one = self.cells[at]
            trained = {one.field: {"oov": one.oov, "missing": one.missing}}
            for line in lost_fields(trained, {one.field: self._shares(at)}, "scored", round(rows[at])):
                lines[one.field] = line
        return lines
