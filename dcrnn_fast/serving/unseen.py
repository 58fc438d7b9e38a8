"""Counts the cells of scored rows that a model does not know, and says which fields and numbers are no longer as in the train rows."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data import Encoder
from ..data.codes.numbers import raw_value
from ..data.encoder.encoder import Columns
from ..data.inspect.oov import MIN_ROWS, RISE, lost_fields, risen_fields
from ..data.packed.meta import MISSING, OOV, whole_vocabulary
from ..errors import DataError
from ..support.pooled_fields import first_columns

WINDOW = 2000
"""Rates are those of about the last so many rows: two of the largest requests, so that one alone loses no field."""
REQUEST = 1000
"""A table of at most so many rows may be the candidates of one user; a larger one is judged by itself."""
FEW = 32
"""So many calls of at most so many rows are counted together."""
ENOUGH = 100
"""So many users, items or numbers, in a table or in :data:`MIN_ROWS` requests, say that they are others than before."""
_CELLS, _UNKNOWN, _MISSING, _STARTS = range(4)
"""What is counted of a field: cells, of which unknown and missing, and how often another known id follows."""
_BELOW, _ABOVE = _UNKNOWN, _MISSING
"""What is counted of a number instead: values below and above its range. Missing ones are no cells."""
_LOCK = threading.Lock()


class Cells(NamedTuple):
    """A field, its column among the ids, the id of a missing cell if there is one, and the rates of train and validation, or None."""

    field: str
    column: int
    missing_id: int | None
    oov: float | None
    missing: float | None
    valid_oov: float | None = None
    valid_missing: float | None = None


class Number(NamedTuple):
    """A dense column, and the range of :func:`dcrnn_fast.data.inspect.ranges.dense_ranges`, scaled and as numbers of the table."""

    column: str
    low: float
    high: float
    least: float
    most: float


def numbers_of(encoder: Encoder, encoding: Mapping[str, Any], ranges: Mapping[str, Sequence[float]]) -> list[Number]:
    """The dense columns of an encoder that was made of ``encoding``. ``ranges`` are the ``dense_ranges`` of the run's description."""
    return [
        Number(name, *ranges[name], *(raw_value(bound, **encoding["scaling"][name]) for bound in ranges[name]))
        for name in encoder.dense
        if name in ranges
    ]


def read_numbers(rows: Any) -> list[Number]:
    """The dense columns that a file lists. Raises ValueError for what is no list of such."""
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, list) or [type(one) for one in row] != [str, float, float, float, float]:
            raise ValueError(f"{row!r} is no dense column")
    return [Number(*row) for row in rows]


def cells_of(encoder: Encoder, encoding: Mapping[str, Any], about: Mapping[str, Any]) -> list[Cells]:
    """The fields of an encoder. ``encoding`` is what it was made of, ``about`` the run's description."""
    names, vocabulary = list(encoder.num_embeddings), whole_vocabulary(encoding)
    shares, valid = about["id_shares"], about.get("valid_shares", {})
    found = []
    for field, column in first_columns(encoder.pooled, names).items():
        entries = vocabulary[column]
        missing: int | None = 0
        if entries[:1] == [OOV]:
            missing = entries.index(MISSING) if MISSING in entries and field not in encoder.pooled else None
        of_both = [one.get(field, {}).get(kind) for one in (shares, valid) for kind in ("oov", "missing")]
        found.append(Cells(field, names.index(column), missing, *of_both))
    return found


def read_cells(rows: list[Any], columns: int) -> list[Cells]:
    """The fields that a file lists. Raises ValueError for what is no list of fields of so many columns."""
    for row in rows:
        field, column, missing_id, *shares = row if isinstance(row, list) and len(row) in (5, 7) else [None] * 5
        is_id = missing_id is None or (type(missing_id) is int and missing_id >= 0)
        are_shares = all(share is None or (type(share) in (int, float) and 0 <= share <= 1) for share in shares)
        if not (isinstance(field, str) and type(column) is int and 0 <= column < columns and is_id and are_shares):
            raise ValueError(f"{row!r} is no field")
    return [Cells(*row) for row in rows]


