"""Runs everything that needs a GPU, in one command: ``python3 scripts/gpu.py``, or ``make gpu``. No virtual environment, no network.

The script copies the sources to build/gpu/tree, builds them there for this card alone, and then makes these steps, what matters most first:

    smoke      one forward and backward of every kernel beside float64, in under a minute
    headline   the headline benchmark
    tests      the operators' tests, part by part
    tune       tile sizes
    bench      every benchmark
    sanitizer  compute-sanitizer, tool by tool

It goes on after a failed step, except where one needs another: nothing runs after a failed build, nothing is timed after a failed smoke
test, and tile sizes and benchmarks wait for every test. Each part that passed is recorded; no later call on the same sources and the same
kind of card makes it again.

Everything goes to one file, results.tar.gz, in the folder $OUT or build/gpu. ``--resume results.tar.gz`` goes on from it, also on another
machine. Without a GPU the script builds, and makes a dry run of every step. The exit code is 0 if nothing failed, 1 if a step failed, 3
without a CUDA device.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

import tree

PARTS = (
    "tests/operators/test_param_gather.py",
    "tests/operators/test_cross_rnn.py",
    "tests/operators/test_cross_rnn_cuda.py",
    "tests/operators/test_on_gpu.py",
    "tests/operators/test_planted_defects.py",
    "tests/operators/test_stack.py",
    "tests/operators/test_arguments.py",
    "tests/operators",
    "tests/core",
    "tests/triton",
)
"""The parts of the tests, in their order. A folder stands for its files that are no parts of their own."""
HEADLINE = ("bench/test_cross_rnn.py", "--benchmark", "--grid", "headline", "--device", "cuda", "--missing", "--record")
BENCHMARKS = ("bench", "--benchmark", "--grid", "full", "--device", "cuda", "--missing", "--record")
WITHOUT_EXTENSION = ("-k", "not the_extension")
"""Leaves out the tests of the extension, on a machine that could not build it."""

FOLDER = tree.ROOT / "build" / "gpu"
CHOICES = ("smoke", "headline", "tests", "tune", "bench", "sanitizer")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
GRACE = 60.0
"""Seconds beyond the budget, in which a command that stops by itself can finish what it is at."""
KEPT = re.compile(r"(logs|results)/[\w.-]+|(tuning|passed|sources)\.(json|txt)")
"""The names in results.tar.gz. A file of another name is never unpacked."""
LARGEST = 64 << 20
"""Bytes of the largest file that is unpacked."""


@dataclass(frozen=True)
class Command:
    """A command line and variables of its environment. One that ``stops_itself`` takes the option ``--minutes``.

    A command with a name is a part of its step: where it passed on these sources and this card before, it does not run again.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stops_itself: bool = False
    name: str = ""


@dataclass(frozen=True)
class Step:
    """Commands that share a line of the summary. They run only if the steps in ``needs`` have passed. ``dry`` runs without a GPU."""

    name: str
    commands: tuple[Command, ...]
    needs: tuple[str, ...] = ()
    dry: tuple[Command, ...] = ()


@dataclass
class Outcome:
    """A step's state ("passed", "failed", "unfinished" or "not run"), the reason, and the time it took."""

    state: str
    why: str = ""
    seconds: float = 0.0


def words(arguments: Sequence[str]) -> str:
    """A command's first few words, without Python's path."""
    return " ".join(argument for argument in arguments[:6] if argument != sys.executable)


