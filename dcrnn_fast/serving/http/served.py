"""What a server serves: the ranker of a run folder or of an exported file, once it has scored a row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ...errors import DataError, printable
from ..export.load import ExportedRanker
from ..ranker import Ranker

Served = Ranker | ExportedRanker


def load_served(path: Path, load: Callable[[Path], Served]) -> Served:
    """The ranker that ``load`` gives, :func:`load_exported` or :meth:`Ranker.load`, once it has scored a row. Raises its errors."""
    ranker = load(path)
    scores = ranker.predict({name: [None] for name in ranker.columns})
    if ranker.unseen is not None:
        ranker.unseen.clear()
        ranker.unseen.tell = lambda line: told(f"warning: {line}")
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise DataError(f"{path} gives a row of missing cells no finite score; train again, and see the run's log")
    return ranker


def short_id(served: Served) -> str:
    """The first 12 digits of the model's id."""
    return str(served.id)[:12]


def told(line: str) -> None:
    """Write a line to stderr, if anybody can hear it."""
    with suppress(OSError, AttributeError, ValueError):
        sys.stderr.write(printable(f"{line}\n"))
        sys.stderr.flush()
