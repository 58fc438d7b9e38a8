"""Runs everything that needs a GPU, in one command: ``python3 scripts/gpu.py``, or ``make gpu``. No virtual environment, no network.

The script copies the sources to build/gpu/tree and builds them there, then tests, sanitizes, tunes and measures. It goes on after a failed
step, with two exceptions: tests never run after a failed build, and nothing is timed unless the tests passed on these very sources and this
card, now or in an earlier call. Logs, results and the summary go to the folder $OUT, or to build/gpu.

The exit code is 0 if nothing failed, 1 if a step failed, 3 without a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import tree

TESTS = ("tests/operators", "tests/triton", "tests/core", "tests/scripts")
BENCHMARKS = ("bench", "--benchmark", "--grid", "full", "--device", "cuda", "--missing", "--record")
COLLECTED = (*TESTS, "bench")
"""What pytest only collects, on a machine without a GPU."""
WITHOUT_EXTENSION = ("-k", "not the_extension")
"""Leaves out the tests of the extension, on a machine that could not build it."""

FOLDER = tree.ROOT / "build" / "gpu"
CHOICES = ("tests", "sanitizer", "tune", "bench")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
GRACE = 60.0
"""Seconds beyond the budget, in which a command that stops by itself can finish what it is at."""


@dataclass(frozen=True)
class Command:
    """A command line and variables of its environment. One that ``stops_itself`` takes the option ``--minutes``."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stops_itself: bool = False


@dataclass(frozen=True)
class Step:
    """Commands that share a line of the summary. They run only if the steps in ``needs`` have passed."""

    name: str
    commands: tuple[Command, ...]
    needs: tuple[str, ...] = ()


@dataclass
class Outcome:
    """A step's state ("passed", "failed" or "not run"), the reason, and the time it took."""

    state: str
    why: str = ""
    seconds: float = 0.0


def words(arguments: Sequence[str]) -> str:
    """A command's first few words, without Python's path."""
    return " ".join(argument for argument in arguments[:6] if argument != sys.executable)


class Runner:
    """Runs steps one after another within a time budget, each with its own log."""

    def __init__(self, out: Path, where: Path, *, ends: float | None = None, passed_before: Iterable[str] = ()) -> None:
        self.out, self.where, self.ends = out, where, ends
        self.outcomes: dict[str, Outcome] = {}
        self.passed_before = set(passed_before)

    def run(self, step: Step) -> bool:
        """Run a step, and return whether it passed."""
        red = [name for name in step.needs if not self._passed(name)]
        begin = time.monotonic()
        if red:
            outcome = Outcome("not run", f"needs {red[0]} to pass on these sources first")
        elif self.ends is not None and begin >= self.ends:
            outcome = Outcome("not run", "the minutes are used up")
        else:
            outcome = self._run(step)
        outcome.seconds = time.monotonic() - begin
        self.outcomes[step.name] = outcome
        print(f"gpu: {step.name}: {outcome.state}{': ' * bool(outcome.why)}{outcome.why} ({outcome.seconds:.0f} s)", flush=True)
        return outcome.state == "passed"

    def _passed(self, name: str) -> bool:
        return self.outcomes[name].state == "passed" if name in self.outcomes else name in self.passed_before

    def log(self, name: str) -> Path:
        """The log file of a step."""
        return self.out / f"{name}.log"

    def _run(self, step: Step) -> Outcome:
        print(f"gpu: {step.name}, log {self.log(step.name)}", flush=True)
        whys = []
        with self.log(step.name).open("w", encoding="utf-8") as log:
            for command in step.commands:
                left = None if self.ends is None else self.ends - time.monotonic()
                if left is not None and left <= 0:
                    whys.append(f"the minutes were used up before: {words(command.arguments)}")
                    break
                arguments = list(command.arguments)
                if command.stops_itself and left is not None:
                    arguments += ["--minutes", f"{left / 60:.2f}"]
                    left += GRACE
                print(f"$ {' '.join(arguments)}", file=log, flush=True)
                if why := self._call(arguments, command.environment, log, left):
                    whys.append(f"{words(arguments)}: {why}")
        return Outcome("failed", "; ".join(whys)) if whys else Outcome("passed")

    def _call(self, arguments: list[str], environment: Mapping[str, str], log: TextIO, left: float | None) -> str:
        """Run a command, and return why it failed, or nothing. When its time is up, it is ended together with its children."""
        settings = {**os.environ, "PYTHONPATH": str(self.where), **environment}
        settings.pop("TRITON_INTERPRET", None)
        try:
            process = subprocess.Popen(arguments, cwd=self.where, env=settings, stdout=log, stderr=log, start_new_session=True)
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        try:
            code = process.wait(left)
            return f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            return "ended, the minutes were used up"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def failed(self) -> bool:
        """Whether a step failed, or did not run because another one had failed."""
        return any(outcome.state == "failed" or "needs" in outcome.why for outcome in self.outcomes.values())

    def summary(self) -> str:
        """A line for each step."""
        lines = [f"{'step':<13}{'result':<10}{'seconds':>8}  note"]
        for name, outcome in self.outcomes.items():
            lines.append(f"{name:<13}{outcome.state:<10}{outcome.seconds:>8.0f}  {outcome.why}".rstrip())
        return "\n".join(lines)