class Rows(NamedTuple):
    """Encoded rows of some columns that were not counted yet, see :meth:`Unseen.add`."""

    columns: Columns
    ids: npt.NDArray[np.int64]
    dense: npt.NDArray[np.float32]
    alike: npt.NDArray[np.bool_] | None

    def weights(self, by_request: bool) -> npt.NDArray[np.float64]:
        """How much each cell of a column counts, and 1 [F + Nd + 1]."""
        weights = np.ones(self.ids.shape[1] + self.dense.shape[1] + 1)
        if self.alike is not None and (by_request or len(self.ids) <= REQUEST):
            weights[:-1][self.alike] /= len(self.ids)
        return weights

    def may_be_one_users(self, cells: npt.NDArray[np.bool_]) -> bool:
        """Whether the rows are few, and have one of these cells in common."""
        return self.alike is None or (len(self.ids) <= REQUEST and bool(self.alike[cells].any()))


class _Part:
    """Counts rows of some of an encoder's columns."""

    def __init__(self, columns: Columns, whole: Columns, cells: Sequence[Cells], numbers: Sequence[Number]) -> None:
        ids, dense = columns
        at = [at for at, one in enumerate(cells) if whole[0][one.column] in ids]
        numbers_at = [at for at, one in enumerate(numbers, len(cells)) if one.column in dense]
        fields, ranges = [cells[one] for one in at], [numbers[one - len(cells)] for one in numbers_at]
        self.is_whole = columns == whole
        self.of_users = np.array([one not in dense for one in ids] + [True] * len(dense), bool)  # many numbers may be in one bucket
        self._of, self._numbers_of = [ids.index(whole[0][one.column]) for one in fields], [dense.index(one.column) for one in ranges]
        self._is_category = np.array([one.oov is not None for one in fields], bool)
        self._missing_id = np.array([-1 if one.missing_id is None else one.missing_id for one in fields], np.int64)
        self._low, self._high = (np.array(bounds, np.float32) for bounds in ([one.low for one in ranges], [one.high for one in ranges]))
        self._last: npt.NDArray[np.int64] | None = None
        # What is counted together, in this order: the total of each, its field or number, and the weight's column; the last is 1.
        kinds = ((_UNKNOWN, at), (_MISSING, at), (_STARTS, at), (_CELLS, numbers_at), (_BELOW, numbers_at), (_ABOVE, numbers_at))
        self._totals = [_CELLS] * len(at) + [total for total, places in kinds for _ in places]
        self._places = at + [place for _, places in kinds for place in places]
        self._weights = self._of * 2 + [-1] * len(at) + [len(ids) + one for one in self._numbers_of] * 3

    def count(self, calls: Sequence[Rows], by_request: bool, totals: npt.NDArray[np.float64]) -> None:
        """Add rows of these columns to the totals."""
        lengths = [len(rows.ids) for rows in calls]
        weights = np.array([rows.weights(by_request) for rows in calls])
        ids, dense = _chosen([rows.ids for rows in calls], self._of), _chosen([rows.dense for rows in calls], self._numbers_of)
        is_zero = ids == 0
        starts = ~is_zero
        starts[0] &= self._last is None or ids[0] != self._last
        starts[1:] &= ids[1:] != ids[:-1]
        self._last = ids[-1].copy()
        counted = (is_zero & self._is_category, ids == self._missing_id, starts, dense != 0, dense < self._low, dense > self._high)
        found = np.add.reduceat(np.concatenate(counted, axis=1), np.cumsum([0, *lengths[:-1]]), dtype=np.int32)
        sums = (found * weights[:, self._weights]).sum(0)
        totals[self._totals, self._places] += np.concatenate([np.array(lengths) @ weights[:, self._of], sums])


def _chosen(parts: Sequence[npt.NDArray[Any]], columns: list[int]) -> npt.NDArray[Any]:
    whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return whole if columns == list(range(whole.shape[1])) else whole[:, columns]


