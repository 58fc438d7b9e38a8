"""When a run that is not told how often writes its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STEPS = 200
"""Steps between checkpoints if ``checkpoint_every`` is null and a checkpoint is quickly written."""
SHARE = 10
"""After a checkpoint, training goes on for at least this many times as long as writing it took."""


class CheckpointPace:
    """Lets a large table not be written so often that training stands still. It decides when something is written, never what is trained.

    >>> times = iter([0.0, 3.0, 32.0, 33.0])
    >>> pace = CheckpointPace(clock=lambda: next(times))
    >>> pace.allows()
    True
    >>> with pace.writing():
    ...     pass
    >>> pace.allows(), pace.allows()
    (False, True)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._from: float | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The block writes a checkpoint."""
        start = self._clock()
        yield
        end = self._clock()
        self._from = end + SHARE * (end - start)

    def allows(self) -> bool:
        """Whether training has gone on for long enough since the last checkpoint."""
        return self._from is None or self._clock() >= self._from