class Runner:
    """Runs steps one after another within a time budget, each with its own log."""

    def __init__(self, logs: Path, where: Path, *, ends: float | None = None) -> None:
        self.logs, self.where, self.ends = logs, where, ends
        self.outcomes: dict[str, Outcome] = {}
        self.passed_before: set[str] = set()
        self.changed: Callable[[], None] = lambda: None
        """Called when a part or a step has passed or failed."""

    def run(self, step: Step) -> bool:
        """Run a step, and return whether it passed."""
        red = [name for name in step.needs if not self._passed(name)]
        begin = time.monotonic()
        if step.name in self.passed_before and all(command.name for command in step.commands):
            outcome = Outcome("passed", "before, on these sources and this card")
        elif self.ends is not None and begin >= self.ends:
            outcome = Outcome("not run", "the minutes are used up")
        elif red:
            outcome = Outcome("not run", f"needs {red[0]} to pass on these sources first")
        else:
            outcome = self._run(step)
        outcome.seconds = time.monotonic() - begin
        self.outcomes[step.name] = outcome
        (self.passed_before.add if outcome.state == "passed" else self.passed_before.discard)(step.name)
        self.changed()
        print(f"gpu: {step.name}: {outcome.state}{': ' * bool(outcome.why)}{outcome.why} ({outcome.seconds:.0f} s)", flush=True)
        return outcome.state == "passed"

    def _passed(self, name: str) -> bool:
        return self.outcomes[name].state == "passed" if name in self.outcomes else name in self.passed_before

    def log(self, name: str) -> Path:
        """The log file of a step."""
        return self.logs / f"{name}.log"

    def _run(self, step: Step) -> Outcome:
        print(f"gpu: {step.name}, log {self.log(step.name)}", flush=True)
        failed, late = [], ""
        with self.log(step.name).open("a", encoding="utf-8") as log:
            for command in step.commands:
                part = f"{step.name}: {command.name}"
                if command.name and part in self.passed_before:
                    print(f"{part}: passed before", file=log, flush=True)
                    continue
                left = None if self.ends is None else self.ends - time.monotonic()
                if left is not None and left <= 0:
                    late = f"the minutes were used up before: {words(command.arguments)}"
                    break
                arguments = list(command.arguments)
                if command.stops_itself and left is not None:
                    arguments += ["--minutes", f"{left / 60:.2f}"]
                    left += GRACE
                print(f"$ {' '.join(arguments)}", file=log, flush=True)
                if why := self._call(arguments, command.environment, log, left):
                    failed.append(f"{words(arguments)}: {why}")
                elif command.stops_itself and self.ends is not None and time.monotonic() >= self.ends - 1:
                    late = f"the minutes were used up in: {words(arguments)}"
                elif command.name:
                    self.passed_before.add(part)
                    self.changed()
        if failed:
            return Outcome("failed", "; ".join([*failed, *([late] if late else [])]))
        return Outcome("unfinished", late) if late else Outcome("passed")

    def _call(self, arguments: list[str], environment: Mapping[str, str], log: TextIO, left: float | None) -> str:
        """Run a command, and return why it failed, or nothing. When its time is up, it is ended together with its children."""
        inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        settings = {**inherited, "PYTHONPATH": str(self.where), **environment}
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
        """The headline figures, where they were measured, and a line for each step."""
        lines = [*headline_of(self.log("headline")), f"{'step':<13}{'result':<10}{'seconds':>8}  note"]
        for name, outcome in self.outcomes.items():
            lines.append(f"{name:<13}{outcome.state:<10}{outcome.seconds:>8.0f}  {outcome.why}".rstrip())
        return "\n".join(lines)


def headline_of(log: Path) -> list[str]:
    """The last table in the log of the headline benchmark, which ends with the machine and the results' folder."""
    found: list[str] = []
    last: list[str] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []:
        if "our time or memory over a peer's" in line:
            found = [line.strip("= ")]
        elif line.startswith("results: ") and found:
            last, found = [*found, ""], []
        elif found:
            found.append(line)
    return last


def copy_sources(target: Path) -> str:
    """Copy the sources, and return their hash. What was measured on other sources is deleted: no later call can take it for its own."""
    sources, stamp = tree.copy(target), target.with_name("sources.txt")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != sources:
        shutil.rmtree(target / tree.RESULTS, ignore_errors=True)
        shutil.rmtree(target.with_name("logs"), ignore_errors=True)
        for name in ("tuning.json", "passed.json"):
            target.with_name(name).unlink(missing_ok=True)
        stamp.write_text(sources, encoding="utf-8")
    return sources


