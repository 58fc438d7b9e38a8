"""What `dcrnn-fast prepare` prints: progress with the remaining time, then rows, rejected rows and the folder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..data import prepare_folder
from .tables import output_console, print_lines

SECONDS = 5.0
"""Between two lines of progress in a pipe or a log file."""


def run_prepare(schema: Path, output: Path, *, inputs: Sequence[str], seed: int, valid_fraction: float, quiet: bool) -> None:
    """Write the packed folder. Raises the errors of :func:`dcrnn_fast.data.prepare_folder`."""
    with ExitStack() as stack:
        report = stack.enter_context(row_progress(quiet=quiet))
        data = prepare_folder(schema, output, inputs=inputs, seed=seed, valid_fraction=valid_fraction, progress=report)
    if quiet:
        return
    lines = [f"{data.meta.name}: {', '.join(f'{count:,} {split}' for split, count in data.meta.rows.items())} rows"]
    rejects = data.path / "rejects.parquet"
    if rejects.is_file():
        lines.append(f"Rejected CSV rows: {pq.read_metadata(rejects).num_rows:,}, in {rejects}")
    print_lines(output_console(), [*lines, f"Packed folder: {output}"])


class _Silent:
    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, what: str, done: int, total: int | None) -> None:
        pass


class _Lines(_Silent):
    """One line every few seconds, and one for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._what, self._began, self._said = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began = what, now
        elif now - self._said < SECONDS:
            return
        self._said = now
        speed = done / (now - self._began) if done and now > self._began else 0.0
        left = f", {(total - done) / speed:,.0f} s left" if total is not None and speed and total > done else ""
        self._console.print(f"{what}: {done:,}{f' of {total:,}' if total else ''}{left}", markup=False, highlight=False, soft_wrap=True)


class _Bar(_Silent):
    """A live bar with the rows a second and the remaining time."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeRemainingColumn())
        self._bar, self._what = Progress(*columns, console=console, transient=True), ""
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if what != self._what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._what, self._task = what, self._bar.add_task(what, total=total, count="")
        assert self._task is not None
        self._bar.update(self._task, completed=done, count=f"{done:,}{f' of {total:,}' if total else ''}")


def row_progress(*, quiet: bool) -> _Silent:
    """What shows progress on standard error, to be entered: a live bar in a terminal, else lines, or nothing."""
    if quiet:
        return _Silent()
    console = Console(stderr=True)
    live = console.file.isatty() and not console.is_dumb_terminal and not os.environ.get("CI")
    return _Bar(console) if live else _Lines(console)
