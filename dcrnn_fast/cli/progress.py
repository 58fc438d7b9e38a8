"""Progress in a terminal or a log: a live bar, one plain line an evaluation, or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..training import Report
from .tables import number


class PlainReport(Report):
    """One line an evaluation, for a pipe or a log file."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def evaluation(self, record: Mapping[str, Any], *, epochs: int, rows_per_second: float, best: bool) -> None:
        """Print the evaluation's line."""
        tasks = "  ".join(f"{task}: auc {number(m['auc'])}, log loss {number(m['log_loss'])}" for task, m in record["valid"].items())
        mark = "  (best)" if best else ""
        place = f"epoch {record['epoch']}/{epochs}  step {record['step']}"
        trained = f"loss {record['train_loss']:.4f}  {rows_per_second:,.0f} rows/s" if record["step"] else "before the first step"
        self.note(f"{place}  {trained}  valid {tasks}{mark}")

    def note(self, text: str) -> None:
        """Print a line as it is."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveReport(PlainReport):
    """The lines of :class:`PlainReport`, and below them a bar with rows/s and the remaining time."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True)

    def start(self, *, epochs: int, total_steps: int, step: int) -> None:
        """Show the bar."""
        self._epochs = epochs
        self._task = self._bar.add_task("training", total=total_steps, completed=step, speed="")
        self._bar.start()

    def step(self, *, step: int, epoch: int, rows_per_second: float) -> None:
        """Move the bar."""
        speed = f"{rows_per_second:,.0f} rows/s"
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}/{self._epochs}", speed=speed)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()


def choose_report(*, quiet: bool = False) -> Report:
    """The report for standard error: live only in a terminal, and not in CI."""
    if quiet:
        return Report()
    console = Console(stderr=True)
    live = console.file.isatty() and not console.is_dumb_terminal and not os.environ.get("CI")
    return LiveReport(console) if live else PlainReport(console)
