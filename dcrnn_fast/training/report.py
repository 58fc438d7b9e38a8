"""What a run tells its user while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Report:
    """Says nothing. Override the methods whose events you want to show.

    >>> class Losses(Report):
    ...     def epoch(self, record, **of_the_run):
    ...         print(record["epoch"], record["train_loss"])
    >>> Losses().epoch({"epoch": 1, "train_loss": 0.25}, epochs=3, rows_per_second=1e5, best=True)
    1 0.25
    """

    def start(self, *, epochs: int, total_steps: int, step: int) -> None:
        """The run starts, or goes on after ``step`` steps."""

    def step(self, *, step: int, epoch: int, rows_per_second: float) -> None:
        """A training step is done."""

    def epoch(self, record: Mapping[str, Any], *, epochs: int, rows_per_second: float, best: bool) -> None:
        """An epoch is done. ``record`` holds ``epoch``, ``step``, ``train_loss``, ``monitor`` and, by task, the ``valid`` metrics."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def close(self) -> None:
        """The run ends, with or without an error."""
