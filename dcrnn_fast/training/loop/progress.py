"""Tells how a run gets on: its user by a report, TensorBoard by scalars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..folder.run_files import run_folder_errors


class Report:
    """Says nothing. Override the methods whose events you want to show.

    >>> class Losses(Report):
    ...     def evaluation(self, record, **of_the_run):
    ...         print(record["step"], record["train_loss"])
    >>> Losses().evaluation({"step": 100, "train_loss": 0.25}, epochs=3, rows_per_second=1e5, best=True)
    100 0.25
    """

    keeps_interrupted = False
    """Whether Ctrl-C ends the run as early stopping does, if it has been evaluated."""

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """The data is prepared, at its first use: what is being done, how much of it is done, and how much there is, if that is known."""

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


class Scalars:
    """Scalars by step, for TensorBoard, which it ``writes`` or drops. A resumed run hides what a killed run wrote from its first one on."""

    def __init__(self, folder: Path, *, writes: bool) -> None:
        self._folder, self._writes = folder, writes
        self._writer: Any = None

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        """Add the values that are defined. The first ones make the file."""
        if not self._writes:
            return
        from torch.utils.tensorboard import SummaryWriter  # takes a while

        with run_folder_errors(self._folder):
            self._writer = self._writer or SummaryWriter(str(self._folder), purge_step=step)
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write everything to the disk: if the process is killed, the log must reach up to the checkpoint."""
        with run_folder_errors(self._folder):
            if self._writer:
                self._writer.flush()

    def close(self) -> None:
        """Write everything, and close the file."""
        with run_folder_errors(self._folder):
            if self._writer:
                self._writer.close()
