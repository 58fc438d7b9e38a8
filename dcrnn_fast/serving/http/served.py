"""What a server serves: the ranker of a run folder or of an exported file, once it has scored a row."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ... import __version__
from ...errors import DataError, printable
from ..export.load import ExportedRanker, load_exported
from ..ranker import Ranker


class Served(NamedTuple):
    """A ranker, its ``id`` (12 hex digits), its ``kind`` ("run", "pt2" or "aoti"), and the versions that made it."""

    ranker: Ranker | ExportedRanker
    id: str
    kind: str
    dcrnn_fast: str
    torch: str


def load_run(path: Path, *, device: str = "auto", backend: str = "auto") -> Served:
    """The ranker of a run folder, once it has scored a row. Raises the errors of :meth:`Ranker.load`."""
    ranker = Ranker.load(path, device=device, backend=backend)
    return _tried(Served(ranker, str(ranker.id)[:12], "run", __version__, torch.__version__), path)


def load_package(path: Path) -> Served:
    """The ranker of an exported file, once it has scored a row. Raises the errors of :func:`load_exported`."""
    ranker = load_exported(path)
    return _tried(Served(ranker, ranker.id[:12], *(ranker.about[key] for key in ("kind", "dcrnn_fast", "torch"))), path)


def _tried(served: Served, path: Path) -> Served:
    scores, unseen = served.ranker.predict({name: [None] for name in served.ranker.columns}), served.ranker.unseen
    if unseen is not None:
        unseen.clear()
        unseen.tell = lambda line: told(f"warning: {line}")
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise DataError(f"{path} gives a row of missing cells no finite score; train again, and see the run's log")
    return served


def told(line: str) -> None:
    """Write a line to stderr, if anybody can hear it."""
    with suppress(OSError, AttributeError, ValueError):
        sys.stderr.write(printable(f"{line}\n"))
        sys.stderr.flush()
