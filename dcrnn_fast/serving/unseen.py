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

WINDOW = 2000
"""Rates are those of about the last so many rows: two of the largest requests, so that one alone loses no field."""
REQUEST = 1000
"""A table of at most so many rows may be the candidates of one user; a larger one is judged by itself."""
FEW = 32
"""So many calls of at most so many rows are counted together."""
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


def read_cells(rows: list[Any], columns: int) -> list[Cells]:
    """The fields that a file lists. Raises ValueError for what is no list of fields of so many columns."""
    for row in rows:
        field, column, missing_id, *shares = row if isinstance(row, list) and len(row) == 5 else [None] * 5
        is_id = missing_id is None or (type(missing_id) is int and missing_id >= 0)
        are_shares = all(share is None or (type(share) in (int, float) and 0 <= share <= 1) for share in shares)
        if not (isinstance(field, str) and type(column) is int and 0 <= column < columns and is_id and are_shares):
            raise ValueError(f"{row!r} is no field")
    return [Cells(*row) for row in rows]


class Rows(NamedTuple):
    """Encoded rows of some columns that were not counted yet, see :meth:`Unseen.add`."""

    columns: tuple[str, ...]
    ids: npt.NDArray[np.int64]
    alike: npt.NDArray[np.bool_] | None

    def weights(self, by_request: bool) -> npt.NDArray[np.float64]:
        """How much each cell of a column [F] counts."""
        weights = np.ones(self.ids.shape[1])
        if self.alike is not None and (by_request or len(self.ids) <= REQUEST):
            weights[self.alike] /= len(self.ids)
        return weights


class Unseen:
    """The cells of an encoder's rows that are out of vocabulary and missing, by field.

    A field is lost by the rule of :func:`dcrnn_fast.data.inspect.oov.lost_fields`. With ``strict`` the encoder then raises DataError and
    the rows so far are forgotten; else :meth:`news` has a line, once. A cell that all rows of a small table have counts once, since they
    may be one user's; with ``by_request``, so does one of a large table.
    """

    def __init__(self, encoder: Encoder, cells: Sequence[Cells], *, strict: bool = False) -> None:
        self.cells, self.strict, self.by_request = list(cells), strict, False
        self._columns = list(encoder.num_embeddings)
        self._places: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}
        self._is_category = np.array([one.oov is not None for one in self.cells], bool)
        self._missing_id = np.array([-1 if one.missing_id is None else one.missing_id for one in self.cells], np.int64)
        self.clear()
        encoder.watch = self.add

    def clear(self) -> None:
        """Forget all rows."""
        self._totals = np.zeros((3, len(self.cells)))
        self._waiting: list[Rows] = []
        self._told: set[str] = set()
        self._news: list[str] = []

    def add(self, columns: tuple[str, ...], ids: npt.NDArray[np.int64], alike: npt.NDArray[np.bool_] | None) -> None:
        """Count rows of these columns; ``alike`` says of each column whether all its cells are one, or is None for one row."""
        is_small = len(ids) <= FEW
        with _LOCK:
            self._waiting.append(Rows(columns, ids.copy() if is_small else ids, alike))
            if is_small and not self.strict and len(self._waiting) < FEW:
                return
            added = self._count_waiting()
            lines = self._lost(added if len(ids) > REQUEST else self._totals)  # a table is judged by itself
            self._news += [line for field, line in lines.items() if field not in self._told]
            self._told.update(lines)
            if lines and self.strict:
                self.clear()
        if lines and self.strict:
            raise DataError(next(iter(lines.values())))

    def rates(self) -> dict[str, dict[str, float]]:
        """By field, the parts "oov" and "missing" of the cells counted so far, where the field has such cells."""
        with _LOCK:
            self._count_waiting()
            return {one.field: self._shares(at, self._totals) for at, one in enumerate(self.cells)}

    def trained(self) -> dict[str, dict[str, float]]:
        """By field, the same of the train rows."""
        return {
            one.field: {kind: share for kind, share in (("oov", one.oov), ("missing", one.missing)) if share is not None}
            for one in self.cells
        }

    def news(self) -> list[str]:
        """A line for each field that is lost and was not told yet."""
        with _LOCK:
            news, self._news = self._news, []
        return news

    def warn(self) -> None:
        """Give the news as Python's warnings."""
        for line in self.news():
            warnings.warn(line, stacklevel=3)

    def _count_waiting(self) -> npt.NDArray[np.float64]:
        """Count what waits. Returns by how much the totals [3, fields] have grown."""
        waiting, self._waiting, added = self._waiting, [], np.zeros_like(self._totals)
        for columns in dict.fromkeys(rows.columns for rows in waiting):
            if columns not in self._places:
                here = [(at, columns.index(name)) for at, one in enumerate(self.cells) if (name := self._columns[one.column]) in columns]
                self._places[columns] = [at for at, _ in here], [place for _, place in here]
            at, places = self._places[columns]
            same = [rows for rows in waiting if rows.columns == columns]
            begins = np.cumsum([0, *(len(rows.ids) for rows in same[:-1])])
            ids = np.concatenate([rows.ids for rows in same]) if len(same) > 1 else same[0].ids
            ids = ids if places == list(range(ids.shape[1])) else ids[:, places]
            weights = np.stack([rows.weights(self.by_request)[places] for rows in same])  # [calls, fields]
            for total, counted in ((0, None), (1, (ids == 0) & self._is_category[at]), (2, ids == self._missing_id[at])):
                counts = np.diff([*begins, len(ids)])[:, None] if counted is None else np.add.reduceat(counted, begins, dtype=np.int32)
                added[total, at] += (counts * weights).sum(0)
        room = np.maximum(WINDOW - added[0], 0)
        self._totals = self._totals * np.minimum(1, room / np.maximum(self._totals[0], 1)) + added
        return added

    def _shares(self, at: int, totals: npt.NDArray[np.float64]) -> dict[str, float]:
        rows, unknown, missing = totals[:, at].tolist()
        one = self.cells[at]
        kinds = (("oov", unknown, one.oov), ("missing", missing, one.missing))
        return {kind: count / rows for kind, count, trained in kinds if rows and trained is not None}

    def _lost(self, totals: npt.NDArray[np.float64]) -> dict[str, str]:
        rows, unknown, missing = totals
        lines: dict[str, str] = {}
        for at in map(int, np.flatnonzero((rows >= MIN_ROWS) & (unknown + missing >= 0.9 * rows))):
            one = self.cells[at]
            trained = {one.field: {"oov": one.oov, "missing": one.missing}}
            for line in lost_fields(trained, {one.field: self._shares(at, totals)}, "scored", round(rows[at])):
                lines[one.field] = line
        return lines
