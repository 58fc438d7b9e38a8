"""Progress of rows that are read, encoded or scored, in a terminal or a log: a live bar, plain lines, or nothing."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .tables import print_lines

SECONDS = 5.0
"""Between two lines of the progress of rows in a pipe or a log file."""


class RowLines:
    """Progress of rows: one line every few seconds, and one for each step; none in the first ``patience`` seconds."""

    def __init__(self, console: Console, *, patience: float = 0.0) -> None:
        self._console, self._patience = console, patience
        self._what, self._began, self._said, self._first = "", 0.0, 0.0, math.inf

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Print a line if one is due."""
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


@contextmanager
def row_progress(*, quiet: bool = False, patience: float = 0.0) -> Iterator[Callable[[str, int, int | None], None]]:
    """Shows what is done, and of how many rows, or None if that is not known: on standard error as a live bar; as lines, none in
    the first ``patience`` seconds; or not at all."""
    console = Console(stderr=True)
    if quiet or not is_live(console):
        yield (lambda what, done, total: None) if quiet else RowLines(console, patience=patience)
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


def is_live(console: Console) -> bool:
    """Whether a bar can move there: in a terminal, and not in CI."""
    return console.file.isatty() and not console.is_dumb_terminal and not os.environ.get("CI")
