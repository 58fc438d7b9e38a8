"""Counts the cells of scored rows that a model does not know, and says which fields and numbers are no longer as in the train rows."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data import Encoder
from ..data.inspect.oov import MIN_ROWS, RISE, lost_fields, risen_fields
from ..data.packed.meta import MISSING, OOV, whole_vocabulary
from ..errors import DataError
from ..support.fields import first_columns

WINDOW = 2000
"""Rates are those of about the last so many rows: two of the largest requests, so that one alone loses no field."""
REQUEST = 1000
"""A table of at most so many rows may be the candidates of one user; a larger one is judged by itself."""
FEW = 32
"""So many calls of at most so many rows are counted together."""
ENOUGH = 100
"""So many users, items or numbers, in a table or in :data:`MIN_ROWS` requests, say that they are others than before."""
KINDS = ("oov", "missing")
Array = npt.NDArray[np.float64]
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


def cells_of(encoder: Encoder, encoding: Mapping[str, Any], about: Mapping[str, Any]) -> list[Cells]:
    """The fields of an encoder. ``encoding`` is what it was made of, ``about`` the run's description."""
    names, vocabulary = list(encoder.num_embeddings), whole_vocabulary(encoding)
    found = []
    for field, column in first_columns(encoder.pooled, names).items():
        entries = vocabulary[column]
        missing: int | None = 0
        if entries[:1] == [OOV]:
            missing = entries.index(MISSING) if MISSING in entries and field not in encoder.pooled else None
        of_both = [about.get(split, {}).get(field, {}).get(kind) for split in ("id_shares", "valid_shares") for kind in KINDS]
        found.append(Cells(field, names.index(column), missing, *of_both))
    return found


