"""What a run tells its user while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Report:
    """Says nothing. Override the methods whose events you want to show.

    >>> class Losses(Report):
    ...     def evaluation(self, record, **of_the_run):
    ...         print(record["step"], record["train_loss"])
    >>> Losses().evaluation({"step": 100, "train_loss": 0.25}, epochs=3, rows_per_second=1e5, best=True)
    100 0.25
    """

    def start(self, *, epochs: int, total_steps: int, step: int) -> None:
        """The run starts, or goes on after ``step`` steps."""

    def step(self, *, step: int, epoch: int, rows_per_second: float) -> None:
        """A training step is done."""

    def evaluation(self, record: Mapping[str, Any], *, epochs: int, rows_per_second: float, best: bool) -> None:
        """The model was evaluated on the validation rows: before the first step, inside an epoch or at its end.

        ``record`` holds ``epoch`` (from 1), ``step``, ``train_loss``, ``monitor`` and, by task, the ``valid`` metrics. Before the first
        step, ``epoch`` and ``step`` are 0 and ``train_loss`` is None.
        """

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def close(self) -> None:
        """The run ends, with or without an error."""
