"""Everything that needs a GPU, in one command: ``python3 scripts/gpu.py``, or ``make gpu``. Needs no virtual environment and no network.

The sources are copied to build/gpu/tree and built there: a package whose kernels lie beside it is otherwise importable only once installed.
Steps go on after a failure, but tests never run after a red build, and nothing is timed unless the tests passed on these very sources
and this card, now or in an earlier call. Logs, results and the summary go to the folder $OUT, or build/gpu.

Exit code 0 if nothing failed, 1 if a step failed, 3 without a CUDA device.
"""

from __future__ import annotations

import argparse
import hashlib
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

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "gpu"
COPIED = {name: name for name in ("csrc", "dcrnn_fast", "bench", "tests", "scripts", "setup.py", "pyproject.toml", "README.md", "LICENSE")}
COPIED["kernels"] = "dcrnn_fast/kernels"
BUILT = (".so", ".pyc", "_build_failure.txt")
CHOICES = ("tests", "sanitizer", "tune", "bench")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
GRACE = 60.0
"""Seconds beyond the budget that a command which stops by itself is given to finish its case."""


@dataclass(frozen=True)
class Command:
    """A command line, more environment, and whether it takes ``--minutes`` and stops by itself."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stops_itself: bool = False


@dataclass(frozen=True)
class Step:
    """Commands that are one line of the summary. It does not run unless ``needs`` have passed."""

    name: str
    commands: tuple[Command, ...]
    needs: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What came of a step: "passed", "failed" or "not run", why, and how long it took."""

    state: str
    why: str = ""
    seconds: float = 0.0


def words(arguments: Sequence[str]) -> str:
    """A command in short: without Python's path and what follows the first few arguments."""
    return " ".join(argument for argument in arguments[:6] if argument != sys.executable)