class Unseen:
    """The cells of an encoder's rows that are out of vocabulary and missing, by field, and the values beyond their range, by number.

    A field is lost by the rule of :func:`dcrnn_fast.data.inspect.oov.lost_fields`. With ``strict`` the encoder then raises DataError and
    the rows so far are forgotten; else ``tell`` gets a line, once: that is Python's warning. So it does for a field whose share has risen
    by the rule of :func:`dcrnn_fast.data.inspect.oov.risen_fields`, and for a number of whose values most are above or below its
    ``ranges``. A cell that all rows of a small table have counts once, since they may be one user's, and so does one of a
    large table whose rows share cells.
    """

    def __init__(self, encoder: Encoder, cells: Sequence[Cells], ranges: Mapping[str, Sequence[float]], *, strict: bool = False) -> None:
        self.cells, self.strict = list(cells), strict
        self.tell: Callable[[str], None] = warnings.warn
        shares = {one.field: {"oov": one.oov, "missing": one.missing} for one in cells}
        self._trained = {field: {kind: share for kind, share in of.items() if share is not None} for field, of in shares.items()}
        self._valid = {one.field: {"oov": one.valid_oov, "missing": one.valid_missing} for one in cells}
        self._numbers, fields = [name for name in encoder.dense if name in ranges], list(encoder.num_embeddings)
        self._places = [*(one.column for one in cells), *(len(fields) + encoder.dense.index(name) for name in self._numbers)]
        # Of a field, what is below is unknown, of a number, too low; what is missing is counted with what is above.
        bounds = [[-np.inf if one.oov is None else 1, np.inf, np.nan if one.missing_id is None else one.missing_id] for one in cells]
        bounds += [[*ranges[name], np.nan] for name in self._numbers]
        self._low, self._high, self._missing = np.array(bounds, np.float64).reshape(-1, 3).T
        self._of_users = [at for at, name in enumerate(fields) if name not in encoder.dense]
        self._of_users += range(len(fields), len(fields) + len(encoder.dense))
        self.clear()
        encoder.watch = self.add

    def clear(self) -> None:
        """Forget all rows."""
        self._totals, self._last = np.zeros((4, len(self._low))), np.full(len(self._low), np.nan)
        self._requests = 0
        self._waiting: list[Array] = []
        self._told: set[str] = set()

    def add(self, ids: npt.NDArray[np.int64], dense: npt.NDArray[np.float32], varied: list[int], is_request: bool) -> None:
        """Count rows: of a large table one drawn of each few, for a table may repeat. Unknown cells of ``varied`` are several texts."""
        drawn: npt.NDArray[np.int64] | slice = slice(None)
        if (step := -(-len(ids) // WINDOW)) > 1:
            begins = np.arange(0, len(ids), step)
            drawn = np.random.default_rng(0).integers(begins, np.minimum(begins + step, len(ids)))
        rows = np.concatenate([ids[drawn], dense[drawn]], axis=1, dtype=np.float64)
        if len(ids) > 1 and (is_request or len(ids) <= REQUEST):
            alike = (rows == rows[0]).all(axis=0)
            alike[varied] = False
            rows[1:, alike] = np.nan
            is_request = is_request or alike[self._of_users].any()
        with _LOCK:
            self._waiting.append(rows)
            self._requests += 1 if is_request or len(ids) == 1 else MIN_ROWS
            if len(ids) <= FEW and not self.strict and len(self._waiting) < FEW:
                return
            added, news = self._count_waiting(), []
            for name, line, is_lost in self._lines(added if len(ids) > REQUEST else self._totals):  # a table is judged by itself
                if is_lost and self.strict:
                    self.clear()
                    raise DataError(line)
                if name not in self._told:
                    self._told.add(name)
                    news.append(line)
        for line in news:
            self.tell(line)

    def rates(self) -> dict[str, dict[str, float]]:
        """By field, the parts "oov" and "missing" of the cells counted so far, where the field has such cells."""
        with _LOCK:
            self._count_waiting()
            return {one.field: self._shares(at, self._totals) for at, one in enumerate(self.cells)}

    def trained(self) -> dict[str, dict[str, float]]:
        """By field, the same of the train rows."""
        return self._trained

    def _count_waiting(self) -> Array:
        """Count what waits. Returns by how much the totals have grown: the cells, those below their bounds, those above or missing, and the
        runs of equal cells, [4, fields + numbers]."""
        if not self._waiting:
            return np.zeros_like(self._totals)
        cells, self._waiting = np.concatenate(self._waiting)[:, self._places], []
        numbers = cells[:, len(self.cells) :]
        numbers[numbers == 0] = np.nan  # missing
        is_there = ~np.isnan(cells)
        last = np.maximum.accumulate(np.where(is_there, np.arange(len(cells))[:, None], -1), axis=0)
        before = np.vstack([self._last, np.where(last < 0, self._last, np.take_along_axis(cells, last.clip(0), axis=0))])
        begins, self._last = is_there & (cells != before[:-1]), before[-1]
        counted = is_there, cells < self._low, (cells > self._high) | (cells == self._missing), begins
        added = np.array([np.count_nonzero(one, axis=0) for one in counted])
        room = np.maximum(WINDOW - added[0], 0)
        self._totals = self._totals * np.minimum(1, room / np.maximum(self._totals[0], 1)) + added
        return added

    def _shares(self, at: int, totals: Array) -> dict[str, float]:
        rows, *counts = totals[:3, at].tolist()
        trained = self._trained[self.cells[at].field]
        return {kind: count / rows for kind, count in zip(KINDS, counts, strict=True) if rows and kind in trained}

    def _lines(self, totals: Array) -> Iterator[tuple[str, str, bool]]:
        """A field or number that is no longer as in the train rows, a line of it, and whether it is a field that is lost."""
        rows, low, high, runs = totals
        for at in map(int, np.flatnonzero((rows >= MIN_ROWS) & (low + high >= RISE * rows))):
            # Rows of one user, one after another, have one id: there are as many users as runs.
            are_many = self._requests >= MIN_ROWS and runs[at] >= ENOUGH
            if at < len(self.cells):
                now = {self.cells[at].field: self._shares(at, totals)}
                lost = lost_fields(self._trained, now, "scored", round(rows[at]))
                for line in lost or (risen_fields(self._trained, self._valid, now, "scored") if are_many else ()):
                    yield self.cells[at].field, line, bool(lost)
            elif are_many and (most := max(low[at], high[at]) / rows[at]) > 0.5:
                name, where = self._numbers[at - len(self.cells)], "below" if low[at] > high[at] else "above"
                yield (
                    f"number {name}",
                    f"number {name!r}: {most:.1%} of the scored values are {where} 99% of the train values: compare their units, such as "
                    "cents with euros; if the scored values are right, train on newer rows",
                    False,
                )