class Unseen:
    """The cells of an encoder's rows that are out of vocabulary and missing, by field, and the values beyond their range, by number.

    A field is lost by the rule of :func:`dcrnn_fast.data.inspect.oov.lost_fields`. With ``strict`` the encoder then raises DataError and
    the rows so far are forgotten; else :meth:`news` has a line, once. So it has for a field whose share has risen by the rule of
    :func:`dcrnn_fast.data.inspect.oov.risen_fields`, and for a number of whose values most are above or below its range. A cell that all
    rows of a small table have counts once, since they may be one user's; with ``by_request``, so does one of a large table.
    """

    def __init__(self, encoder: Encoder, cells: Sequence[Cells], numbers: Sequence[Number], *, strict: bool = False) -> None:
        self.cells, self.numbers, self.strict, self.by_request = list(cells), list(numbers), strict, False
        self._columns: Columns = tuple(encoder.num_embeddings), encoder.dense
        self.clear()
        encoder.watch = self.add

    def clear(self) -> None:
        """Forget all rows."""
        self._totals = np.zeros((4, len(self.cells) + len(self.numbers)))
        self._parts: dict[Columns, _Part] = {}
        self._requests = 0
        self._waiting: list[Rows] = []
        self._told: set[str] = set()
        self._news: list[str] = []

    def add(
        self, columns: Columns, ids: npt.NDArray[np.int64], dense: npt.NDArray[np.float32], alike: npt.NDArray[np.bool_] | None
    ) -> None:
        """Count rows of these columns; ``alike`` says of each column whether all its cells are one, or is None for one row."""
        is_small = len(ids) <= FEW
        with _LOCK:
            self._waiting.append(Rows(columns, ids.copy(), dense.copy(), alike) if is_small else Rows(columns, ids, dense, alike))
            if is_small and not self.strict and len(self._waiting) < FEW:
                return
            added = self._count_waiting()
            judged = added if len(ids) > REQUEST else self._totals  # a table is judged by itself
            lost, changed = self._lines(judged)
            lines = changed | lost
            self._news += [line for name, line in lines.items() if name not in self._told]
            self._told.update(lines)
            if lost and self.strict:
                self.clear()
        if lost and self.strict:
            raise DataError(next(iter(lost.values())))

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
        """A line for each field and number that is no longer as in the train rows and was not told yet."""
        with _LOCK:
            news, self._news = self._news, []
        return news

    def warn(self) -> None:
        """Give the news as Python's warnings."""
        for line in self.news():
            warnings.warn(line, stacklevel=3)

    def _count_waiting(self) -> npt.NDArray[np.float64]:
        """Count what waits. Returns by how much the totals [4, fields + numbers] have grown."""
        waiting, self._waiting, added = self._waiting, [], np.zeros_like(self._totals)
        for columns in dict.fromkeys(rows.columns for rows in waiting):
            if columns not in self._parts:
                self._parts[columns] = _Part(columns, self._columns, self.cells, self.numbers)
            part, calls = self._parts[columns], [rows for rows in waiting if rows.columns == columns]
            part.count(calls, self.by_request, added)
            is_table = part.is_whole and not self.by_request
            self._requests += sum(MIN_ROWS if is_table and not rows.may_be_one_users(part.of_users) else 1 for rows in calls)
        room = np.maximum(WINDOW - added[_CELLS], 0)
        self._totals = self._totals * np.minimum(1, room / np.maximum(self._totals[_CELLS], 1)) + added
        return added

    def _shares(self, at: int, totals: npt.NDArray[np.float64]) -> dict[str, float]:
        rows, unknown, missing, _ = totals[:, at].tolist()
        one = self.cells[at]
        kinds = (("oov", unknown, one.oov), ("missing", missing, one.missing))
        return {kind: count / rows for kind, count, trained in kinds if rows and trained is not None}

    def _lines(self, totals: npt.NDArray[np.float64]) -> tuple[dict[str, str], dict[str, str]]:
        """By field, a line of each that is lost; by field and number, a line of each other that is no longer as in the train rows."""
        lost: dict[str, str] = {}
        changed: dict[str, str] = {}
        rows, unknown, missing, starts = totals
        for at in map(int, np.flatnonzero((rows >= MIN_ROWS) & (unknown + missing >= RISE * rows))):
            if at >= len(self.cells):
                number, (below, above) = self.numbers[at - len(self.cells)], totals[[_BELOW, _ABOVE], at] / rows[at]
                part, where = max((below, f"below {number.least:,.6g}"), (above, f"above {number.most:,.6g}"))
                if self._requests >= MIN_ROWS and rows[at] >= ENOUGH and part > 0.5:
                    changed[f"number {number.column}"] = (
                        f"number {number.column!r}: {part:.1%} of the scored values are {where}, but at most 1.0% of the train values: "
                        "compare their units, such as cents with euros; if the scored values are right, train on newer rows"
                    )
                continue
            one, now = self.cells[at], self._shares(at, totals)
            train, valid = {"oov": one.oov, "missing": one.missing}, {"oov": one.valid_oov, "missing": one.valid_missing}
            for line in lost_fields({one.field: train}, {one.field: now}, "scored", round(rows[at])):
                lost[one.field] = line
            # Rows of one user, one after another, have one id: there are as many users as known ids that begin.
            known = rows[at] - unknown[at] - (missing[at] if one.missing_id == 0 else 0)
            if self._requests >= MIN_ROWS and starts[at] and starts[at] * rows[at] >= ENOUGH * known:
                for line in risen_fields({one.field: train}, {one.field: valid}, {one.field: now}, "scored"):
                    changed[one.field] = line
        return lost, changed