class Runner:
    """Runs steps one after another, each with a log of its own, within a budget of time."""

    def __init__(self, out: Path, where: Path, *, ends: float | None = None, passed_before: Iterable[str] = ()) -> None:
        self.out, self.where, self.ends = out, where, ends
        self.outcomes: dict[str, Outcome] = {}
        self.passed_before = set(passed_before)

    def run(self, step: Step) -> bool:
        """Whether the step passed."""
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
        if name in self.outcomes:
            return self.outcomes[name].state == "passed"
        return name in self.passed_before

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
                code = self._call(arguments, command.environment, log, left)
                if code:
                    whys.append(f"{words(arguments)}: {code}")
        return Outcome("failed", "; ".join(whys)) if whys else Outcome("passed")

    def _call(self, arguments: list[str], environment: Mapping[str, str], log: TextIO, left: float | None) -> str:
        """Why the command failed, or nothing. One that is still running at the end of its time is ended with its children."""
        settings = {**os.environ, "PYTHONPATH": str(self.where), **environment}
        settings.pop("TRITON_INTERPRET", None)
        try:
            process = subprocess.Popen(
                arguments,
                cwd=self.where,
                env=settings,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
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

    def summary(self) -> str:
        """A line a step."""
        lines = [f"{'step':<13}{'result':<10}{'seconds':>8}  note"]
        for name, outcome in self.outcomes.items():
            lines.append(f"{name:<13}{outcome.state:<10}{outcome.seconds:>8.0f}  {outcome.why}".rstrip())
        return "\n".join(lines)


def copy_sources(target: Path) -> str:
    """Make ``target`` hold the sources, and return their hash. Files that did not change keep their times: nothing is built twice.

    What was measured on other sources is deleted, so that no later call takes it for theirs.
    """
    wanted = {}
    for source, place in COPIED.items():
        paths = sorted((ROOT / source).rglob("*")) if (ROOT / source).is_dir() else [ROOT / source]
        for path in paths:
            if path.is_file() and not path.name.endswith(BUILT) and not path.is_relative_to(ROOT / "bench" / "results"):
                wanted[target / place / path.relative_to(ROOT / source)] = path
    results = target / "bench" / "results"
    for there in [*target.rglob("*")] if target.is_dir() else []:
        made_there = there.name.endswith(BUILT) or there.is_relative_to(target / "build") or there.is_relative_to(results)
        if there.is_file() and there not in wanted and not made_there:
            there.unlink()
    sources = hashlib.sha256()
    for copy, path in wanted.items():
        content = path.read_bytes()
        sources.update(f"{copy.relative_to(target)} {len(content)}\n".encode() + content)
        if not copy.is_file() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    stamp = target.with_name("sources.txt")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != sources.hexdigest():
        shutil.rmtree(results, ignore_errors=True)
        target.with_name("tuning.json").unlink(missing_ok=True)
        stamp.write_text(sources.hexdigest(), encoding="utf-8")
    return sources.hexdigest()


def steps_of(python: str, only: Iterable[str], *, extension: bool, tuned: Path) -> list[Step]:
    """The steps on a device in their order."""
    pytest = (python, "-m", "pytest", "-p", "no:cacheprovider")
    measured = {"DCRNN_FAST_TUNING": str(tuned)}
    # what a machine cannot build it cannot test; the build's log says why
    deselected = () if extension else ("-k", "not the_extension")
    driver = (python, "scripts/gpu_device.py")
    no_cache = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    sanitize = [
        Command(
            (
                "compute-sanitizer",
                "--tool",
                tool,
                "--error-exitcode",
                "9",
                *driver,
                "small",
                *(("--as-allocated",) * (tool == "initcheck")),
            ),
            no_cache,
        )
        for tool in TOOLS
    ]
    every = [
        Step("tests", (Command((*pytest, "tests/triton", "tests/cuda", "tests/gpu", "tests/core", *deselected)),), needs=("build",)),
        Step("sanitizer", tuple(sanitize), needs=("build",)),
        Step("tune", (Command((*driver, "tune"), measured, stops_itself=True),), needs=("tests",)),
        Step(
            "bench",
            (Command((*pytest, "bench/test_gpu.py", "--benchmark", "--missing", "--benchmark-disable"), measured, stops_itself=True),),
            needs=("tests",),
        ),
    ]
    return [step for step in every if step.name in only]


def card_of(log: Path) -> tuple[str | None, str]:
    """The card that the environment's report names, or None and the reason it gives."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    found = {"card": None, "no CUDA device": "the environment's report did not finish"}
    for line in text.splitlines():
        name, sign, value = line.partition(": ")
        if sign and name in found:
            found[name] = value
    return found["card"], str(found["no CUDA device"])


def run(runner: Runner, options: argparse.Namespace, *, steps: Callable[..., list[Step]] = steps_of, sources: str = "") -> int:
    """The exit code, after all steps."""
    python, only = sys.executable, options.only
    runner.run(Step("environment", (Command((python, "scripts/gpu_device.py", "report")),)))
    card, reason = card_of(runner.log("environment"))
    if options.no_build:
        runner.passed_before.add("build")
    else:
        build = Command((python, "setup.py", "build_ext", "--inplace"), {"DCRNN_FAST_CPP": os.environ.get("DCRNN_FAST_CPP", "auto")})
        runner.run(Step("build", (build,)))
    if card is None:
        folders = ("tests/triton", "tests/cuda", "tests/gpu", "tests/core", "bench")
        collect = Command((python, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *folders))
        runner.run(Step("offline", (Command((python, "-m", "dcrnn_fast", "info")), collect), needs=("build",)))
        print(f"gpu: no CUDA device: {reason}", flush=True)
        return 1 if _failed(runner) else 3
    record, stamp = FOLDER / "tests.json", {"sources": sources, "card": card}
    if sources and record.is_file() and json.loads(record.read_text(encoding="utf-8")) == stamp:
        runner.passed_before.add("tests")
    built = {name: any((runner.where / "dcrnn_fast").glob(f"{name}.*")) for name in ("_C", "_C_cuda")}
    extension = built["_C"]
    for name in (name for name, there in built.items() if not there):
        print(f"gpu: built without {name}, whose tests are left out; the build's log says why", flush=True)
    for step in steps(python, only, extension=extension, tuned=FOLDER / "tuning.json"):
        passed = runner.run(step)
        if step.name == "tests":
            record.unlink(missing_ok=True)
            if passed and sources:
                record.write_text(json.dumps(stamp), encoding="utf-8")
    return 1 if _failed(runner) else 0


def _failed(runner: Runner) -> bool:
    return any(outcome.state == "failed" or "needs" in outcome.why for outcome in runner.outcomes.values())


def collect_results(out: Path, tree: Path) -> None:
    """Copy what was measured to the output folder."""
    for path in [*(tree / "bench" / "results").glob("*"), FOLDER / "tuning.json"]:
        if path.is_file():
            (out / "results").mkdir(exist_ok=True)
            shutil.copyfile(path, out / "results" / path.name)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CHOICES), help=f"steps after the build, of {','.join(CHOICES)} (the default: all)")
    parser.add_argument("--minutes", type=float, help="start nothing new after so many minutes; what was measured is kept")
    parser.add_argument("--no-build", action="store_true", help="take what an earlier call built")
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
    tree = FOLDER / "tree"
    sources = copy_sources(tree)
    runner = Runner(out, tree, ends=ends)
    code = run(runner, options, sources=sources)
    collect_results(out, tree)
    summary = runner.summary()
    (out / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    print(summary, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