def copy_sources(target: Path) -> str:
    """Copy the sources, and return their hash. What was measured on other sources is deleted: no later call can take it for its own."""
    sources, stamp = tree.copy(target), target.with_name("sources.txt")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != sources:
        shutil.rmtree(target / tree.RESULTS, ignore_errors=True)
        target.with_name("tuning.json").unlink(missing_ok=True)
        stamp.write_text(sources, encoding="utf-8")
    return sources


def steps_of(python: str, only: Iterable[str], *, extension: bool, tuned: Path) -> list[Step]:
    """The steps on a GPU, in their order."""
    pytest, device = (python, "-m", "pytest", "-p", "no:cacheprovider"), (python, "scripts/gpu_device.py")
    measured, uncached = {"DCRNN_FAST_TUNING": str(tuned)}, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    sanitized = []
    for tool in TOOLS:
        options = ("--as-allocated",) if tool == "initcheck" else ()
        sanitizer = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9")
        sanitized.append(Command((*sanitizer, *device, "small", *options), uncached))
    every = [
        Step("tests", (Command((*pytest, *TESTS, *(() if extension else WITHOUT_EXTENSION))),), needs=("build",)),
        Step("sanitizer", tuple(sanitized), needs=("build",)),
        Step("tune", (Command((*device, "tune"), measured, stops_itself=True),), needs=("tests",)),
        Step("bench", (Command((*pytest, *BENCHMARKS), measured, stops_itself=True),), needs=("tests",)),
    ]
    return [step for step in every if step.name in only]


def card_of(log: Path) -> tuple[str | None, str]:
    """The card that the environment's report names, or None and the reason that the report gives."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    found = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return found.get("card"), found.get("no CUDA device", "the environment's report did not finish")


def run(runner: Runner, options: argparse.Namespace, *, steps: Callable[..., list[Step]] = steps_of, sources: str = "") -> int:
    """Run all steps, and return the exit code."""
    python = sys.executable
    runner.run(Step("environment", (Command((python, "scripts/gpu_device.py", "report")),)))
    card, reason = card_of(runner.log("environment"))
    if options.no_build:
        runner.passed_before.add("build")
    else:
        build = Command((python, "setup.py", "build_ext", "--inplace"), {"DCRNN_FAST_CPP": os.environ.get("DCRNN_FAST_CPP", "auto")})
        runner.run(Step("build", (build,)))
    if card is None:
        collect = Command((python, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *COLLECTED))
        runner.run(Step("offline", (Command((python, "-m", "dcrnn_fast", "info")), collect), needs=("build",)))
        print(f"gpu: no CUDA device: {reason}", flush=True)
        return 1 if runner.failed() else 3
    record, stamp = FOLDER / "tests.json", {"sources": sources, "card": card}
    if sources and record.is_file() and json.loads(record.read_text(encoding="utf-8")) == stamp:
        runner.passed_before.add("tests")
    built = {name: any((runner.where / "dcrnn_fast").glob(f"{name}.*")) for name in ("_C", "_C_cuda")}
    for name in (name for name, there in built.items() if not there):
        print(f"gpu: built without {name}, whose tests are left out; the build's log says why", flush=True)
    for step in steps(python, options.only, extension=built["_C"], tuned=FOLDER / "tuning.json"):
        passed = runner.run(step)
        if step.name == "tests":
            record.unlink(missing_ok=True)
            if passed and sources:
                record.write_text(json.dumps(stamp), encoding="utf-8")
    return int(runner.failed())


def collect_results(out: Path, where: Path) -> None:
    """Copy what was measured to the output folder."""
    for path in [*(where / tree.RESULTS).glob("*"), FOLDER / "tuning.json"]:
        if path.is_file():
            (out / "results").mkdir(exist_ok=True)
            shutil.copyfile(path, out / "results" / path.name)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CHOICES), help=f"steps after the build, of {','.join(CHOICES)} (default: all)")
    parser.add_argument("--minutes", type=float, help="start nothing new after so many minutes, and keep what was measured")
    parser.add_argument("--no-build", action="store_true", help="use what an earlier call built")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if unknown := [name for name in options.only if name not in CHOICES]:
        parser.error(f"--only {unknown[0]}: expected {','.join(CHOICES)}")
    return options


def main() -> int:
    """Run what the command line asks for, and print the summary last."""
    options = parse()
    ends = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    out = Path(os.environ.get("OUT") or FOLDER).resolve()
    for folder in (out, FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
    where = FOLDER / "tree"
    sources = copy_sources(where)
    runner = Runner(out, where, ends=ends)
    code = run(runner, options, sources=sources)
    collect_results(out, where)
    summary = runner.summary()
    (out / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    print(summary, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