def steps_of(python: str, only: Iterable[str], *, extension: bool, tuned: Path) -> list[Step]:
    """The steps on a GPU, in their order."""
    pytest, device = (python, "-m", "pytest", "-p", "no:cacheprovider"), (python, "scripts/gpu_device.py")
    spread = ("-n", "8", "--dist", "worksteal") if find_spec("xdist") else ()
    measured, uncached = {"DCRNN_FAST_TUNING": str(tuned)}, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    collect = (*pytest, "--collect-only", "-q")
    parts = []
    for part in PARTS:
        left_out = [f"--ignore={other}" for other in PARTS if other != part and Path(other).is_relative_to(part)]
        parts.append((part, *left_out, *(() if extension else WITHOUT_EXTENSION)))
    sanitized = []
    for tool in TOOLS:
        options = ("--as-allocated",) if tool == "initcheck" else ()
        sanitizer = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9")
        sanitized.append(Command((*sanitizer, *device, "small", *options), uncached, name=tool))
    every = [
        Step(
            "smoke",
            (Command((*device, "smoke")),),
            needs=("build",),
            dry=(Command((*device, "smoke"), {"TRITON_INTERPRET": "1"}),),
        ),
        Step(
            "headline",
            (Command((*pytest, *HEADLINE), measured, stops_itself=True),),
            needs=("smoke",),
            dry=(Command((*collect, *HEADLINE)), Command((*pytest, "-q", HEADLINE[0]))),
        ),
        Step(
            "tests",
            tuple(Command((*pytest, *spread, *part), name=part[0]) for part in parts),
            needs=("smoke",),
            dry=(Command((*collect, *(part for part in PARTS if not part.endswith(".py")))),),
        ),
        Step(
            "tune",
            (Command((*device, "tune"), measured, stops_itself=True),),
            needs=("tests",),
            dry=(Command((*device, "tune", "--dry-run")),),
        ),
        Step(
            "bench",
            (Command((*pytest, *BENCHMARKS), measured, stops_itself=True),),
            needs=("tests",),
            dry=(Command((*collect, *BENCHMARKS)),),
        ),
        Step("sanitizer", tuple(sanitized), needs=("smoke",), dry=(Command((*device, "small", "--dry-run")),)),
    ]
    return [step for step in every if step.name in only]


def report_of(log: Path) -> dict[str, str]:
    """What the environment's report says, by the words before each colon."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def run(runner: Runner, options: argparse.Namespace, *, steps: Callable[..., list[Step]] = steps_of, sources: str = "") -> int:
    """Run all steps, and return the exit code."""
    python = sys.executable
    runner.log("environment").unlink(missing_ok=True)
    runner.run(Step("environment", (Command((python, "scripts/gpu_device.py", "report")),)))
    found = report_of(runner.log("environment"))
    card = found.get("card")
    if options.no_build:
        runner.passed_before.add("build")
    else:
        wanted = {"DCRNN_FAST_CPP": os.environ.get("DCRNN_FAST_CPP", "auto")}
        if "capability" in found:
            wanted["TORCH_CUDA_ARCH_LIST"] = os.environ.get("TORCH_CUDA_ARCH_LIST", found["capability"])
        runner.run(Step("build", (Command((python, "setup.py", "build_ext", "--inplace"), wanted),)))
    built = {name: any((runner.where / "dcrnn_fast").glob(f"{name}.*")) for name in ("_C", "_C_cuda")}
    chosen = steps(python, options.only, extension=built["_C"], tuned=FOLDER / "tuning.json")
    if card is None:
        for step in chosen:
            runner.run(Step(step.name, step.dry, needs=("build",)))
        print(f"gpu: no CUDA device: {found.get('no CUDA device', 'the report on the environment did not finish')}", flush=True)
        return 1 if runner.failed() else 3
    kinds = ("capability", "torch", "triton", "CUDA")
    remember(runner, {"sources": sources, "card": card, "built": built, **{name: found.get(name, "absent") for name in kinds}})
    tuned = FOLDER / "tuning.json"
    if tuned.is_file() and json.loads(tuned.read_text(encoding="utf-8")).get("card") != card:
        tuned.unlink()  # tile sizes of another card
    for name in (name for name, there in built.items() if not there):
        print(f"gpu: built without {name}, whose tests are left out; the build's log says why", flush=True)
    for step in chosen:
        runner.run(step)
        pack(runner)
    return int(runner.failed())


def remember(runner: Runner, stamp: Mapping[str, object]) -> None:
    """Let the runner know what passed with the same ``stamp`` (sources, card, versions, builds), and pack what passes from now on."""
    record = FOLDER / "passed.json"
    known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if {name: known.get(name) for name in stamp} == stamp:
        runner.passed_before |= set(known["passed"])

    def write() -> None:
        replace(record, json.dumps({**stamp, "passed": sorted(runner.passed_before - {"build", "environment"})}, indent=1))
        pack(runner)  # a machine that is taken away in the middle of a step loses nothing that passed

    runner.changed = write


def replace(path: Path, text: str) -> None:
    """Write a file beside its place and rename it."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(text, encoding="utf-8")
    beside.rename(path)


