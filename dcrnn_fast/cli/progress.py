"""Progress of a training or of reading rows, in a terminal or a log: a live bar, plain lines, or nothing."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..training import Report
from .tables import number, print_lines

SECONDS = 5.0
"""Between two lines of the progress of rows in a pipe or a log file."""


class PlainReport(Report):
    """One line an evaluation, for a pipe or a log file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows = _Lines(console, patience=SECONDS)

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """Print a line every few seconds, if it takes longer."""
        self._rows(what, done, total)

    def evaluation(self, record: Mapping[str, Any], *, epochs: int, rows_per_second: float, best: bool) -> None:
        """Print the evaluation's line."""
        weighted = "weighted_" if any("weighted_auc" in entry for entry in record["valid"].values()) else ""
        names = [f"{weighted}{name}" for name in ("auc", "log_loss")]
        values = {task: [f"{name.replace('_', ' ')} {number(m[name])}" for name in names] for task, m in record["valid"].items()}
        tasks = "  ".join(f"{task}: {', '.join(said)}" for task, said in values.items())
        mark = "  (best)" if best else ""
        place = f"epoch {record['epoch']}/{epochs}  step {record['step']}"
        trained = f"loss {record['train_loss']:.4f}  {rows_per_second:,.0f} rows/s" if record["step"] else "before the first step"
        self.note(f"{place}  {trained}  valid {tasks}{mark}")

    def note(self, text: str) -> None:
        """Print a line as it is."""
        print_lines(self._console, [text])


class LiveReport(PlainReport):
    """The lines of :class:`PlainReport`, and below them a bar with rows/s and the time that remains unless the run stops early."""

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
        speed = f"{rows_per_second:,.0f} rows/s, at most"
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}/{self._epochs}", speed=speed)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()


class _Lines:
    """Progress of rows: one line every few seconds, and one for each step; none in the first ``patience`` seconds."""

    def __init__(self, console: Console, *, patience: float = 0.0) -> None:
        self._console, self._patience = console, patience
        self._what, self._began, self._said, self._first = "", 0.0, 0.0, math.inf

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        self._first = min(self._first, now)
        if what != self._what:
            self._what, self._began = what, now
        elif now - self._said < SECONDS:
            return
        if now - self._first < self._patience:
            return
        self._said = now
        speed = done / (now - self._began) if done and now > self._began else 0.0
        left = f", {(total - done) / speed:,.0f} s left" if total is not None and speed and total > done else ""
        print_lines(self._console, [f"{what}: {done:,}{f' of {total:,}' if total else ''}{left}"])


def choose_report(*, quiet: bool = False) -> Report:
    """The report for standard error: live only in a terminal, and not in CI."""
    if quiet:
        return Report()
    console = Console(stderr=True)
    return LiveReport(console) if _is_live(console) else PlainReport(console)


@contextmanager
def row_progress(*, quiet: bool = False, patience: float = 0.0) -> Iterator[Callable[[str, int, int | None], None]]:
    """Shows what is done, and of how many rows, or None if that is not known: on standard error as a live bar; as lines, none in
    the first ``patience`` seconds; or not at all."""
    console = Console(stderr=True)
    if quiet or not _is_live(console):
        yield (lambda what, done, total: None) if quiet else _Lines(console, patience=patience)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeRemainingColumn())
    bar, tasks = Progress(*columns, console=console, transient=True), dict[str, TaskID]()

    def show(what: str, done: int, total: int | None) -> None:
        if what not in tasks:
            for before in bar.task_ids:
                bar.remove_task(before)
            tasks.clear()
            tasks[what] = bar.add_task(what, total=total, count="")
        bar.update(tasks[what], completed=done, count=f"{done:,}{f' of {total:,}' if total else ''}")

    with bar:
        yield show


def _is_live(console: Console) -> bool:
    return console.file.isatty() and not console.is_dumb_terminal and not os.environ.get("CI")
