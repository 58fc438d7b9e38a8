"""Steps of commands, run one after another within a time budget. scripts.gpu says which."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

ENDED = "ended, the minutes were used up"
GRACE = 60.0
"""Seconds beyond the budget, in which a command that stops by itself can finish what it is at."""
PAUSE = 10.0
"""Seconds between two looks at what a running command has measured."""
LAST_LINES = 15
"""Lines of a failed command's output that are printed."""


@dataclass(frozen=True)
class Command:
    """A command line and variables of its environment. One that ``stops_itself`` takes the option ``--minutes``.

    A command with a name is a part of its step: where it passed before, it does not run again. A command starts only while more than
    ``least`` seconds are left.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stops_itself: bool = False
    name: str = ""
    least: float = 0.0


@dataclass(frozen=True)
class Step:
    """Commands that share a line of the summary. They run only if the steps in ``needs`` have passed. ``dry`` runs without a GPU."""

    name: str
    commands: tuple[Command, ...]
    needs: tuple[str, ...] = ()
    dry: tuple[Command, ...] = ()


@dataclass
class Outcome:
    """A step's state ("passed", "failed", "unfinished", "blocked" or "not run"), the reason, and the time it took."""

    state: str
    why: str = ""
    seconds: float = 0.0


def words(arguments: Sequence[str]) -> str:
    """A command's first few words, without Python's path."""
    return " ".join(argument for argument in arguments[:6] if argument != sys.executable)


def last_lines(log: Path) -> str:
    """The end of a log."""
    return "\n".join(f"    {line}" for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])


class Runner:
    """Runs steps one after another within a time budget, each with its own log."""

    def __init__(self, logs: Path, where: Path, *, ends: float | None = None, packages: Path | None = None) -> None:
        self.logs, self.where, self.ends, self.packages = logs, where, ends, packages
        self.outcomes: dict[str, Outcome] = {}
        self.passed_before: set[str] = set()
        self.partly: dict[str, Mapping[str, str]] = {}
        """Steps of which enough has passed for those that need them, and the variables of the environment that these then get."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a part or a step has passed or failed."""
        self.going_on: Callable[[], None] = lambda: None
        """Called from time to time while a command runs."""

    def run(self, step: Step) -> bool:
        """Run a step, and return whether it passed."""
        red = [name for name in step.needs if not self._passed(name)]
        begin = time.monotonic()
        if step.name in self.passed_before and all(command.name for command in step.commands):
            outcome = Outcome("passed", "before")
        elif self.ends is not None and begin >= self.ends:
            outcome = Outcome("not run", "the minutes are used up")
        elif red:
            outcome = Outcome("blocked", f"needs {red[0]} to pass on these sources first")
        else:
            outcome = self._run(step)
        outcome.seconds = time.monotonic() - begin
        self.outcomes[step.name] = outcome
        is_whole = outcome.state == "passed" and not any(name in self.partly for name in step.needs)
        (self.passed_before.add if is_whole else self.passed_before.discard)(step.name)
        self.changed()
        print(f"gpu: {step.name}: {outcome.state}{': ' * bool(outcome.why)}{outcome.why} ({outcome.seconds:.0f} s)", flush=True)
        return outcome.state == "passed"

    def _passed(self, name: str) -> bool:
        return name in self.partly or (self.outcomes[name].state == "passed" if name in self.outcomes else name in self.passed_before)

    def log(self, name: str) -> Path:
        """The log file of a step."""
        return self.logs / f"{name}.log"

    def _run(self, step: Step) -> Outcome:
        print(f"gpu: {step.name}, log {self.log(step.name)}", flush=True)
        failed, late = [], ""
        partly = {key: value for name in step.needs for key, value in self.partly.get(name, {}).items()}
        with self.log(step.name).open("a", encoding="utf-8") as log:
            for command in step.commands:
                part = f"{step.name}: {command.name}"
                if command.name and part in self.passed_before:
                    print(f"{part}: passed before", file=log, flush=True)
                    continue
                left = None if self.ends is None else self.ends - time.monotonic()
                if left is not None and left <= command.least:
                    late = f"{max(0.0, left):.0f} s were left before: {words(command.arguments)}"
                    break
                arguments = list(command.arguments)
                if command.stops_itself and left is not None:
                    arguments += ["--minutes", f"{left / 60:.2f}"]
                    left += GRACE
                print(f"$ {' '.join(arguments)}", file=log, flush=True)
                why = self._call(arguments, {**command.environment, **partly}, log, left)
                if why == ENDED:
                    late = f"{words(arguments)}: {ENDED}"
                    break
                if why:
                    failed.append(f"{words(arguments)}: {why}")
                    print(f"gpu: {failed[-1]}; the end of its output:\n{last_lines(self.log(step.name))}", flush=True)
                elif command.stops_itself and self.ends is not None and time.monotonic() >= self.ends - 1:
                    late = f"the minutes were used up in: {words(arguments)}"
                elif command.name and not partly:  # what was left out is still to be measured
                    self.passed_before.add(part)
                    self.changed()
        if failed:
            return Outcome("failed", "; ".join([*failed, *([late] if late else [])]))
        return Outcome("unfinished", late) if late else Outcome("passed")

    def _call(self, arguments: list[str], environment: Mapping[str, str], log: TextIO, left: float | None) -> str:
        """Run a command, and return why it failed, or nothing. When its time is up, it is ended together with its children."""
        inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        carried = [str(self.packages)] if self.packages else []  # and what the user carries along stays visible
        paths = [str(self.where), *carried, *filter(None, [inherited.get("PYTHONPATH")])]
        settings = {**inherited, "PYTHONPATH": os.pathsep.join(paths), **environment}
        try:
            process = subprocess.Popen(arguments, cwd=self.where, env=settings, stdout=log, stderr=log, start_new_session=True)
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        try:
            ends = None if left is None else time.monotonic() + left
            while ends is None or time.monotonic() < ends:
                try:
                    code = process.wait(PAUSE if ends is None else min(PAUSE, max(0.0, ends - time.monotonic())))
                except subprocess.TimeoutExpired:
                    self.going_on()
                else:
                    return f"exit code {code}" if code else ""
            return ENDED
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def failed(self) -> bool:
        """Whether a step failed, or did not run because another one had failed."""
        return any(outcome.state in ("failed", "blocked") for outcome in self.outcomes.values())

    def summary(self) -> str:
        """A line for each step."""
        lines = [f"{'step':<13}{'result':<11}{'seconds':>8}  note"]
        for name, outcome in self.outcomes.items():
            lines.append(f"{name:<13}{outcome.state:<11}{outcome.seconds:>8.0f}  {outcome.why}".rstrip())
        return "\n".join(lines)