def pack(runner: Runner) -> Path:
    """Write results.tar.gz: the summary, the logs, what was measured and what passed."""
    out = Path(os.environ.get("OUT") or FOLDER).resolve()
    out.mkdir(parents=True, exist_ok=True)
    summary = FOLDER / "logs" / "summary.txt"
    replace(summary, runner.summary() + "\n")
    every = {f"results/{path.name}": path for path in (runner.where / tree.RESULTS).glob("*")}
    every |= {f"logs/{path.name}": path for path in (FOLDER / "logs").glob("*")}
    every |= {path.name: path for path in FOLDER.glob("*")}
    beside = out / ".results.tar.gz"
    with tarfile.open(beside, "w:gz") as archive:
        for name, path in sorted(every.items()):
            if path.is_file() and KEPT.fullmatch(name):
                archive.add(path, name)
    return beside.rename(out / "results.tar.gz")


def unpack(path: Path, where: Path) -> None:
    """Take over what an earlier call packed. Raises SystemExit if the file is damaged, or of other sources."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            found = {
                member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive
                if member.isfile() and KEPT.fullmatch(member.name) and member.size <= LARGEST
            }
    except (OSError, tarfile.TarError, EOFError) as error:
        raise SystemExit(f"gpu: --resume {path}: cannot be read ({error})") from None
    if found.get("sources.txt", b"").decode() != (FOLDER / "sources.txt").read_text(encoding="utf-8"):
        raise SystemExit(f"gpu: --resume {path}: was made of other sources, so nothing in it counts; start without --resume")
    for name, content in found.items():
        place = where / tree.RESULTS / Path(name).name if name.startswith("results/") else FOLDER / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    print(f"gpu: goes on from {path}, {len(found)} files, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}", flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CHOICES), help=f"steps after the build, of {','.join(CHOICES)} (default: all)")
    parser.add_argument("--headline", action="store_true", help="the same as --only smoke,headline")
    parser.add_argument("--minutes", type=float, help="start nothing new after so many minutes, and keep what was measured")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on from the results.tar.gz of an earlier call")
    parser.add_argument("--no-build", action="store_true", help="use what an earlier call built")
    options = parser.parse_args(arguments)
    options.only = ["smoke", "headline"] if options.headline else options.only.split(",")
    if unknown := [name for name in options.only if name not in CHOICES]:
        parser.error(f"--only {unknown[0]}: expected {','.join(CHOICES)}")
    return options


def main() -> int:
    """Run what the command line asks for, and print the summary last."""
    options = parse()
    ends = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    where = FOLDER / "tree"
    FOLDER.mkdir(parents=True, exist_ok=True)
    sources = copy_sources(where)
    if options.resume:
        unpack(options.resume, where)
    logs = FOLDER / "logs"
    logs.mkdir(exist_ok=True)
    runner = Runner(logs, where, ends=ends)
    code = run(runner, options, sources=sources)
    packed = pack(runner)
    print(f"{runner.summary()}\ngpu: everything is in {packed}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
